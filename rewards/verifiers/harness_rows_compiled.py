"""How tests run in the languages that are compiled: the answer and its tests are one program, but for C and C++."""

from __future__ import annotations

import re
from dataclasses import replace

from rewards.verifiers.harness_row import ASSERT, THROW, Harness

_DEEPEST = 40  #: braces in one line of imports that is taken apart
#: texts and comments of Go: an import that stands in one is none
GO_TEXTS = r"""`[^`]*`|//[^\n]*|/\*[\s\S]*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
_NO_CRATES = ("std", "core", "alloc", "crate", "self", "super")  #: what the path of a Rust import may begin with

C = Harness(
    can_fail=rf"{ASSERT}|\babort\s*\(|\bexit\s*\(|\breturn\s+[^0\s;]",
    way="linked",
    before="void assay_pass_@ID@(int);\n",
    # a comment or an attribute the answer left open ends here, and its macros do not reach the tests
    between="""
/* */
;
@UNDEF@
#define unit_pass_@ID@(...) assay_pass_@ID@((__VA_ARGS__) ? 1 : 0)
""",
    tests=(
        (r"\bassert\s*\(", "unit_pass_@ID@("),
        (r"\bint\s+main\s*\([^)]*\)(?![\s\S]*\breturn\b)", "static void unit_main_@ID@(void)"),
        (
            r"\bint\s+main\s*\([^)]*\)",
            "static int unit_status_@ID@(void);\n"
            "static void unit_main_@ID@(void) { if (unit_status_@ID@()) assay_pass_@ID@(0); }\n"
            "static int unit_status_@ID@(void)",
        ),
    ),
    after="\nint assay_tests_@ID@(void) { unit_main_@ID@(); return 0; }\n",
    processes=1,
)

CPP = Harness(
    can_fail=rf"{C.can_fail}|{THROW}",
    way="linked",
    before='extern "C" void assay_pass_@ID@(int);\n',
    between=C.between,
    # in a namespace with an operator of its own, an operator== that the answer declares for vectors is not found
    tests=(
        (r"\bassert\s*\(", "unit_pass_@ID@("),
        (
            r"\bint\s+main\s*\(",
            "namespace unit_@ID@ { struct none {};\n"
            "bool operator==(none, none); bool operator!=(none, none);\nint main(",
        ),
        *C.tests[1:],
    ),
    after='\n}\nextern "C" int assay_tests_@ID@(void) { unit_@ID@::unit_main_@ID@(); return 0; }\n',
    processes=1,
)

JAVA = Harness(
    can_fail=rf"{ASSERT}|{THROW}",
    flags=("-ea",),
    hoist=r"^[ \t]*import\s+(?:static\s+)?[\w.]+(?:\.\*)?\s*;",
    program=(
        (r"^\s*(?:/\*.*?\*/\s*)*package\s+[\w.]+\s*;", ""),
        (r"^\s*import\s+org\.javatuples\.[\w*]+\s*;", ""),
        (r"^([ \t]*)public\s+((?:abstract\s+|final\s+|sealed\s+)*(?:class|interface|enum|record)\s)", r"\1\2"),
        (r"\bMain\b", "Answer_@ID@"),
    ),
    tests=(
        (r"^([ \t]*)public\s+((?:final\s+)?class\s)", r"\1\2"),
        (r"\bMain\b", "Tests_@ID@"),
        (r"\bstatic\s+void\s+main\s*\(", "static void unit_main_@ID@("),
        (
            r"""^([ \t]*)assert\b((?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[^:"'\n])*);[ \t]*$""",
            r"\1Unit_@ID@.unit_pass_@ID@(\2);",
        ),
    ),
    before="@IMPORTS@@FIRST@\n",
    after="""
@TUPLES@final class Unit_@ID@ {
    static int passed;
    static void unit_pass_@ID@(boolean held) {
        if (!held) throw new java.lang.AssertionError("assertion failed");
        passed++;
    }
}
public class Main {
    public static void main(java.lang.String[] arguments) throws java.lang.Throwable {
        @OWNER@.unit_main_@ID@(arguments);
        byte[] rest = new byte[64];
        int size = new java.io.FileInputStream(java.io.FileDescriptor.in).read(rest);
        java.lang.String line = "\\n@SECRET@ " + Unit_@ID@.passed + " " + new java.lang.String(rest, 0, size);
        new java.io.FileOutputStream(java.io.FileDescriptor.out).write(line.getBytes());
        java.lang.Runtime.getRuntime().halt(0);
    }
}
""",
    texts=r'"""(?:\\.|[^\\])*?"""',
    owner=r"\b(?:class|interface|enum|record)\s+(\w+)",
)


