// Runs inside a box, once per test, with the classes of an answer beside it; what it reads and writes is described in
// driver_javascript.js. The types of the arguments are those the answer's method declares; the arguments of this program
// are those of the task's signature (what is returned, then the parameters), which pick one of several methods. Kotlin
// uses it too.

import java.io.FileOutputStream;
import java.lang.reflect.Array;
import java.lang.reflect.Constructor;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.lang.reflect.WildcardType;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.LinkedList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.SortedSet;
import java.util.Stack;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.stream.Stream;

final class AssayDriver {
    private static final List<Class<?>> WHOLE = List.of(int.class, long.class, short.class, byte.class, Integer.class,
        Long.class, Short.class, Byte.class, BigInteger.class);
    // what a list or a map arrives as: the first that is what the parameter declares
    private static final List<Class<?>> LISTS = List.of(ArrayList.class, LinkedList.class, ArrayDeque.class, Stack.class,
        LinkedHashSet.class, TreeSet.class);
    private static final List<Class<?>> WHOLE_LISTS = LISTS.subList(0, 4); // take every list
    private static final List<Class<?>> MAPS = List.of(LinkedHashMap.class, TreeMap.class);
    private static final String DEFAULT = "$default";
    private static final List<String> TUPLES = List.of("kotlin.Pair", "kotlin.Triple");
    private final String[] tokens;
    private final boolean wide; // some integer is no int: where no type of integers is declared, all are longs
    private int at = 4;

    private AssayDriver(String[] tokens) {
        this.tokens = tokens;
        boolean wide = false;
        for (int i = at; i < tokens.length; i++)
            wide |= tokens[i].length() > 10 && tokens[i].startsWith("i")
                && new BigInteger(tokens[i].substring(1)).bitLength() > 31;
        this.wide = wide;
    }

    public static void main(String[] kinds) throws Throwable {
        String[] tokens = new String(System.in.readAllBytes(), StandardCharsets.US_ASCII).split("\n");
        System.in.close();
        FileOutputStream channel = new FileOutputStream("/proc/self/fd/3");
        String reply;
        try {
            reply = "V" + written(new AssayDriver(tokens).call(kinds), 0);
        } catch (InvocationTargetException error) {
            reply = "E" + quoted(cut(error.getCause()));
        } catch (Throwable error) {
            reply = "E" + quoted(cut(error));
        }
        channel.write((tokens[0] + "\n" + reply).getBytes(StandardCharsets.US_ASCII));
        Runtime.getRuntime().halt(0);
    }

    private Object call(String[] kinds) throws Throwable {
        Method method = find(tokens[1], tokens[2], kinds);
        Object[] values = new Object[kinds.length - 1];
        for (int i = 0; i < values.length; i++) values[i] = read(method.getGenericParameterTypes()[i]);
        method.setAccessible(true);
        Object owner = null;
        if (!Modifier.isStatic(method.getModifiers())) {
            Constructor<?> make = method.getDeclaringClass().getDeclaredConstructor();
            make.setAccessible(true);
            owner = make.newInstance();
        }
        if (method.getParameterCount() > values.length) return filled(method, owner, values);
        return method.getReturnType() == void.class ? new Object() : method.invoke(owner, values);
    }

    // The rest of the parameters have values of their own: in Kotlin a method beside this one puts them in.
    private static Object filled(Method method, Object owner, Object[] given) throws Exception {
        List<Class<?>> types = List.of(method.getParameterTypes());
        int first = owner == null ? 0 : 1, size = first + types.size() + 2, left = 0;
        Object[] all = new Object[size];
        if (first > 0) all[0] = owner;
        for (int i = 0; i < types.size(); i++) {
            boolean there = i < given.length;
            all[first + i] = there ? given[i] : Array.get(Array.newInstance(types.get(i), 1), 0);
            if (!there) left |= 1 << i;
        }
        all[size - 2] = left;
        for (Method one : method.getDeclaringClass().getDeclaredMethods()) {
            boolean fits = one.getName().equals(method.getName() + DEFAULT) && one.getParameterCount() == size;
            if (!fits || !List.of(one.getParameterTypes()).subList(first, size - 2).equals(types)) continue;
            one.setAccessible(true);
            return one.invoke(null, all);
        }
        throw new NoSuchMethodException("no method " + method.getName() + " of " + given.length + " parameters");
    }

