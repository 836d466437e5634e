// Runs inside a box, once per test, with the answer's library beside it; what it reads and writes is described in
// driver_javascript.js. The types of the arguments are those the answer's method declares; the arguments of this program
// are those of the task's signature (what is returned, then the parameters), which pick one of several methods.

using System;
using System.Collections;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Numerics;
using System.Reflection;
using System.Text;

static class AssayDriver
{
    const BindingFlags Any = BindingFlags.Static | BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic
        | BindingFlags.DeclaredOnly;
    static readonly Type[] Ordered = { typeof(Queue<>), typeof(LinkedList<>) };
    static string[] tokens;
    static int at = 4;

    static void Main(string[] kinds)
    {
        tokens = new StreamReader(Console.OpenStandardInput(), Encoding.ASCII).ReadToEnd().Split('\n');
        var channel = new FileStream("/proc/self/fd/3", FileMode.Open, FileAccess.Write);
        string reply;
        try
        {
            reply = "V" + Written(Call(kinds), 0);
        }
        catch (TargetInvocationException error)
        {
            reply = "E" + Quoted(Cut(error.InnerException));
        }
        catch (Exception error)
        {
            reply = "E" + Quoted(Cut(error));
        }
        var data = Encoding.ASCII.GetBytes(tokens[0] + "\n" + reply);
        channel.Write(data, 0, data.Length);
        channel.Flush();
        Environment.Exit(0);
    }

    static object Call(string[] kinds)
    {
        var method = Find(tokens[1], tokens[2], kinds);
        if (method.IsGenericMethodDefinition) method = Filled(method, kinds);
        // a parameter behind those of the signature has a value of its own
        var values = method.GetParameters()
            .Select((one, i) => i < kinds.Length - 1 ? Read(one.ParameterType) : one.DefaultValue).ToArray();
        var owner = method.IsStatic ? null : Activator.CreateInstance(method.DeclaringType, true);
        var found = method.ReturnType == typeof(void) ? new object() : method.Invoke(owner, values);
        // what is declared to be items one after the other (a query, an iterator) is the list of them
        bool items = method.ReturnType.IsGenericType && method.ReturnType.GetGenericTypeDefinition() == typeof(IEnumerable<>);
        return items && found != null && !Sets(found.GetType()) ? ((IEnumerable)found).Cast<object>().ToList() : found;
    }

    static bool Sets(Type type)
    {
        return type.GetInterfaces().Any(one => one.IsGenericType && one.GetGenericTypeDefinition() == typeof(ISet<>));
    }

    static MethodInfo Find(string file, string entry, string[] kinds)
    {
        int count = kinds.Length - 1;
        var methods = Assembly.LoadFrom(Path.GetFullPath(file)).GetTypes().SelectMany(type => type.GetMethods(Any));
        var fitting = methods.Where(one => one.Name == entry && !one.IsAbstract && one.GetParameters().Length >= count
            && one.GetParameters().Skip(count).All(further => further.IsOptional));
        var found = fitting.OrderByDescending(one => Rank(one, kinds)).FirstOrDefault();
        if (found == null) throw new MissingMethodException("no class has a method " + entry + " of " + count + " parameters");
        return found;
    }

    // Parameters that can be what is declared count most, then that there are no others, then the type returned, then how
    // the method is reached; of int and long the one that holds more.
    static int Rank(MethodInfo method, string[] kinds)
    {
        var types = method.GetParameters().Select(one => one.ParameterType).ToArray();
        var declared = types.Take(kinds.Length - 1).ToArray();
        bool takes = !method.IsGenericMethodDefinition && declared.Zip(kinds.Skip(1), Takes).All(one => one);
        bool wide = declared.Any(one => one == typeof(long) || one == typeof(double));
        return (takes ? 32 : 0) + (types.Length == declared.Length ? 16 : 0)
            + (Takes(method.ReturnType, kinds[0].TrimEnd('?')) ? 8 : 0) + (method.IsStatic ? 4 : 0)
            + (method.DeclaringType.DeclaringType == null ? 2 : 0) + (wide ? 1 : 0);
    }

    // a generic method, as that of the types that its parameters have in the signature
    static MethodInfo Filled(MethodInfo method, string[] kinds)
    {
        var found = new Dictionary<Type, Type>();
        var types = method.GetParameters().Select(one => one.ParameterType).ToArray();
        for (int i = 1; i < kinds.Length; i++) Fill(types[i - 1], kinds[i], found);
        return method.MakeGenericMethod(method.GetGenericArguments()
            .Select(one => found.ContainsKey(one) ? found[one] : typeof(object)).ToArray());
    }