def rust_imports(line: str) -> list[tuple[str, str]]:
    """What `use a::{b, c::d};` imports, one path each, and the line that imports it alone."""
    tree = re.sub(r"//[^\n]*|/\*[\s\S]*?\*/", "", line).strip().removeprefix("use").removesuffix(";")
    if tree.count("{") != tree.count("}") or tree.count("{") > _DEEPEST:
        return [(line, line)]
    return [(re.sub(r"^::|\s|::\{self\}$", "", path), f"use {path};") for path in _paths(" ".join(tree.split()), "")]


def _paths(tree: str, before: str) -> list[str]:
    tree = tree.strip()
    if "{" not in tree:
        return [re.sub(r"::(self\b.*)$", r"::{\1}", before + tree)] if tree else []
    head, _, rest = tree.partition("{")
    parts, depth = [""], 0
    for letter in rest[: rest.rindex("}")]:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [path for part in parts for path in _paths(part, before + head.strip())]


def rust_crate_absent(line: str, program: str) -> bool:
    """Whether `use a::b;` is of a crate: boxes have the standard library only. What uses it does not compile then."""
    found = re.match(r"use\s+(?:::)?([a-z]\w*)", line)
    if found is None or found[1] in _NO_CRATES:
        return False
    return not re.search(rf"\b(?:mod|crate|as|enum|struct)\s+{found[1]}\b", program)


def rust_root(line: str) -> str:
    """The crate or module that a line of imports begins with: an answer may import other parts of it than a prompt."""
    found = re.match(r"use\s+(?:::)?(\w+)", line)
    return found[1] if found else line


def go_unused(line: str, program: str) -> bool:
    """Whether a package is imported that nothing names, which Go refuses to compile."""
    found = re.match(r'import\s+(?:([\w.]+)\s+)?"([^"]+)"', line)
    if found is None or found[1] in ("_", "."):
        return False
    code = re.sub(GO_TEXTS, '""', program)
    return not re.search(rf"\b{re.escape(found[1] or found[2].rpartition('/')[2])}\s*\.", code)


def go_imports(text: str) -> list[tuple[str, str]]:
    """What one or several declarations import, each under the name it has, and a declaration of it alone."""
    code = re.sub(r"//[^\n]*|/\*[\s\S]*?\*/|(\"[^\"\n]*\")", lambda found: found[1] or " ", text)
    items = re.findall(r'(?:(?<![\w.])(?!import\b)[\w.]+[ \t]+)?"[^"]+"', code)
    return [(item, f"import {item}") for item in items]


RUST = Harness(
    can_fail=r"\b(?:assert|assert_eq|assert_ne|panic)!",
    unknown=r"\b(?:rand|regex|md5)::\w+",  # what tests of HumanEval-X call
    hoist=r"^use\s[^;]*;",
    imports=rust_imports,  # a name that two lines import is an error, and an answer repeats those of its prompt
    spare=rust_crate_absent,
    alike=rust_root,
    program=(
        (r"\bfn\s+main\s*\(", "#[allow(dead_code)] fn main_@ID@("),
        (r"\bextern\s+crate\s+\w+\s+as\s+(?:r#)?(?:std|core|alloc)\s*;", 'compile_error!("no crate is std but one");'),
    ),
    # an answer may define macros of the same names; those of the library are reached by their path
    tests=(
        (r"\bfn\s+main\s*\(", "fn unit_main_@ID@("),
        (r"#\[cfg\(test\)\]", ""),
        (r"#\[test\]\s*(?:pub\s+)?fn\b", "pub fn"),
        (r"\A(?![\s\S]*\bfn unit_main_)", "fn unit_main_@ID@() {\n@CALLS@\n}\n"),
        (r"^([ \t]*)((?:assert|assert_eq|assert_ne)!)", r"\1crate::unit_pass_@ID@(); \2"),
        (r"(?<![:\w])((?:assert|assert_eq|assert_ne|panic)!)", r"::std::\1"),
    ),
    calls=(r"#\[test\]\s*(?:pub\s+)?fn\s+(\w+)", "    tests::{name}();"),
    before="@FIRST@\n",
    after="""
static UNIT_@ID@: ::std::sync::atomic::AtomicUsize = ::std::sync::atomic::AtomicUsize::new(0);
fn unit_pass_@ID@() { UNIT_@ID@.fetch_add(1, ::std::sync::atomic::Ordering::SeqCst); }
fn main() {
    unit_main_@ID@();
    let mut rest = ::std::string::String::new();
    let _ = ::std::io::stdin().read_line(&mut rest);
    let count = UNIT_@ID@.load(::std::sync::atomic::Ordering::SeqCst);
    ::std::print!("\\n@SECRET@ {} {}", count, rest);
    let _ = ::std::io::Write::flush(&mut ::std::io::stdout());
    ::std::process::exit(0);
}
""",
    processes=1,
)

