"""Runs inside a box before an answer in Python: what its tests will need is put aside while it is still untouched.

It has a namespace and built-ins of its own. The host appends a call of `assay_unit`, which returns two functions under
random names: `run` executes the tests after the answer, `end` hands out the token of the run once they have ended. The
tests get a namespace of their own with the built-ins as they were; modules they import are as they were before the
answer ran; of the answer they see the names they mention.

An operand whose == (or <, in, -, ...) is the answer's own may only meet another such: given the expected value, it
could claim anything. It differs from None, and a container that holds it from an empty one, whatever it says itself.
Values of built-in types, of the standard library and of installed packages, their subclasses that leave these methods
alone, and (but for `assert A == B`) classes that the tests name and write like one are free to meet. So `3 in bag` is
refused, however honest, where the answer wrote the class of `bag` and the tests do not name it: the class alone knows
what it holds.

What remains: the classes just named; a value of the library's that asks one of the answer's which it holds (UserList,
an abstract Set); built-in functions and methods that compare or add (`sum`, `max`, `list.index`, a look-up in a dict or
set that the answer made), `+` and `*`; `case` patterns; a function made to look as if it were the library's; what the
answer's functions patch when the tests call them, as modules are put back once, before the tests.
"""


def assay_faults():
    """What a given module may raise as it is loaded."""
    usual = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError)
    return (*usual, RuntimeError, SyntaxError, TypeError, ValueError)


def assay_restorer(modules, early=(), barred=()):
    """A function that puts the modules named by the tests, and how modules are found, back as they are now.

    The given modules of `early` too, functions and all; while they load, none of `barred`, the answer's, can.
    """
    import builtins
    import sys

    loaded, set_in, delete_in, function = sys.modules, type.__setattr__, type.__delattr__, type(assay_unit)
    hidden = [name for name in barred if name not in loaded]
    for name in modules:
        try:
            __import__(name)
        except ImportError:
            continue  # the tests will say so themselves
    loaded.update(dict.fromkeys(hidden))
    for name in early:
        try:
            __import__(name)
        except assay_faults():  # the tests will say so themselves
            continue
    for name in hidden:
        loaded.pop(name, None)
    wanted = {*modules, *early}
    found = {name: loaded[name] for name in list(loaded) if name in wanted or name.partition(".")[0] in modules}
    kept, codes = [(vars(builtins), dict(vars(builtins)), [])], []
    for name, module in found.items():
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        if name not in early:
            classes = [value for value in classes if type(value) is type]
        kept.append((vars(module), dict(vars(module)), [(value, dict(vars(value))) for value in classes]))
        if name in early or name.partition(".")[0] == "unittest":
            values = [value for space in (module, *classes) for value in vars(space).values()]
            for value in values:
                value = value.__func__ if type(value) in (staticmethod, classmethod) else value
                for one in (value.fget, value.fset) if type(value) is property else (value,):
                    if type(one) is function:
                        codes.append((one, one.__code__, one.__defaults__, one.__kwdefaults__))
    finders, hooks, words = sys.meta_path[:], sys.path_hooks[:], frozenset(vars(builtins))
    lazy = ("__annotations__", "__annotations_cache__", "__annotate_func__", "__abstractmethods__", "__doc__")

    def added(kind, members):
        """What a class has now that hides what it had: a name its bases have, or one the language asks for."""
        for key in [key for key in kind.__dict__ if key not in members and key not in lazy]:
            if (key[:2] == key[-2:] == "__") or any(key in base.__dict__ for base in kind.__mro__[1:]):
                yield key

    def restore():
        sys.meta_path[:], sys.path_hooks[:] = finders, hooks
        loaded.update(found)
        for space, names, classes in kept:
            for key in [key for key in space if key in words and key not in names]:
                del space[key]
            space.update(names)
            for kind, members in classes:
                for key in added(kind, members):
                    delete_in(kind, key)
                for key, value in members.items():
                    if kind.__dict__.get(key) is not value and key not in ("__dict__", "__weakref__"):
                        set_in(kind, key, value)
        for one, code, defaults, named in codes:
            one.__code__, one.__defaults__, one.__kwdefaults__ = code, defaults, named

    return restore


