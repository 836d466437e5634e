"""Runs inside a box before an answer in Python: what its tests will need is put aside while it is still untouched.

The host appends a call of `assay_unit`, which returns two functions under random names: `run` executes the tests after
the answer, `end` hands out the token of the run once they have ended. The tests get a namespace of their own with the
built-ins as they were; modules they import are as they were before the answer ran; of the answer they see the names
they mention. An operand whose == is the answer's own may only be compared with another such.
"""


def assay_restorer(modules):
    """A function that puts the modules named by the tests, and how modules are found, back as they are now."""
    import sys

    loaded, set_in = sys.modules, type.__setattr__
    for name in modules:
        try:
            __import__(name)
        except ImportError:
            continue  # the tests will say so themselves
    found = {name: loaded[name] for name in list(loaded) if name in modules or name.partition(".")[0] in modules}
    kept = [
        (
            vars(module),
            dict(vars(module)),
            [(value, dict(vars(value))) for value in vars(module).values() if type(value) is type],
        )
        for module in found.values()
    ]
    finders, hooks = sys.meta_path[:], sys.path_hooks[:]

    def restore():
        sys.meta_path[:], sys.path_hooks[:] = finders, hooks
        loaded.update(found)
        for space, names, classes in kept:
            space.update(names)
            for kind, members in classes:
                for key, value in members.items():
                    if kind.__dict__.get(key) is not value and key not in ("__dict__", "__weakref__"):
                        set_in(kind, key, value)

    return restore


def assay_comparison():
    """(own, trusted): whether == of a value, or of one inside it, is a method of the answer's, as a function; and the
    namespaces whose methods are not, by identity: a name can be claimed by anybody.
    """
    import sys

    mro_of = type.__dict__["__mro__"].__get__
    function, containers = type(assay_unit), (list, tuple, set, frozenset)
    plain = frozenset((int, float, complex, str, bytes, bool, type(None), range))
    slot = type(int.__eq__)  #: what compares in types that are not written in Python
    names = sys.stdlib_module_names
    trusted = {id(vars(module)) for name, module in list(sys.modules.items()) if name.partition(".")[0] in names}

    def own(value, depth=0):
        """Whether == of the value, or of one inside it, is a method of the answer's."""
        kind = type(value)
        if kind in plain:
            return False
        bases = mro_of(kind)
        for base in bases:
            if base in containers or base is dict:
                items = base.__iter__(value) if base is not dict else (*dict.keys(value), *dict.values(value))
                if depth < 50 and any(own(item, depth + 1) for item in items):
                    return True
                break
        for base in bases:
            method = base.__dict__.get("__eq__")
            if method is not None:
                if type(method) is slot:
                    return False
                return type(method) is not function or id(method.__globals__) not in trusted
        return False

    return own, trusted


def assay_unit(token, modules):
    """The pair (run, end). `modules` are the names the tests import."""
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
    restore, (own, trusted) = assay_restorer(modules), assay_comparison()
    unittest = loaded.get("unittest") if "unittest" in modules else None
    passed = ran = 0
    ended = False

    def same(left, right):
        if own(left) != own(right):
            raise AssertionError("compared by a method of the answer's own")
        return left == right

    def hold(value):
        nonlocal passed
        held = bool(value)
        passed += held
        return held

    def run_cases(tests):
        nonlocal ran
        equal = unittest.TestCase.assertEqual

        def assert_equal(case, first, second, msg=None):
            if own(first) != own(second):
                raise AssertionError("compared by a method of the answer's own")
            equal(case, first, second, msg)

        unittest.TestCase.assertEqual = assert_equal
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
        if module:
            loaded[module] = loaded["answer"]
        tests = {"__builtins__": clean, "__name__": "assay_tests", "assay_hold": hold, "assay_same": same}
        trusted.add(id(tests))
        tests.update({name: space[name] for name in wanted if name in space})
        exec_(compile_(source, "/box/tests.py", "exec", dont_inherit=True), tests)
        if unittest is not None:
            run_cases(tests)
        ended = True

    def end():
        if not ended or getpid() != me:
            raise AssertionError("the tests did not run to their end")
        return [token, passed, ran]

    return run, end
