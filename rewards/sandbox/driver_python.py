"""Runs inside a box: calls the answer once per test, each time in a fresh child, and reports what it returned.

It holds arguments and expressions, never an expected value. Standard input carries one Python literal (written by
the host with `repr`); standard output carries records, which `rewards/records.py` reads:

    index status cause cpu_us wall_us memory_kib size\n  and then `size` bytes the child wrote

`status` is the raw wait status, `cause` says what this driver cut short. The bytes begin with V (a value, in the
notation of `rewards/values.py`), E (an exception, as a JSON string) or C (a syntax error). A child may write what it
likes: it can only claim to have returned something.

It imports only modules that are part of the interpreter or nearly so: a run is a few milliseconds, and `import os`
(with what it imports) or `signal` (which imports `enum`) would each be felt.
"""

import posix
import resource
import select
import sys
import time
from _json import encode_basestring_ascii

READY, NO_PROGRAM = -2, -1  # indices of the two records that are not tests
CUT_CPU, CUT_WALL, CUT_SIZE = 1, 2, 3
TICK_MS = 20
SIGKILL = 9
MAX_DEPTH = 200


class _TooLarge(Exception):
    """A value with more bytes or levels than a record may hold."""


# The encoder binds every built-in it needs when it is made, before the answer runs and may replace them.


def _make_scalar_writer(quote=encode_basestring_ascii):
    """A function (value, type) -> text of a value without parts, or None."""
    bool_, int_, float_, complex_, str_, bytes_, bytearray_ = bool, int, float, complex, str, bytes, bytearray
    as_hex, int_pos, as_str = float.hex, int.__pos__, str.__str__
    real, imaginary = complex.real.__get__, complex.imag.__get__

    def scalar(value, kind):
        if kind is bool_:
            return f'["b",{value:d}]'
        if kind is int_:
            return f'["i","{int_pos(value):x}"]'
        if kind is float_:
            return f'["f","{as_hex(value)}"]'
        if kind is complex_:
            return f'["c",["{as_hex(real(value))}","{as_hex(imaginary(value))}"]]'
        if kind is str_:
            return f'["s",{quote(as_str(value))}]'
        if kind is bytes_ or kind is bytearray_:
            return f'["y","{kind.hex(value)}"]'
        return None

    return scalar


def _make_number_writer(modules=sys.modules, quote=encode_basestring_ascii):
    """A function value -> text of a Fraction or a Decimal, or None. Whoever has one has imported what it is of."""
    find, get, isinstance_, kinds, int_pos = dict.get, getattr, isinstance, type, int.__pos__

    def number(value):
        fraction = get(find(modules, "fractions"), "Fraction", None)
        if isinstance_(fraction, kinds) and isinstance_(value, fraction):
            return f'["q",["{int_pos(value.numerator):x}","{int_pos(value.denominator):x}"]]'
        decimal = get(find(modules, "decimal"), "Decimal", None)
        if isinstance_(decimal, kinds) and isinstance_(value, decimal):
            return f'["m",{quote(decimal.__str__(value))}]'
        return None

    return number