    private static Method find(String file, String entry, String[] kinds) throws Exception {
        Method found = null;
        int best = -100, count = kinds.length - 1;
        try (JarFile jar = new JarFile(file)) {
            for (JarEntry item : (Iterable<JarEntry>) jar.stream()::iterator) {
                String name = item.getName();
                boolean theirs = name.endsWith(".class") && !name.startsWith("META-INF/") && !name.startsWith("kotlin/");
                if (!theirs || name.endsWith("module-info.class")) continue;
                name = name.substring(0, name.length() - 6).replace('/', '.');
                Class<?> owner = Class.forName(name, false, AssayDriver.class.getClassLoader());
                Method[] methods = owner.getDeclaredMethods();
                boolean defaults = Stream.of(methods).anyMatch(one -> one.getName().equals(entry + DEFAULT));
                for (Method method : methods) {
                    int more = method.getParameterCount() - count;
                    boolean fits = method.getName().equals(entry) && (more == 0 || (defaults && more > 0));
                    if (!fits || method.isSynthetic() || Modifier.isAbstract(method.getModifiers())) continue;
                    int rank = rank(method, kinds) - (more > 0 ? 50 : 0);
                    if (rank > best) found = method;
                    best = Math.max(rank, best);
                }
            }
        }
        if (found == null) throw new NoSuchMethodException("no class has a method " + entry + " of " + count + " parameters");
        return found;
    }

    // Parameters that can be what is declared count most, then the type returned, then how the method is reached; of
    // int and long the one that holds more.
    private static int rank(Method method, String[] kinds) {
        boolean takes = true;
        int wide = 0;
        for (int i = 1; i < kinds.length; i++) {
            Type type = method.getGenericParameterTypes()[i - 1];
            takes = takes && takes(type, kinds[i]);
            if (type == long.class || type == Long.class || type == double.class || type == Double.class) wide = 1;
        }
        return (takes ? 16 : 0) + (takes(method.getGenericReturnType(), kinds[0].replaceAll("[?]$", "")) ? 8 : 0)
            + (Modifier.isStatic(method.getModifiers()) ? 4 : 0)
            + (method.getDeclaringClass().getEnclosingClass() == null ? 2 : 0) + wide;
    }

    private static boolean takes(Type declared, String kind) {
        Type type = bound(declared);
        Class<?> whole = raw(type);
        if (whole == Object.class) return true;
        Type[] inside = type instanceof ParameterizedType ? ((ParameterizedType) type).getActualTypeArguments() : null;
        if (kind.endsWith("?")) {
            String item = kind.substring(0, kind.length() - 1);
            if (whole == Optional.class) return inside == null || takes(inside[0], item);
            return !whole.isPrimitive() && takes(type, item);
        }
        if (kind.endsWith("[]")) {
            String item = kind.substring(0, kind.length() - 2);
            if (whole.isArray()) return takes(part(type), item);
            return WHOLE_LISTS.stream().anyMatch(whole::isAssignableFrom) && (inside == null || takes(inside[0], item));
        }
        if (kind.startsWith("map["))
            return MAPS.stream().anyMatch(whole::isAssignableFrom)
                && (inside == null || takes(inside[1], kind.substring(4, kind.length() - 1)));
        if (kind.equals("float"))
            return whole == double.class || whole == float.class || whole == Float.class || whole.isAssignableFrom(Double.class);
        if (kind.equals("bool")) return whole == boolean.class || whole.isAssignableFrom(Boolean.class);
        if (kind.equals("string")) return whole.isAssignableFrom(String.class);
        return WHOLE.contains(whole) || whole.isAssignableFrom(Integer.class);
    }

    // what stands for a wildcard or a type parameter: what it has to be
    private static Type bound(Type type) {
        if (type instanceof TypeVariable) return bound(((TypeVariable<?>) type).getBounds()[0]);
        if (!(type instanceof WildcardType)) return type;
        Type[] below = ((WildcardType) type).getLowerBounds();
        return bound(below.length > 0 ? below[0] : ((WildcardType) type).getUpperBounds()[0]);
    }

    private static Type part(Type array) {
        return array instanceof GenericArrayType ? ((GenericArrayType) array).getGenericComponentType()
            : ((Class<?>) array).getComponentType();
    }

    private String next(String tags) {
        String token = tokens[at++];
        if (tags.indexOf(token.charAt(0)) < 0)
            throw new IllegalArgumentException("an argument is not of the type its parameter declares");
        return token.substring(1);
    }