    static void Fill(Type type, string kind, Dictionary<Type, Type> found)
    {
        var parts = type.IsArray ? new[] { type.GetElementType() } : type.GetGenericArguments();
        if (type.IsGenericParameter) found[type] = Plain(kind);
        else if (kind.EndsWith("?")) Fill(parts.Length == 1 ? parts[0] : type, kind.TrimEnd('?'), found);
        else if (kind.EndsWith("[]") && parts.Length == 1) Fill(parts[0], kind.Substring(0, kind.Length - 2), found);
        else if (kind.StartsWith("map[") && parts.Length == 2)
        {
            Fill(parts[0], "string", found);
            Fill(parts[1], kind.Substring(4, kind.Length - 5), found);
        }
    }

    static Type Plain(string kind)
    {
        if (kind.EndsWith("[]")) return typeof(List<>).MakeGenericType(Plain(kind.Substring(0, kind.Length - 2)));
        if (kind.StartsWith("map["))
            return typeof(Dictionary<,>).MakeGenericType(typeof(string), Plain(kind.Substring(4, kind.Length - 5)));
        var type = kind.StartsWith("int") ? typeof(long) : kind.StartsWith("float") ? typeof(double)
            : kind.StartsWith("bool") ? typeof(bool) : typeof(string);
        return kind.EndsWith("?") && type.IsValueType ? typeof(Nullable<>).MakeGenericType(type) : type;
    }

    static bool Takes(Type type, string kind)
    {
        var inside = Nullable.GetUnderlyingType(type);
        if (kind.EndsWith("?"))
            return (inside != null || !type.IsValueType) && Takes(type, kind.Substring(0, kind.Length - 1));
        if (inside != null) return Takes(inside, kind);
        var parts = type.IsGenericType ? type.GetGenericArguments() : new Type[0];
        if (kind.EndsWith("[]"))
        {
            var item = kind.Substring(0, kind.Length - 2);
            if (type.IsArray) return type.GetArrayRank() == 1 && Takes(type.GetElementType(), item);
            return parts.Length == 1 && type.IsAssignableFrom(typeof(List<>).MakeGenericType(parts)) && Takes(parts[0], item);
        }
        if (kind.StartsWith("map["))
            return parts.Length == 2 && type.IsAssignableFrom(typeof(Dictionary<,>).MakeGenericType(parts))
                && Takes(parts[1], kind.Substring(4, kind.Length - 5));
        if (kind == "float") return type == typeof(double) || type == typeof(float);
        if (kind == "bool") return type == typeof(bool);
        if (kind == "string") return type == typeof(string);
        return type == typeof(BigInteger) || (type.IsPrimitive && type != typeof(bool) && type != typeof(char)
            && type != typeof(double) && type != typeof(float));
    }

    static string Next(char tag)
    {
        var token = tokens[at++];
        if (token[0] != tag) throw new ArgumentException("an argument is not of the type its parameter declares");
        return token.Substring(1);
    }

    static object Read(Type type)
    {
        var inside = Nullable.GetUnderlyingType(type);
        if (tokens[at] == "n" && (inside != null || !type.IsValueType))
        {
            at++;
            return null;
        }
        if (inside != null) return Read(inside);
        if (type == typeof(bool)) return Next('b') == "1";
        if (type == typeof(string)) return Text();
        if (type == typeof(double)) return Number();
        if (type == typeof(float)) return (float)Number();
        if (type == typeof(BigInteger)) return BigInteger.Parse(Next('i'), CultureInfo.InvariantCulture);
        if (type == typeof(char)) return Text().Single();
        if (type == typeof(object)) return Natural();
        if (type.IsPrimitive)
            return Convert.ChangeType(long.Parse(Next('i'), CultureInfo.InvariantCulture), type, CultureInfo.InvariantCulture);
        if (type.IsArray) return Filled(type.GetElementType(), true);
        if (type.IsGenericType)
        {
            var parts = type.GetGenericArguments();
            if (parts.Length == 1 && type.IsAssignableFrom(typeof(List<>).MakeGenericType(parts)))
                return Filled(parts[0], false);
            if (parts.Length == 2 && type.IsAssignableFrom(typeof(Dictionary<,>).MakeGenericType(parts)))
                return Map(typeof(Dictionary<,>).MakeGenericType(parts), parts);
            if (parts.Length == 2 && type.GetGenericTypeDefinition() == typeof(SortedDictionary<,>)) return Map(type, parts);
            if (parts.Length == 1 && Ordered.Contains(type.GetGenericTypeDefinition()))
                return Activator.CreateInstance(type, Filled(parts[0], false));
        }
        throw new ArgumentException("no argument can be a " + type.Name);
    }