def _make_encoder(limit, dicts=(), type=type, isinstance=isinstance, len=len, quote=encode_basestring_ascii):
    """A function value -> bytes, at most `limit` of them; it raises _TooLarge for more.

    Those of the names `dicts` in `collections` are written as the dicts they extend.
    """
    scalar, number = _make_scalar_writer(), _make_number_writer()
    too_large, join, encode, max_depth = _TooLarge, "".join, str.encode, MAX_DEPTH
    name_of, module_of = type.__dict__["__name__"].__get__, type.__dict__["__module__"].__get__
    dict_ = dict
    items_of = {
        list: ("l", list.__iter__),
        tuple: ("t", tuple.__iter__),
        set: ("S", set.__iter__),
        frozenset: ("F", frozenset.__iter__),
        dict: ("d", dict.items),
    }
    plain = (bool, int, float, complex, str, bytes, bytearray, *items_of)
    for view in (type({}.keys()), type({}.items())):  # == takes them for sets
        items_of[view] = ("S", view.__iter__)
    bases = (*plain[1:], type({}.keys()), type({}.items()))

    def write(value, out, size, depth):
        if depth > max_depth or size[0] > limit:
            raise too_large
        if value is None:
            out.append('["N"]')
            return
        kind = type(value)
        if kind in plain:
            write_as(kind, value, out, size, depth)
            return
        if dicts and isinstance(value, dict_) and module_of(kind) == "collections" and name_of(kind) in dicts:
            write_as(dict_, value, out, size, depth)  # a dict to whoever writes one; what it holds is read as a dict's
            return
        for base in bases:
            if isinstance(value, base):
                out.append('["X",')
                write_as(base, value, out, size, depth)
                out.append("]")
                return
        text = number(value) or f'["O",{quote(name_of(kind))}]'
        size[0] += len(text)
        out.append(text)

    def write_as(kind, value, out, size, depth):
        text = scalar(value, kind)
        if text is None:
            tag, items = items_of[kind]
            out.append(f'["{tag}",[')
            comma = ""
            for item in items(value):
                out.append(comma)
                comma = ","
                if tag == "d":
                    out.append("[")
                    write(item[0], out, size, depth + 1)
                    out.append(",")
                    write(item[1], out, size, depth + 1)
                    out.append("]")
                else:
                    write(item, out, size, depth + 1)
            text = "]]"
        size[0] += len(text) + 8
        out.append(text)

    def encoder(value):
        out, size = [], [0]
        write(value, out, size, 0)
        text = join(out)
        if len(text) > limit:
            raise too_large
        return encode(text)

    return encoder


def _child(job, codes, test, out, encoder, write=posix.write, leave=posix._exit, quote=encode_basestring_ascii):
    """Run the answer and one call; never returns."""
    too_large, failure, leaving, name_of = _TooLarge, BaseException, SystemExit, lambda error: type(error).__name__
    reply = b""
    try:
        module = type(sys)("answer")
        sys.modules["answer"] = module
        space = module.__dict__
        for code in codes:
            try:
                exec(code, space)
            except leaving:
                if type(test) is not tuple:
                    raise  # a program that ends itself is loaded as well; what has tests behind it is not
        reply = b"V" + encoder(_function(space, test[0])(*test[1]) if type(test) is tuple else eval(test, space))
    except too_large:
        reply = b"E" + b'"the value is too large or too deeply nested to report"'
    except failure as error:
        try:
            text = f"{name_of(error)}: {error}"
        except failure:
            text = name_of(error)
        reply = b"E" + quote(text[:500]).encode()
    finally:
        while reply:
            reply = reply[write(out, reply) :]
        leave(0)


def _function(space, name):
    """The function of the name; where there is none, a method of a class Solution."""
    if name not in space and hasattr(space.get("Solution"), name):
        return getattr(space["Solution"](), name)
    return space[name]


def _prepare_child(job, keep, given):
    posix.setsid()
    posix.dup2(posix.open("/dev/null", posix.O_RDONLY) if given < 0 else given, 0)
    posix.dup2(2, 1)  # what the answer prints is for people; it never meets the records
    posix.closerange(3, keep)
    posix.closerange(keep + 1, 1024)
    cpu_s = int(job["cpu_s"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))


def _exec(job, out):
    """Become the program that calls the answer: arguments on 0, what is printed on 2, the value on 3."""
    import _signal

    try:
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_DFL)  # an interpreter ignores them, and ignoring is inherited
        posix.dup2(out, 3)
        posix.set_inheritable(3, True)
        posix.closerange(4, 1024)
        posix.execv(job["argv"][0], job["argv"])
    finally:
        posix._exit(127)


def _feed(poller, sink, given):
    """Write what a pipe takes of the arguments. Returns the rest; the pipe is closed behind the last of them."""
    try:
        given = given[posix.write(sink, given[: 1 << 16]) :]
    except OSError:
        given = b""  # nobody reads it
    if not given:
        poller.unregister(sink)
        posix.close(sink)
    return given