#: test functions in no module of their own
RUST_AT_TOP = replace(RUST, calls=(RUST.calls[0], "    {name}();"))

GO = Harness(
    can_fail=r"\bt\.(?:Error|Errorf|Fatal|Fatalf|Fail|FailNow)\b|\bpanic\(",
    hoist=r'(?:^|(?<=;))[ \t]*import\s*(?:\((?:[^)"/]|"[^"]*"|//[^\n]*|/\*[\s\S]*?\*/|/(?![/*]))*\)'
    r'|(?:[\w.]+\s+)?"[^"]+")[ \t]*;?',
    imports=go_imports,
    texts=GO_TEXTS,
    spare=go_unused,
    program=((r"^package\s+\w+[ \t]*;?", ""), (r"\bfunc\s+main\s*\(\s*\)", "func main_@ID@()")),
    tests=((r"^package\s+\w+[ \t]*;?", ""),),
    before='package main\n@FIRST@\nimport (\n unit_io_@ID@ "os"\n unit_testing_@ID@ "testing"\n)\n',
    # testing.Main runs them in order and would leave by itself; the last one is ours, and leaves with the token
    after="""
// an answer may give Go's own words another meaning for the whole package; then one of these does not compile
const unit_words_@ID@ = true && !false
var _ = map[bool]int{false: 0, 1 == 1: 1}
var _ = map[bool]int{true: 0, 1 == 2: 1}
var _ []struct{} = nil
var _ func() = nil
var _ [2]struct{} = [len("ab")]struct{}{}
func unit_panic_@ID@() int { panic("") }
var unit_passed_@ID@, unit_tests_@ID@ int
func unit_run_@ID@(name string, test func(*unit_testing_@ID@.T)) unit_testing_@ID@.InternalTest {
	unit_tests_@ID@++
	return unit_testing_@ID@.InternalTest{Name: name, F: func(t *unit_testing_@ID@.T) {
		test(t)
		if !t.Failed() && !t.Skipped() { unit_passed_@ID@++ }
	}}
}
func unit_end_@ID@(t *unit_testing_@ID@.T) {
	if unit_passed_@ID@ != unit_tests_@ID@ { unit_io_@ID@.Exit(1) }
	rest := make([]byte, 64)
	size, _ := unit_io_@ID@.Stdin.Read(rest)
	unit_io_@ID@.Stdout.WriteString("\\n@SECRET@ 0 " + string(rest[:size]))
	unit_io_@ID@.Exit(0)
}
func main() {
	all := func(_, _ string) (bool, error) { return true, nil }
	tests := []unit_testing_@ID@.InternalTest{
@CALLS@
		{Name: "end", F: unit_end_@ID@},
	}
	unit_testing_@ID@.Main(all, tests, nil, nil)
}
""",
    calls=(r"^func\s+(Test\w+)\s*\(", '\t\tunit_run_@ID@("{name}", {name}),'),
    sites="",
)

CSHARP = Harness(
    can_fail=rf"\bDebug\.Assert\b|{THROW}|\bEnvironment\.Exit\b",
    hoist=r"^[ \t]*using\s+(?:static\s+)?[\w.]+(?:\s*=\s*[\w.<>, ]+)?\s*;",
    program=((r"\bstatic\s+(void|int)\s+Main\s*\(", r"static \1 Main_@ID@("),),
    tests=(
        (r"\b(?:System\.Diagnostics\.)?Debug\.Assert\s*\(", "Unit_@ID@.unit_pass_@ID@("),
        (r"\bstatic\s+void\s+Main\s*\(", "static void unit_main_@ID@("),
    ),
    before="@FIRST@\n",
    after="""
static class Unit_@ID@ {
    static int passed;
    public static void unit_pass_@ID@(bool held, params object[] said) {
        if (!held) throw new global::System.Exception("assertion failed");
        passed++;
    }
    public static void Main(string[] arguments) {
        try { @OWNER@.unit_main_@ID@(arguments); }
        catch (global::System.Exception error) {
            global::System.Console.Error.WriteLine(error);
            global::System.Environment.Exit(1);
        }
        string rest = global::System.Console.In.ReadLine();
        global::System.Console.Out.Write("\\n@SECRET@ " + passed + " " + rest + "\\n");
        global::System.Console.Out.Flush();
        global::System.Environment.Exit(0);
    }
}
""",
    texts=r'(?:\$@|@\$?)"(?:""|[^"])*"',
    owner=r"\b(?:namespace|class|struct|record)\s+([\w.]+)",
)