    static object Natural()
    {
        switch (tokens[at][0])
        {
            case 'b': return Read(typeof(bool));
            case 'i': return Read(int.TryParse(tokens[at].Substring(1), out int small) ? typeof(int) : typeof(long));
            case 'f': return Read(typeof(double));
            case 's': return Read(typeof(string));
            case 'l': return Read(typeof(List<object>));
            default: return Read(typeof(Dictionary<string, object>));
        }
    }

    static double Number()
    {
        return BitConverter.Int64BitsToDouble((long)ulong.Parse(Next('f'), NumberStyles.HexNumber));
    }

    static string Text()
    {
        var hex = Next('s');
        var bytes = new byte[hex.Length / 2];
        for (int i = 0; i < bytes.Length; i++) bytes[i] = Convert.ToByte(hex.Substring(2 * i, 2), 16);
        return Encoding.UTF8.GetString(bytes);
    }

    static object Filled(Type part, bool array)
    {
        var list = (IList)Activator.CreateInstance(typeof(List<>).MakeGenericType(part));
        for (int left = int.Parse(Next('l')); left > 0; left--) list.Add(Read(part));
        if (!array) return list;
        var values = Array.CreateInstance(part, list.Count);
        list.CopyTo(values, 0);
        return values;
    }

    static object Map(Type type, Type[] parts)
    {
        var map = (IDictionary)Activator.CreateInstance(type);
        for (int left = int.Parse(Next('d')); left > 0; left--)
        {
            var key = Text();
            map.Add(key, Read(parts[1]));
        }
        return map;
    }

    static string Written(object value, int depth)
    {
        if (depth > 200) return "[\"O\",\"too deep\"]";
        if (value == null) return "[\"N\"]";
        var type = value.GetType();
        if (type == typeof(bool)) return (bool)value ? "[\"b\",1]" : "[\"b\",0]";
        if (type == typeof(string) || type == typeof(char)) return "[\"s\"," + Quoted(value.ToString()) + "]";
        if (type == typeof(double) || type == typeof(float))
        {
            var bits = BitConverter.DoubleToInt64Bits(type == typeof(float) ? (double)(float)value : (double)value);
            return "[\"D\",\"" + bits.ToString("x16") + "\"]";
        }
        if (type.IsPrimitive || type == typeof(BigInteger)) return Whole(value, type);
        bool library = type.IsArray || type.Assembly == typeof(List<>).Assembly; // no class of the answer's own
        if (library && value is IDictionary)
        {
            var pairs = new List<string>();
            foreach (DictionaryEntry pair in (IDictionary)value)
                pairs.Add("[" + Written(pair.Key, depth + 1) + "," + Written(pair.Value, depth + 1) + "]");
            return "[\"d\",[" + string.Join(",", pairs) + "]]";
        }
        if (library && value is IList)
        {
            var items = new List<string>();
            foreach (var item in (IList)value) items.Add(Written(item, depth + 1));
            return "[\"l\",[" + string.Join(",", items) + "]]";
        }
        if (type.IsGenericType && (type.FullName.StartsWith("System.Tuple`") || type.FullName.StartsWith("System.ValueTuple`")))
        {
            var items = Enumerable.Range(1, type.GetGenericArguments().Length).Select(n => "Item" + n).Select(name =>
                type.IsValueType ? type.GetField(name).GetValue(value) : type.GetProperty(name).GetValue(value));
            return "[\"l\",[" + string.Join(",", items.Select(item => Written(item, depth + 1))) + "]]";
        }
        return "[\"O\",\"an object\"]";
    }

    static string Whole(object value, Type type)
    {
        var whole = type == typeof(BigInteger) ? (BigInteger)value
            : BigInteger.Parse(Convert.ToString(value, CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
        var digits = BigInteger.Abs(whole).ToString("x").TrimStart('0');
        return "[\"i\",\"" + (whole.Sign < 0 ? "-" : "") + (digits == "" ? "0" : digits) + "\"]";
    }

    static string Cut(Exception error)
    {
        string text;
        try
        {
            text = error.GetType().Name + ": " + error.Message;
        }
        catch (Exception)
        {
            text = "an exception";
        }
        return text.Substring(0, Math.Min(500, text.Length));
    }

    static string Quoted(string text)
    {
        var result = new StringBuilder("\"");
        foreach (char unit in text)
        {
            if (unit >= ' ' && unit < 127 && unit != '"' && unit != '\\') result.Append(unit);
            else result.Append("\\u" + ((int)unit).ToString("x4"));
        }
        return result.Append('"').ToString();
    }
}