def _watch(job, pid, source, sink, given):
    """Read the child's bytes until it ends or has to be ended. Returns (bytes, cause)."""
    pidfd = posix.pidfd_open(pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(source, select.POLLIN)
    if given:
        poller.register(sink, select.POLLOUT)
    clock = (~pid << 3) | 2  # the child's processor-time clock
    deadline = time.monotonic() + job["wall_s"]
    data, cause, ended = bytearray(), 0, False
    while not ended and not cause:
        events = dict(poller.poll(TICK_MS))
        if given and sink in events:
            given = _feed(poller, sink, given)
        if source in events:
            part = posix.read(source, 1 << 16)
            data += part
            if not part:
                poller.unregister(source)
            if len(data) > job["value_bytes"] + 1024:
                cause = CUT_SIZE
        ended = pidfd in events and source not in events
        if not ended:
            try:
                if time.clock_gettime(clock) > job["cpu_s"]:
                    cause = cause or CUT_CPU
            except OSError:
                pass  # it ended between the two looks
            if time.monotonic() > deadline:
                cause = cause or CUT_WALL
    posix.close(pidfd)
    if given:
        posix.close(sink)
    return bytes(data), cause


def _sweep(job, pid):
    """End the child and whatever it started. Where the box is ours alone that is: everybody else."""
    try:
        if job["alone"] and posix.getpid() == 2:
            posix.kill(-1, SIGKILL)
        else:
            posix.killpg(pid, SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _record(index, status=0, cause=0, cpu_s=0.0, wall_s=0.0, memory_kib=0, data=b""):
    head = b"%d %d %d %d %d %d %d\n" % (
        index, status, cause, int(cpu_s * 1e6), int(wall_s * 1e6), memory_kib, len(data),
    )  # fmt: skip
    data = head + data
    while data:
        data = data[posix.write(1, data) :]


def _start(job, codes, test, encoder):
    """Start the child of a test. Returns (pid, where its bytes come from, where its arguments go)."""
    source, out = posix.pipe()
    given, sink = posix.pipe() if job["argv"] else (-1, -1)
    pid = posix.fork()
    if pid == 0:
        _prepare_child(job, out, given)
        if job["argv"]:
            _exec(job, out)
        _child(job, codes, test, out, encoder)
    posix.close(out)
    if job["argv"]:
        posix.close(given)
        posix.set_blocking(sink, False)
    return pid, source, sink


def _run_test(job, codes, index, test, encoder):
    mark = b"%s\n" % posix.urandom(12).hex().encode() if job["argv"] else b""
    started = time.monotonic()
    pid, source, sink = _start(job, codes, test, encoder)
    data, cause = _watch(job, pid, source, sink, mark and mark + test)
    _sweep(job, pid)
    _, status, used = posix.wait4(pid, 0)
    posix.close(source)
    cpu_s = used.ru_utime + used.ru_stime
    if cpu_s > job["cpu_s"] and not cause:
        cause = CUT_CPU
    data = data[len(mark) :] if data.startswith(mark) else b""
    if mark and index == 0 and data.startswith(b"C"):
        index = NO_PROGRAM
    _record(index, status, cause, cpu_s, time.monotonic() - started, used.ru_maxrss, data)
    return index == NO_PROGRAM or (cause in (CUT_CPU, CUT_WALL) and job["stop_on_timeout"])


def main():
    """Read the job, compile the answer, run every test."""
    with open(0, "rb", closefd=False) as stream:
        job = eval(
            stream.read(), {"__builtins__": {}, "inf": float("inf"), "nan": float("nan")}
        )  # our own literal; the answer is a string in it
    import _sitebuiltins
    import builtins

    builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "ctrl-D")  # -S leaves them out; people use them
    # a function may return what is a dict to whoever wrote it
    called = any(type(test) is tuple for test in job["tests"])
    encoder = _make_encoder(job["value_bytes"], ("Counter", "defaultdict", "OrderedDict") if called else ())
    _record(READY)
    try:
        codes = [
            compile(job[part], f"/box/{part}.py", "exec", dont_inherit=True)
            for part in ("prelude", "answer", "setup")
            if job.get(part)
        ]
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        text = f"{type(error).__name__}: {error}"
        _record(NO_PROGRAM, data=b"C" + encode_basestring_ascii(text[:2000]).encode())
        return
    for index, test in enumerate(job["tests"]):
        if _run_test(job, codes, index, test, encoder):
            return


if __name__ == "__main__":
    main()