def assay_files(late, paths):
    """A function that writes the files `paths` as they are now, and loads the modules of `late`, pairs of module and
    path, from them: no text, compiled code or module of the answer's stands in for one.
    """
    import posix
    import sys
    from importlib.machinery import ModuleSpec

    folder, loaded, flags = posix.getcwd(), sys.modules, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC
    texts, compile_, exec_ = {}, compile, exec
    open_, write, close, unlink, chdir = posix.open, posix.write, posix.close, posix.unlink, posix.chdir
    for path in paths:
        with open(f"{folder}/{path}", "rb") as file:  # noqa: PTH123 -- the box loads as little as it can
            texts[path] = file.read()
    of, faults = dict(late), assay_faults()

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name not in of:
                return None
            spec = ModuleSpec(name, Finder, origin=f"{folder}/{of[name]}", is_package=of[name].endswith("__init__.py"))
            spec.has_location = True
            if spec.submodule_search_locations is not None:
                spec.submodule_search_locations.append(spec.origin.rpartition("/")[0])
            return spec

        @staticmethod
        def create_module(spec):
            return None

        @staticmethod
        def exec_module(module):
            path = of[module.__name__]
            exec_(compile_(texts[path], f"{folder}/{path}", "exec", dont_inherit=True), module.__dict__)

    def put():
        chdir(folder)
        for path, text in texts.items():
            try:  # noqa: SIM105 -- the box loads as little as it can
                unlink(f"{folder}/{path}")
            except FileNotFoundError:
                pass
            to = open_(f"{folder}/{path}", flags, 0o644)
            while text:
                text = text[write(to, text) :]
            close(to)
        sys.meta_path.insert(0, Finder)
        for name in of:
            loaded.pop(name, None)
        for name in of:
            try:
                __import__(name)
            except faults:  # the tests will say so themselves
                continue
            for other in [each for each in loaded if each.rpartition(".")[0] == name]:
                vars(loaded[name]).setdefault(other.rpartition(".")[2], loaded[other])

    return put


def assay_comparison(known):
    """(own, trusted, named): whether a method of the answer's would judge a value, or one inside it, as a function; the
    namespaces whose methods are not the answer's, by identity: a name can be claimed by anybody; and the classes that
    are exempt, by identity. The standard library's modules in `known` are among the former.
    """
    import posix
    import sys

    for name in known:
        __import__(name)
    mro_of, members_of = type.__dict__["__mro__"].__get__, type.__dict__["__dict__"].__get__
    function, of_c = type(assay_unit), (type(int.__eq__), type(dict.__contains__))
    plain = frozenset(map(id, (int, float, complex, str, bytes, bool, type(None), range)))
    walked = {id(kind): kind for kind in (list, tuple, set, frozenset, dict)}
    names, loaded, named, stat = sys.stdlib_module_names, sys.modules, set(), posix.stat
    trusted = {id(vars(module)) for name, module in list(loaded.items()) if name.partition(".")[0] in names}
    folders = [folder for folder in sys.path if folder.endswith("-packages")]

    def installed(space):
        """Whether functions of this namespace are those of a package of the box."""
        name = dict.get(space, "__name__")
        if type(name) is not str or name not in loaded or vars(loaded[name]) is not space:
            return False
        for folder in folders:
            try:
                return bool(stat(f"{folder}/{name.partition('.')[0]}"))
            except OSError:
                continue
        return False

    def theirs(method, name):
        if type(method) in of_c:
            return method.__name__ != name
        if type(method) is not function:
            return method is not None
        return id(method.__globals__) not in trusted and not installed(method.__globals__)

    def own(value, methods, exempt=True, deep=True, depth=0):
        """Whether one of the methods of the value, or where it is `deep` of one inside it, is the answer's."""
        kind = type(value)
        if id(kind) in plain:
            return False
        bases = mro_of(kind)
        if exempt and any(id(base) in named for base in bases):
            return False
        for base in bases if deep else ():
            if id(base) in walked:
                items = base.__iter__(value) if base is not dict else (*dict.keys(value), *dict.values(value))
                rest = [item for item in items if id(type(item)) not in plain]
                if depth < 50 and any(own(item, methods, exempt, deep, depth + 1) for item in rest):
                    return True
                break
        for name in methods:
            for base in bases:
                members = members_of(base)
                if name in members:
                    if theirs(members[name], name):
                        return True
                    break
        return False

    return own, trusted, named


