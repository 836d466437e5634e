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
import java.lang.reflect.WildcardType;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;

final class AssayDriver {
    private static final List<Class<?>> WHOLE = List.of(int.class, long.class, short.class, byte.class, Integer.class,
        Long.class, Short.class, Byte.class, BigInteger.class);
    private final String[] tokens;
    private int at = 4;

    private AssayDriver(String[] tokens) {
        this.tokens = tokens;
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
        return method.getReturnType() == void.class ? new Object() : method.invoke(owner, values);
    }

    private static Method find(String file, String entry, String[] kinds) throws Exception {
        Method found = null;
        int best = -1, count = kinds.length - 1;
        try (JarFile jar = new JarFile(file)) {
            for (JarEntry item : (Iterable<JarEntry>) jar.stream()::iterator) {
                String name = item.getName();
                boolean theirs = name.endsWith(".class") && !name.startsWith("META-INF/") && !name.startsWith("kotlin/");
                if (!theirs || name.endsWith("module-info.class")) continue;
                name = name.substring(0, name.length() - 6).replace('/', '.');
                Class<?> owner = Class.forName(name, false, AssayDriver.class.getClassLoader());
                for (Method method : owner.getDeclaredMethods()) {
                    boolean fits = method.getName().equals(entry) && method.getParameterCount() == count;
                    if (!fits || method.isSynthetic() || Modifier.isAbstract(method.getModifiers())) continue;
                    int rank = rank(method, kinds);
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

    private static boolean takes(Type type, String kind) {
        if (type instanceof WildcardType) return takes(((WildcardType) type).getUpperBounds()[0], kind);
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
            if (type instanceof GenericArrayType) return takes(((GenericArrayType) type).getGenericComponentType(), item);
            if (whole.isArray()) return takes(whole.getComponentType(), item);
            return whole.isAssignableFrom(ArrayList.class) && (inside == null || takes(inside[0], item));
        }
        if (kind.startsWith("map["))
            return whole.isAssignableFrom(LinkedHashMap.class)
                && (inside == null || takes(inside[1], kind.substring(4, kind.length() - 1)));
        if (kind.equals("float")) return List.of(double.class, Double.class, float.class, Float.class).contains(whole);
        if (kind.equals("bool")) return whole == boolean.class || whole == Boolean.class;
        if (kind.equals("string")) return whole == String.class || whole == CharSequence.class;
        return WHOLE.contains(whole);
    }

    private String next(String tags) {
        String token = tokens[at++];
        if (tags.indexOf(token.charAt(0)) < 0)
            throw new IllegalArgumentException("an argument is not of the type its parameter declares");
        return token.substring(1);
    }

    private Object read(Type type) {
        if (type instanceof WildcardType) return read(((WildcardType) type).getUpperBounds()[0]);
        if (type instanceof GenericArrayType)
            return array(((GenericArrayType) type).getGenericComponentType());
        if (type instanceof Class<?> && ((Class<?>) type).isArray()) return array(((Class<?>) type).getComponentType());
        if (tokens[at].equals("n")) {
            at++;
            return type instanceof ParameterizedType && raw(type) == Optional.class ? Optional.empty() : null;
        }
        if (type instanceof ParameterizedType) {
            Type[] inside = ((ParameterizedType) type).getActualTypeArguments();
            Class<?> whole = raw(type);
            if (whole == Optional.class) return Optional.of(read(inside[0]));
            if (whole.isAssignableFrom(ArrayList.class)) return list(inside[0]);
            if (whole.isAssignableFrom(LinkedHashMap.class)) return map(inside[1]);
        }
        return scalar(raw(type));
    }

    private Object scalar(Class<?> type) {
        if (type == int.class || type == Integer.class) return new BigInteger(next("i")).intValueExact();
        if (type == long.class || type == Long.class) return new BigInteger(next("i")).longValueExact();
        if (type == short.class || type == Short.class) return new BigInteger(next("i")).shortValueExact();
        if (type == byte.class || type == Byte.class) return new BigInteger(next("i")).byteValueExact();
        if (type == BigInteger.class) return new BigInteger(next("i"));
        if (type == double.class || type == Double.class) return number();
        if (type == float.class || type == Float.class) return (float) number();
        if (type == boolean.class || type == Boolean.class) return next("b").equals("1");
        if (type == String.class || type == CharSequence.class) return text();
        if (!type.isAssignableFrom(ArrayList.class) && !type.isAssignableFrom(LinkedHashMap.class))
            throw new IllegalArgumentException("no argument can be a " + type.getName());
        switch (tokens[at].charAt(0)) { // nothing is declared: as it is
            case 'b': return next("b").equals("1");
            case 'f': return number();
            case 's': return text();
            case 'l': return list(type == Object.class ? type : Object.class);
            case 'd': return map(Object.class);
            default: break;
        }
        BigInteger whole = new BigInteger(next("i"));
        if (whole.bitLength() < 32) return whole.intValueExact();
        return whole.longValueExact();
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

    private Object array(Type part) {
        int size = Integer.parseInt(next("l"));
        Object out = Array.newInstance(raw(part), size);
        for (int i = 0; i < size; i++) Array.set(out, i, read(part));
        return out;
    }

    private List<Object> list(Type part) {
        List<Object> out = new ArrayList<>();
        for (int left = Integer.parseInt(next("l")); left > 0; left--) out.add(read(part));
        return out;
    }

    private Map<Object, Object> map(Type part) {
        Map<Object, Object> out = new LinkedHashMap<>();
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
        return Object.class;
    }

    private static String written(Object value, int depth) {
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
        if (kind == String.class) return "[\"s\"," + quoted((String) value) + "]";
        StringBuilder out = new StringBuilder();
        if (kind.isArray()) {
            for (int i = 0; i < Array.getLength(value); i++)
                out.append(i > 0 ? "," : "").append(written(Array.get(value, i), depth + 1));
            return "[\"l\",[" + out + "]]";
        }
        // a class of the answer's own is no list, whatever it extends
        boolean library = kind.getClassLoader() == null || kind.getName().startsWith("kotlin.collections.");
        if (library && value instanceof List) {
            for (Object item : (List<?>) value)
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