    private Object read(Type declared) throws Exception {
        Type type = bound(declared);
        Class<?> whole = raw(type);
        Type[] inside = type instanceof ParameterizedType ? ((ParameterizedType) type).getActualTypeArguments()
            : new Type[] {Object.class};
        if (tokens[at].equals("n")) {
            at++;
            return whole == Optional.class ? Optional.empty() : null;
        }
        if (whole == Optional.class) return Optional.of(read(inside[0]));
        if (whole.isArray()) return array(part(type));
        if (TUPLES.contains(whole.getName())) return tuple(whole, inside);
        if (tokens[at].startsWith("l")) return list(whole, inside[0]);
        if (tokens[at].startsWith("d")) return map(whole, inside[inside.length - 1]);
        return scalar(whole);
    }

    private Object scalar(Class<?> type) {
        if (type == int.class || type == Integer.class) return new BigInteger(next("i")).intValueExact();
        if (type == long.class || type == Long.class) return new BigInteger(next("i")).longValueExact();
        if (type == short.class || type == Short.class) return new BigInteger(next("i")).shortValueExact();
        if (type == byte.class || type == Byte.class) return new BigInteger(next("i")).byteValueExact();
        if (type == BigInteger.class) return new BigInteger(next("i"));
        if (type == double.class && tokens[at].startsWith("i")) return new BigInteger(next("i")).doubleValue();
        if (type == double.class || type == Double.class) return number();
        if (type == float.class || type == Float.class) return (float) number();
        if (type == boolean.class || type == Boolean.class) return next("b").equals("1");
        if (type == char.class || type == Character.class) {
            String text = text();
            if (text.length() != 1) throw new IllegalArgumentException("an argument is not one char");
            return text.charAt(0);
        }
        Object value = natural();
        if (!type.isInstance(value)) throw new IllegalArgumentException("no argument can be a " + type.getName());
        return value;
    }

    // Object, Number, Comparable: as it is
    private Object natural() {
        switch (tokens[at].charAt(0)) {
            case 'b': return next("b").equals("1");
            case 'f': return number();
            case 's': return text();
            default: break;
        }
        BigInteger whole = new BigInteger(next("i"));
        if (wide) return whole.longValueExact();
        return whole.intValueExact();
    }

    private double number() {
        return Double.longBitsToDouble(Long.parseUnsignedLong(next("f"), 16));
    }

    private String text() {
        String hex = next("s");
        byte[] bytes = new byte[hex.length() / 2];
        for (int i = 0; i < bytes.length; i++) bytes[i] = (byte) Integer.parseInt(hex.substring(2 * i, 2 * i + 2), 16);
        return new String(bytes, StandardCharsets.UTF_8);
    }

    private Object array(Type part) throws Exception {
        int size = Integer.parseInt(next("l"));
        Object out = Array.newInstance(raw(part), size);
        for (int i = 0; i < size; i++) Array.set(out, i, read(part));
        return out;
    }

    private static Object made(Class<?> whole, List<Class<?>> stock) throws Exception {
        for (Class<?> one : stock) if (whole.isAssignableFrom(one)) return one.getDeclaredConstructor().newInstance();
        throw new IllegalArgumentException("no argument can be a " + whole.getName());
    }

    @SuppressWarnings("unchecked")
    private Object list(Class<?> whole, Type part) throws Exception {
        Collection<Object> out = (Collection<Object>) made(whole, LISTS);
        List<Object> items = new ArrayList<>();
        for (int left = Integer.parseInt(next("l")); left > 0; left--) items.add(read(part));
        out.addAll(items);
        // nothing is sorted, and no equals are removed, on the answer's behalf
        if (!new ArrayList<>(out).equals(items))
            throw new IllegalArgumentException("no " + whole.getName() + " holds what this list holds, in its order");
        return out;
    }

    private Object tuple(Class<?> whole, Type[] parts) throws Exception {
        if (Integer.parseInt(next("l")) != parts.length) throw new IllegalArgumentException("a list of another length");
        Object[] items = new Object[parts.length];
        for (int i = 0; i < items.length; i++) items[i] = read(parts[i]);
        return whole.getConstructors()[0].newInstance(items);
    }