def assay_operators(own):
    """The functions that stand in the tests for operators, by name, what refuses a pair of operands, and what knows
    that a pair differs without asking a method of the answer's.
    """
    import _operator

    plain = frozenset(map(id, (int, float, complex, str, bytes, bool, type(None), range)))
    hashed = frozenset(map(id, (set, frozenset, dict, str, bytes, range)))
    bare = frozenset(map(id, (str, bytes, list, tuple, dict, set, frozenset)))
    equality = ("__eq__", "__ne__")
    order = (*equality, "__lt__", "__le__", "__gt__", "__ge__")
    complaint = "compared by a method of the answer's own"

    def refuse(left, right, methods=order, exempt=True, deep=True):
        if own(left, methods, exempt, deep) != own(right, methods, exempt, deep):
            raise AssertionError(complaint)

    def differ(left, right):
        """Whether one is the answer's own and the other None, or one holds such values and the other is empty."""
        void = left is None or right is None
        if not void and id(type(left)) in bare and id(type(right)) in bare:
            void = not left or not right  # of these very types, so no method of the answer's is asked
        return void and own(left, equality) != own(right, equality)

    def guarded(operator, methods, deep, unlike=None):
        def apply(left, right, type=type, int=int):  # a test may compute much that has nothing to do with the answer
            if type(left) is int is type(right):
                return operator(left, right)
            if id(type(left)) not in plain or id(type(right)) not in plain:
                if unlike is not None and differ(left, right):
                    return unlike
                refuse(left, right, methods, True, deep)
            return operator(left, right)

        return apply

    def same(left, right):
        refuse(left, right, equality, False)
        return left == right

    contains = _operator.contains

    def within(left, right):
        # an operand of a plain type is looked up in a set without asking each of its items what it is
        asked = id(type(left)) not in plain or id(type(right)) not in hashed
        if asked and own(left, equality) != own(right, (*equality, "__contains__")):
            raise AssertionError(complaint)
        return contains(right, left)

    kept = []
    found = {
        "same": same,
        "in": within,
        "not_in": lambda left, right: not within(left, right),
        "put": lambda value: kept.append(value) or value,
        "get": kept.pop,
        "eq": guarded(_operator.eq, equality, True, False),
        "ne": guarded(_operator.ne, equality, True, True),
    }
    for name in ("lt", "le", "gt", "ge"):
        found[name] = guarded(getattr(_operator, name), order, True)
    for name in ("sub", "truediv", "floordiv", "mod", "xor"):
        methods = (f"__{name}__", f"__r{name}__", f"__i{name}__")
        found[name] = guarded(getattr(_operator, name), methods, False)
        found[f"i{name}"] = guarded(getattr(_operator, f"i{name}"), methods, False)
    return {f"assay_{name}": function for name, function in found.items()}, refuse, differ


def assay_unit(token, modules, known, early=(), late=(), barred=(), paths=()):
    """The pair (run, end). `modules` are what tests import, `known` some that the answer does; then see `Given`."""
    import builtins
    import posix
    import sys

    clean, getpid, me = dict(vars(builtins)), posix.getpid, posix.getpid()
    compile_, exec_, loaded = compile, exec, sys.modules
    frame = sys._getframe(2)  # the driver's; an answer may walk there too, and its job holds the token
    frame.f_locals.get("job", {}).clear()
    if "codes" in frame.f_locals:
        frame.f_locals["codes"][0] = None
    del frame
    restore, (own, trusted, named) = assay_restorer(modules, early, barred), assay_comparison(known)
    put = assay_files(late, paths) if paths else None
    operators, refuse, differ = assay_operators(own)
    unittest = loaded.get("unittest") if "unittest" in modules else None
    passed = ran = 0
    ended = False

    def hold(value):
        nonlocal passed
        held = bool(value)
        passed += held
        return held

    def run_cases(tests):
        nonlocal ran
        methods = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__sub__", "__rsub__", "__contains__")

        def guarded(name, check):
            def checked(case, first, second, *rest, **named):
                if name == "assertNotEqual" and differ(first, second):
                    return None
                equality = name in ("assertEqual", "assertNotEqual")
                refuse(first, second, methods[:2] if equality else methods, name != "assertEqual")
                return check(case, first, second, *rest, **named)

            return checked

        for name in (
            *("assertEqual", "assertNotEqual", "assertAlmostEqual", "assertNotAlmostEqual", "assertIn", "assertNotIn"),
            *("assertLess", "assertLessEqual", "assertGreater", "assertGreaterEqual", "assertSequenceEqual"),
            *("assertListEqual", "assertTupleEqual", "assertSetEqual", "assertDictEqual", "assertCountEqual"),
            "assertMultiLineEqual",
        ):
            setattr(unittest.TestCase, name, guarded(name, getattr(unittest.TestCase, name)))
        loader, result = unittest.TestLoader(), unittest.TestResult()
        for value in tuple(tests.values()):
            if isinstance(value, type) and issubclass(value, unittest.TestCase) and value.__module__ == "assay_tests":
                loader.loadTestsFromTestCase(value).run(result)
        faults = [f"{case}: {text}" for case, text in (*result.failures, *result.errors, *result.skipped)]
        faults += [f"{case}: expected to fail" for case, _ in result.expectedFailures]
        if faults or result.unexpectedSuccesses:
            raise AssertionError(" ".join(faults)[-400:])
        ran = result.testsRun

    def run(space, source, wanted, module):
        nonlocal ended
        restore()
        if put is not None:
            put()
        if module:
            loaded[module] = loaded["answer"]
        tests = {"__builtins__": clean, "__name__": "assay_tests", "assay_hold": hold, **operators}
        trusted.add(id(tests))
        tests.update({name: space[name] for name in wanted if name in space})
        named.update(id(tests[name]) for name in wanted if name.lstrip("_")[:1].isupper() and name in tests)
        exec_(compile_(source, "/box/tests.py", "exec", dont_inherit=True), tests)
        if unittest is not None:
            run_cases(tests)
        ended = True

    def end():
        if not ended or getpid() != me:
            raise AssertionError("the tests did not run to their end")
        return [token, passed, ran]

    return run, end
