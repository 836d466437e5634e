// A module beside an answer in D; what it reads and writes is described in driver_javascript.js.
// The types of the arguments are those the answer's function declares; of several the task's signature picks one.
module driver_d;

import core.stdc.stdio : fclose, fopen, fwrite;
import core.sys.posix.unistd : _exit;
import std.array : appender, array, join, replicate;
import std.conv : to;
import std.format : format;
import std.meta : staticMap;
import std.stdio : stdin;
import std.string : splitLines;
import std.traits;
import std.typecons : Nullable;

private string[] tokens;
private size_t at = 4;

private string next(char tag)
{
    auto token = tokens[at++];
    if (token[0] != tag) throw new Exception("an argument is not of the type its parameter declares");
    return token[1 .. $];
}

private T read(T)()
{
    static if (is(T == Nullable!Part, Part))
    {
        if (tokens[at] != "n") return T(read!Part());
        at++;
        return T.init;
    }
    else static if (isBoolean!T)
        return next('b') == "1";
    else static if (isIntegral!T)
        return next('i').to!T;
    else static if (isFloatingPoint!T)
    {
        ulong bits = next('f').to!ulong(16);
        return cast(T) *cast(double*)&bits;
    }
    else static if (isSomeString!T)
    {
        auto hex = next('s');
        char[] text;
        for (size_t i = 0; i < hex.length; i += 2) text ~= cast(char) hex[i .. i + 2].to!ubyte(16);
        return text.to!T;
    }
    else static if (is(T == Part[], Part))
    {
        Unqual!Part[] values;
        foreach (i; 0 .. next('l').to!size_t) values ~= read!(Unqual!Part)();
        return cast(T) values;
    }
    else static if (is(T == Part[string], Part))
    {
        T values;
        foreach (i; 0 .. next('d').to!size_t)
        {
            auto key = read!string();
            values[key] = read!Part();
        }
        return values;
    }
    else
        static assert(0, "the function has a parameter of a type that no argument can have: " ~ T.stringof);
}

private string written(T)(T value)
{
    alias Plain = Unqual!T;
    static if (is(Plain == Nullable!Part, Part))
        return value.isNull ? `["N"]` : written(value.get);
    else static if (isBoolean!Plain)
        return value ? `["b",1]` : `["b",0]`;
    else static if (isIntegral!Plain && !is(Plain == enum))
        return format(`["i","%s%x"]`, value < 0 ? "-" : "", value < 0 ? 0 - cast(ulong) value : cast(ulong) value);
    else static if (isFloatingPoint!Plain)
    {
        double wide = value;
        return format(`["D","%016x"]`, *cast(ulong*)&wide);
    }
    else static if (isSomeString!Plain)
        return format(`["u","%(%02x%)"]`, cast(const(ubyte)[]) value.to!string);
    else static if (isDynamicArray!Plain)
    {
        auto parts = appender!(string[]);
        foreach (item; value) parts ~= written(item);
        return `["l",[` ~ parts[].join(",") ~ "]]";
    }
    else static if (isAssociativeArray!Plain)
    {
        auto parts = appender!(string[]);
        foreach (key, item; value) parts ~= "[" ~ written(key) ~ "," ~ written(item) ~ "]";
        return `["d",[` ~ parts[].join(",") ~ "]]";
    }
    else
        return `["O","another type"]`;
}

private bool takes(T)(string kind)
{
    static if (is(T == Nullable!Part, Part))
        return kind[$ - 1] == '?' && takes!Part(kind[0 .. $ - 1]);
    else
    {
        if (kind[$ - 1] == '?') return takes!T(kind[0 .. $ - 1]);
        static if (isBoolean!T)
            return kind == "bool";
        else static if (isIntegral!T)
            return kind == "int";
        else static if (isFloatingPoint!T)
            return kind == "float";
        else static if (isSomeString!T)
            return kind == "string";
        else static if (is(T == Part[], Part))
            return kind[$ - 2 .. $] == "[]" && takes!(Unqual!Part)(kind[0 .. $ - 2]);
        else static if (is(T == Part[string], Part))
            return kind.length > 4 && kind[0 .. 4] == "map[" && takes!(Unqual!Part)(kind[4 .. $ - 1]);
        else
            return false;
    }
}

private bool takesAll(Types...)(string[] kinds)
{
    if (Types.length != kinds.length) return false;
    bool all = true;
    foreach (i, Type; Types) all = all && takes!(Unqual!Type)(kinds[i]);
    return all;
}

/// Call, of the functions of one name, the first whose parameters can be what is declared, or the only one.
void pick(string[] kinds, entries...)()
{
    static if (entries.length == 1 || takesAll!(Parameters!(entries[0]))(kinds))
        run!(entries[0])();
    else
        pick!(kinds, entries[1 .. $])();
}

private string said(string text)
{
    char[] plain;
    foreach (char one; text[0 .. text.length < 500 ? text.length : 500])
        plain ~= one < ' ' || one > '~' || one == '"' || one == '\\' ? '?' : one;
    return `E"` ~ plain.idup ~ `"`;
}

/// Call a function with what standard input holds, and leave.
void run(alias entry)()
{
    foreach (line; stdin.byLineCopy) tokens ~= line;
    auto channel = fopen("/proc/self/fd/3", "wb");
    string reply;
    try
    {
        staticMap!(Unqual, Parameters!entry) values;
        foreach (i, Part; Parameters!entry) values[i] = read!(Unqual!Part)();
        static if (is(ReturnType!entry == void))
            reply = `V["O","void"]`;
        else
            reply = "V" ~ written(entry(values));
    }
    catch (Throwable error)
        reply = said(typeid(error).name ~ ": " ~ error.msg);
    reply = tokens[0] ~ "\n" ~ reply;
    fwrite(reply.ptr, 1, reply.length, channel);
    fclose(channel);
    _exit(0);
}