    @SuppressWarnings("unchecked")
    private Object map(Class<?> whole, Type part) throws Exception {
        Map<Object, Object> out = (Map<Object, Object>) made(whole, MAPS);
        for (int left = Integer.parseInt(next("d")); left > 0; left--) {
            String key = text();
            out.put(key, read(part));
        }
        return out;
    }

    private static Class<?> raw(Type type) {
        if (type instanceof Class<?>) return (Class<?>) type;
        if (type instanceof ParameterizedType) return raw(((ParameterizedType) type).getRawType());
        if (type instanceof GenericArrayType)
            return Array.newInstance(raw(((GenericArrayType) type).getGenericComponentType()), 0).getClass();
        return raw(bound(type));
    }

    private static String written(Object value, int depth) throws Exception {
        if (depth > 200) return "[\"O\",\"too deep\"]";
        if (value == null) return "[\"N\"]";
        Class<?> kind = value.getClass();
        if (kind == Boolean.class) return (Boolean) value ? "[\"b\",1]" : "[\"b\",0]";
        if (kind == Integer.class || kind == Long.class || kind == Short.class || kind == Byte.class)
            return "[\"i\",\"" + Long.toString(((Number) value).longValue(), 16) + "\"]";
        if (kind == BigInteger.class) return "[\"i\",\"" + ((BigInteger) value).toString(16) + "\"]";
        if (kind == Double.class || kind == Float.class) {
            long bits = Double.doubleToLongBits(((Number) value).doubleValue());
            return String.format("[\"D\",\"%016x\"]", bits);
        }
        if (kind == String.class || kind == Character.class) return "[\"s\"," + quoted(value.toString()) + "]";
        StringBuilder out = new StringBuilder();
        if (kind.isArray()) {
            for (int i = 0; i < Array.getLength(value); i++)
                out.append(i > 0 ? "," : "").append(written(Array.get(value, i), depth + 1));
            return "[\"l\",[" + out + "]]";
        }
        // a class of the answer's own is no list, whatever it extends
        boolean library = kind.getClassLoader() == null || kind.getName().startsWith("kotlin.collections.");
        if (TUPLES.contains(kind.getName())) {
            for (int i = 1; i <= TUPLES.indexOf(kind.getName()) + 2; i++) {
                Object item = kind.getMethod("component" + i).invoke(value);
                out.append(i > 1 ? "," : "").append(written(item, depth + 1));
            }
            return "[\"l\",[" + out + "]]";
        }
        boolean ordered = value instanceof List || value instanceof Deque || value instanceof LinkedHashSet
            || value instanceof SortedSet;
        if (library && ordered) {
            for (Object item : (Collection<?>) value)
                out.append(out.length() > 0 ? "," : "").append(written(item, depth + 1));
            return "[\"l\",[" + out + "]]";
        }
        if (library && value instanceof Map) {
            for (Map.Entry<?, ?> pair : ((Map<?, ?>) value).entrySet()) {
                out.append(out.length() > 0 ? ",[" : "[").append(written(pair.getKey(), depth + 1));
                out.append(",").append(written(pair.getValue(), depth + 1)).append("]");
            }
            return "[\"d\",[" + out + "]]";
        }
        if (value instanceof Optional) return written(((Optional<?>) value).orElse(null), depth + 1);
        if (value instanceof OptionalInt && ((OptionalInt) value).isPresent())
            return written(((OptionalInt) value).getAsInt(), depth + 1);
        if (value instanceof OptionalLong && ((OptionalLong) value).isPresent())
            return written(((OptionalLong) value).getAsLong(), depth + 1);
        if (value instanceof OptionalDouble && ((OptionalDouble) value).isPresent())
            return written(((OptionalDouble) value).getAsDouble(), depth + 1);
        if (value instanceof OptionalInt || value instanceof OptionalLong || value instanceof OptionalDouble) return "[\"N\"]";
        return "[\"O\",\"an object\"]";
    }

    private static String cut(Throwable error) {
        String text;
        try {
            text = error.getClass().getName() + ": " + error.getMessage();
        } catch (Throwable theirs) {
            text = "an exception";
        }
        return text.substring(0, Math.min(500, text.length()));
    }

    private static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (int i = 0; i < text.length(); i++) {
            char unit = text.charAt(i);
            if (unit >= ' ' && unit < 127 && unit != '"' && unit != '\\') out.append(unit);
            else out.append(String.format("\\u%04x", (int) unit));
        }
        return out.append('"').toString();
    }
}