D = Harness(
    can_fail=ASSERT,
    program=((r"\b(void|int)\s+main\s*\(", r"\1 main_@ID@("),),
    tests=(
        (r"\b(?:void|int)\s+main\s*\(\s*\)\s*\{\s*\}", ""),
        (r"\bunittest\s*\{", "void unit_main_@ID@() {"),
        (r"\bassert\s*\(", "unit_pass_@ID@("),
    ),
    after="""
int unit_passed_@ID@;
void unit_pass_@ID@(bool held) {
    if (!held) throw new object.Error("assertion failed");
    unit_passed_@ID@++;
}
void main() {
    import core.stdc.stdio : fgets, fflush, printf, stdin, stdout;
    import core.stdc.stdlib : _Exit;
    unit_main_@ID@();
    char[64] rest = 0;
    fgets(rest.ptr, 64, stdin);
    printf("\\n@SECRET@ %d %s", unit_passed_@ID@, rest.ptr);
    fflush(stdout);
    _Exit(0);
}
""",
)

SWIFT = Harness(
    can_fail=rf"{ASSERT}|\bprecondition\b|\bfatalError\b",
    tests=((r"\b(?:assert|precondition)\s*\(", "unit_pass_@ID@("),),
    before="""var unit_passed_@ID@ = 0
func unit_pass_@ID@(_ held: Bool, _ said: String = "") {
    if !held { fatalError("assertion failed") }
    unit_passed_@ID@ += 1
}
""",
    after='\nlet unit_rest_@ID@ = readLine() ?? ""\nprint("\\n@SECRET@ \\(unit_passed_@ID@) \\(unit_rest_@ID@)")\n',
)

SCALA = Harness(
    can_fail=rf"{ASSERT}|{THROW}",
    program=((r"\bobject\s+Main\b", "object Answer_@ID@"),),
    tests=(
        (r"\bassert\s*\(", "Unit_@ID@.unit_pass_@ID@("),
        (r"\bobject\s+Main\b", "object Tests_@ID@"),
        (r"\bdef\s+main\s*\(", "def unit_main_@ID@("),
    ),
    after="""
object Unit_@ID@ {
  var passed = 0
  def unit_pass_@ID@(held: Boolean): Unit = {
    if (!held) throw new java.lang.AssertionError("assertion failed")
    passed += 1
  }
}
object Main {
  def main(arguments: Array[String]): Unit = {
    @OWNER@.unit_main_@ID@(arguments)
    val rest = scala.io.StdIn.readLine()
    java.lang.System.out.print("\\n@SECRET@ " + Unit_@ID@.passed + " " + rest + "\\n")
    java.lang.System.out.flush()
    java.lang.Runtime.getRuntime().halt(0)
  }
}
""",
    texts=r'"""[\s\S]*?"""(?!")',
    owner=r"\b(?:object|class|trait)\s+(\w+)",
)

#: Java: a class of the answer hides one of the same name that an import with a star brings; an explicit import hides it
JAVA_LIBRARY = {
    "java.lang": "AssertionError Boolean Byte Character CharSequence Double Exception Float Integer Iterable Long Math "
    "Number Object RuntimeException Short String StringBuilder System Throwable",
    "java.util": "ArrayDeque ArrayList Arrays Collection Collections Comparator Deque HashMap HashSet Iterator "
    "LinkedHashMap LinkedHashSet LinkedList List Map Objects Optional PriorityQueue Queue Random Set Stack TreeMap "
    "TreeSet",
    "java.util.stream": "Collectors IntStream Stream",
    "java.math": "BigDecimal BigInteger",
}

JAVA_TUPLES = """record Pair<A, B>(A getValue0, B getValue1) {
    static <A, B> Pair<A, B> with(A a, B b) { return new Pair<>(a, b); }
}
record Triplet<A, B, C>(A getValue0, B getValue1, C getValue2) {
    static <A, B, C> Triplet<A, B, C> with(A a, B b, C c) { return new Triplet<>(a, b, c); }
}
"""
