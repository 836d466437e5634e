"""Verifier "function": the forms in which models write a function's parameters and what it returns.

Each of these forms was once refused. A program takes or returns several of them, and a number that says which of its
results is wrong: the right answer passes, and with the same types no wrong one does.
"""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import pytest

from rewards.drivers import rewritten
from rewards.drivers_rows import CALLERS
from rewards.drivers_rust import main_of
from rewards.drivers_types import kind_of
from rewards.languages import LANGUAGES
from rewards.verifiers.function import FunctionVerifier

JAVA = """
import java.util.*;

public class Solution {
    static List<Integer> odd(int wrong, int... found) {
        List<Integer> out = new ArrayList<>();
        for (int i = 0; i < found.length; i++) out.add(found[i] + (wrong == i ? 1 : 0));
        return out;
    }
    static <T extends Comparable<? super T>> List<Integer> takes(
            List<? extends Number> a, Collection<Integer> b, Iterable<? super Integer> c, LinkedList<Integer> d,
            Deque<Integer> e, Queue<Integer> f, Stack<Integer> g, Set<Integer> h, T[] i, List<T> j,
            SortedMap<String, Integer> k, HashMap<String, ? extends Number> l, char m, char[][] n, Number o, double p,
            int wrong) {
        int sum = 0;
        for (Object one : c) sum += (Integer) one;
        return odd(wrong, a.get(0).intValue(), b.size(), sum, d.getLast(), e.peekFirst(), f.poll(), g.pop(), h.size(),
            i[0].compareTo(j.get(1)), k.get(k.firstKey()), l.get("x").intValue(), m - 'a', n[1][0] - '0', o.intValue(),
            (int) (p / 2 * 4));
    }
    static List<Collection<Integer>> gives(int wrong) {
        List<Integer> up = List.of(1, 2), down = List.of(2, 1);
        List<Collection<Integer>> out = new LinkedList<>();
        out.add(new LinkedHashSet<>(wrong == 0 ? up : down));
        out.add(new TreeSet<>(wrong == 1 ? List.of(1, 3) : down));
        out.add(new ArrayDeque<>(wrong == 2 ? up : down));
        return out;
    }
    static Map<Character, OptionalInt> letters(int wrong) {
        Map<Character, OptionalInt> out = new HashMap<>();
        out.put(wrong == 0 ? 'x' : 'a', wrong == 1 ? OptionalInt.of(2) : OptionalInt.of(1));
        out.put('b', wrong == 2 ? OptionalInt.of(0) : OptionalInt.empty());
        return out;
    }
    static char[] backwards(char[] s) { for (int i = 0; i < s.length / 2; i++) { char t = s[i]; s[i] = s[s.length - 1 - i]; s[s.length - 1 - i] = t; } return s; }
    static <T> T one(List<T> xs, Object at) { return xs.get(xs.indexOf(at)); }
    static List<Integer> sorted(TreeSet<Integer> xs) { return new ArrayList<>(xs); }
    static int different(Set<Integer> xs) { return xs.size(); }
    static Set<Integer> unordered(List<Integer> xs) { return new HashSet<>(xs); }
}
"""
KOTLIN = """
fun <T : Comparable<T>> takes(xs: Collection<T>, pairs: List<Pair<Int, Int>>, letter: Char, grid: Array<CharArray>, wrong: Int, memo: MutableMap<Int, Long> = mutableMapOf(), one: Int = 1): List<Int> {
    memo[0] = 7L
    val found = listOf(xs.size, pairs[1].second, letter - 'a', grid[0][1] - '0', memo.size, one)
    return found.mapIndexed { i, x -> if (i == wrong) x + 1 else x }
}
fun gives(wrong: Int): List<Any> = listOf(Pair(1, if (wrong == 0) 1 else 2), Triple(1, 2, 3), if (wrong == 1) linkedSetOf(1, 2) else linkedSetOf(2, 1))
fun letters(s: String): Map<Char, Int> = s.groupingBy { it }.eachCount()
"""
CSHARP = """
using System;
using System.Collections.Generic;
using System.Linq;
class Own : List<int> { }
public class Solution {
    public static IEnumerable<long> takes<T>(List<T> a, IReadOnlyCollection<int> b, Queue<int> c, LinkedList<int> d, SortedDictionary<string, int> e, char f, char[][] g, List<object> h, int wrong) where T : IComparable<T> {
        var found = new long[] { a[0].CompareTo(a[1]), b.Count, c.Dequeue(), d.Last.Value, e.First().Value, f - 'a', g[0][1] - '0', (int)h[0] };
        return found.Select((x, i) => i == wrong ? x + 1 : x);
    }
    public static IEnumerable<object> gives(int wrong) {
        yield return Tuple.Create(1, wrong == 0 ? 1 : 2);
        yield return new List<int> { 3 }.Select(x => x + 1).ToArray();
        yield return wrong == 1 ? (object)new Own { 1 } : new[] { 1 };
        if (wrong == 2) yield return new int[0];
    }
    public static Dictionary<char, int> letters(string s) { return s.GroupBy(c => c).ToDictionary(g => g.Key, g => g.Count()); }
    public static IEnumerable<int> unordered(int[] xs) { return new HashSet<int>(xs); }
}
"""
GO = """
package main

func takes[T int | float64, K comparable](xs []T, m map[K]T, k K, wrong int) T {
	if wrong > 0 {
		return xs[0]
	}
	return xs[0] + m[k]
}

func letters(c rune, board [][]byte, loose []interface{}, two [2]int) map[rune]int {
	return map[rune]int{c: int(board[0][1]-'0') + loose[0].(int) + two[1]}
}
"""
RUST = """
use std::collections::*;
use std::hash::Hash;

impl Solution {
    pub fn takes<'a, T, K: Hash + Eq, S>(
        a: &[T], b: impl Iterator<Item = i32>, c: impl IntoIterator<Item = &'a u8>, d: &[impl AsRef<str>], e: S,
        m: &HashMap<K, T>, k: K, letter: char, board: [&str; 1], (one, two): (i64, usize), set: HashSet<T>, wrong: i64,
    ) -> Vec<i64>
    where
        T: Into<i64> + Copy + Ord, // and so on
        S: Into<String>,
    {
        let words: usize = d.iter().map(|s| s.as_ref().len()).sum();
        let e: String = e.into();
        vec![wrong + (*a.iter().max().unwrap()).into(), b.sum::<i32>() as i64, c.into_iter().map(|x| *x as i64).sum(),
            words as i64, e.len() as i64, m[&k].into(), letter as i64, board[0].len() as i64, one, two as i64, set.len() as i64]
    }
}
/* fn takes<T>(x: T) {} */
fn gives(wrong: i32, mut q: VecDeque<i64>, pairs: Vec<(i64, i64)>) -> HashMap<char, (Vec<i64>, BTreeSet<i64>, VecDeque<i64>, Box<[i64]>)> {
    q.rotate_left((wrong != 2) as usize);
    let one = if wrong == 0 { 7 } else { pairs[0].1 };
    let set = [3, if wrong == 1 { 4 } else { 2 }].into_iter().collect();
    HashMap::from([(if wrong == 4 { 'b' } else { 'a' }, (vec![one], set, q, vec![if wrong == 3 { 2 } else { 1 }].into()))])
}
"""
COUNTED = {"a": 2, "b": 1}
FIVE = [5, 6]


def wrongs(first: list, right: object, *wrong: int) -> list[tuple[list, object, str]]:
    """Tests: the right answer, and one with each of the results that the number says made wrong."""
    return [([*first, -1], right, "AC"), *(([*first, n], right, "WA") for n in wrong)]


#: (language, program, entry, types of the parameters, type returned, tests with their verdicts)
FORMS = [
    ("java", JAVA, "takes", [*["int[]"] * 10, "map[int]", "map[int]", "string", "string[][]", "int", "int", "int"], "int[]",
     wrongs([*[FIVE] * 8, [8, 7], [7, 8], {"b": 4, "a": 3}, {"x": 9}, "c", [["0"], ["1"]], 12, 5],
            [5, 2, 11, 6, 5, 5, 6, 2, 0, 3, 9, 2, 1, 12, 10], 0, 8, 14)),
    ("java", JAVA, "gives", ["int"], "int[][]", wrongs([], [[2, 1], [1, 2], [2, 1]], 0, 1, 2)),
    ("java", JAVA, "letters", ["int"], "map[int?]", wrongs([], {"a": 1, "b": None}, 0, 1, 2)),
    ("java", JAVA, "backwards", ["string[]"], "string[]", [([["a", "b"]], ["b", "a"], "AC"), ([["a", "b"]], ["a", "b"], "WA"), ([["ab"]], ["ba"], "RE")]),
    ("java", JAVA, "one", ["int[]", "int"], "int", [([[1, 2**40], 1], 1, "AC"), ([[1, 2**40], 2**40], 1, "WA")]),
    ("java", JAVA, "sorted", ["int[]"], "int[]", [([[1, 2]], [1, 2], "AC"), ([[2, 1]], [1, 2], "RE"), ([[1, 1]], [1], "RE")]),
    ("java", JAVA, "different", ["int[]"], "int", [([[2, 1]], 2, "AC"), ([[2, 1, 2]], 2, "RE")]),
    ("java", JAVA, "unordered", ["int[]"], "int[]", [([[2, 1, 2]], [1, 2], "WA")]),
    ("java", "// adds\nimport java.util.*;\n\npublic static int f(List<Integer> xs) {\n  return xs.get(0) + 1;\n}\n", "f", ["int[]"], "int", [([[1]], 2, "AC"), ([[1]], 1, "WA")]),
    ("kotlin", KOTLIN, "takes", ["int[]", "int[][]", "string", "string[][]", "int"], "int[]", wrongs([FIVE, [[1, 2], [3, 4]], "c", [["0", "1"]]], [2, 4, 2, 1, 1, 1], 0, 5)),
    ("kotlin", KOTLIN, "gives", ["int"], "int[][]", wrongs([], [[1, 2], [1, 2, 3], [2, 1]], 0, 1)),
    ("kotlin", KOTLIN, "letters", ["string"], "map[int]", [(["aab"], COUNTED, "AC"), (["abb"], COUNTED, "WA")]),
    ("csharp", CSHARP, "takes", [*["int[]"] * 4, "map[int]", "string", "string[][]", "int[]", "int"], "int[]",
     wrongs([*[FIVE] * 4, {"b": 4, "a": 3}, "c", [["0", "1"]], [12]], [-1, 2, 5, 6, 3, 2, 1, 12], 0, 7)),
    ("csharp", CSHARP, "gives", ["int"], "int[][]", wrongs([], [[1, 2], [4], [1]], 0, 1, 2)),
    ("csharp", CSHARP, "letters", ["string"], "map[int]", [(["aab"], COUNTED, "AC"), (["abb"], COUNTED, "WA")]),
    ("csharp", CSHARP, "unordered", ["int[]"], "int[]", [([[2, 1, 2]], [2, 1], "WA")]),
    ("csharp", "using System;\n\npublic static int f(int x)\n{\n  return Math.Abs(x) + 1;\n}\n", "f", ["int"], "int", [([1], 2, "AC"), ([1], 1, "WA")]),
    ("go", GO, "takes", ["int[]", "map[int]", "string", "int"], "int", wrongs([FIVE, {"k": 2}, "k"], 7, 1)),
    ("go", GO, "letters", ["string", "string[][]", "int[]", "int[]"], "map[int]",
     [(["\u20ac", [["0", "1"]], [2], FIVE], {"\u20ac": 9}, "AC"), (["b", [["0", "1"]], [2], FIVE], {"a": 9}, "WA"), (["ab", [["0", "1"]], [2], FIVE], {"a": 9}, "RE")]),
    ("rust", RUST, "takes", ["int[]", "int[]", "int[]", "string[]", "string", "map[int]", "string", "string", "string[]", "int[]", "int[]", "int"], "int[]",
     [([*[FIVE] * 3, ["a", "bc"], "abcd", {"k": 8}, "k", "A", ["xyz"], FIVE, set_, wrong], [6, 11, 11, 3, 4, 8, 65, 3, 5, 6, 2], verdict)
      for set_, wrong, verdict in ((FIVE, 0, "AC"), (FIVE, 1, "WA"), ([5, 5], 0, "RE"))]),
    ("rust", RUST, "gives", ["int", "int[]", "int[][]"], "map[int[][]]",
     [([n, [9, 8], [[3, 4]]], {"a": [[4], [2, 3], [8, 9], [1]]}, "WA" if n >= 0 else "AC") for n in range(-1, 5)]),
    # typed arrays and sets, whose order is known
    ("javascript", "function f(k) { const a = k === 0 ? [1, 2] : [2, 1]; return [Int32Array.from(a), new Float64Array([k === 1 ? 5 : 4]), new Uint8ClampedArray(2), new Set(k === 2 ? [1, 3] : [3, 1, 3])]; }",
     "f", ["int"], "int[][]", wrongs([], [[2, 1], [4], [0, 0], [3, 1]], 0, 1, 2)),
    ("javascript", "class Mine extends Int32Array {}\nInt32Array.prototype.length = 0;\nconst f = (k) => [Int32Array.of(2), Mine.of(2), Object.assign(Object.create(Int32Array.prototype), { 0: 2 }), BigInt64Array.of(2n), new DataView(new ArrayBuffer(1)), new Set([2n])][k];",
     "f", ["int"], "int[]", [([0], [2], "AC"), *(([n], [2], "WA") for n in range(1, 6))]),
    ("javascript", "const f = (s) => new Set(s);", "f", ["string"], "map[int]", [(["ab"], COUNTED, "WA")]),
    ("typescript", "export function f<T>(xs: readonly T[], k: number): Set<T> { return new Set<T>(k < 0 ? xs : []); }", "f", ["int[]", "int"], "int[]", wrongs([[3, 1, 3]], [3, 1], 1)),
    # a class around it
    ("javascript", "class Solution { one = 1; f(x) { return x + this.one; } }", "f", ["int"], "int", [([1], 2, "AC"), ([1], 1, "WA")]),
    ("javascript", "export default { f(x) { return x + 1; } };", "f", ["int"], "int", [([1], 2, "AC"), ([1], 1, "WA")]),
    ("typescript", "export default class Solution { public static f(x: number): number { return x + 1; } }", "f", ["int"], "int", [([1], 2, "AC"), ([1], 1, "WA")]),
    ("ruby", "class Solution\n  def f(x) = x + 1\nend", "f", ["int"], "int", [([1], 2, "AC"), ([1], 1, "WA")]),
    ("python", "class Solution:\n    def f(self, x: int) -> int:\n        return x + 1", "f", ["int"], "int", [([1], 2, "AC"), ([1], 1, "WA")]),
    ("python", "class Solution:\n    def f(self, x):\n        return x + 1\ndef f(x):\n    return Solution().f(x) + 1", "f", ["int"], "int", [([1], 3, "AC"), ([1], 2, "WA")]),
    ("php", "class Solution {\n  /** @return Integer */\n  function f($x) { return $x + 1; }\n}", "f", ["int"], "int", [([1], 2, "AC"), ([1], 1, "WA")]),
    # a helper of the name is not the function
    ("php", "<?php\nnamespace Helper { function f($x) { return 2; } }\nnamespace { class Solution { function f($x) { return 2; } }\n$f = fn($x) => 2;\nfunction F($x) { return $x; } }", "f", ["int"], "int", [([1], 2, "WA"), ([5], 5, "AC")]),
    ("php", "<?php\n$f = fn($x) => $x + 1;", "f", ["int"], "int", [([1], 2, "AC"), ([1], 1, "WA")]),
    ("php", "<?php\nfunction f($k) { return $k ? (object) ['a' => $k] : new stdClass(); }", "f", ["int"], "map[int]", [([1], {"a": 1}, "AC"), ([0], {}, "AC"), ([2], {"a": 1}, "WA")]),
    ("php", "<?php\nclass Mine extends stdClass {}\nfunction f($k) { $o = $k ? new Mine() : (object) [1]; return $o; }", "f", ["int"], "int[]", [([0], [1], "WA"), ([1], [], "WA")]),
    # the dictionaries that Python's library brings
    ("python", "from collections import *\ndef f(s, k):\n    d = defaultdict(int)\n    for c in s: d[c] += 1\n    return [Counter(s), d, OrderedDict(d)][k]", "f", ["string", "int"], "map[int]",
     [([text, n], COUNTED, verdict) for n in range(3) for text, verdict in (("aab", "AC"), ("abb", "WA"))]),
    ("python", "class Mine(dict): pass\nclass Counter(dict):\n    def items(self): return [('a', 2), ('b', 1)]\n    def __eq__(self, other): return True\nCounter.__module__ = 'collections'\ndef f(k): return [Counter(), Mine(a=2, b=1)][k]", "f", ["int"], "map[int]",
     [([0], COUNTED, "WA"), ([1], COUNTED, "WA")]),
]  # fmt: skip

#: where a compiler takes a second or more; the first programs of some are run every time
LATE = ("kotlin", "rust", "csharp", "go")


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("language", "program", "entry", "kinds", "returns", "tests"),
    [
        pytest.param(*row, marks=pytest.mark.slow if row[0] in LATE else (), id=f"{row[0]}-{n}")
        for n, row in enumerate(FORMS)
    ],
)
def test_a_form_is_taken_and_its_value_is_judged(language, program, entry, kinds, returns, tests, roomy, function_task):
    missing = [tool for tool in LANGUAGES[language].tools if not roomy.sandbox.has(tool)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed; {LANGUAGES[language].install}")
    parameters = {f"x{n}": kind for n, kind in enumerate(kinds)}
    pairs = [(args, expected) for args, expected, _ in tests]
    found = FunctionVerifier().judge(
        function_task(language, parameters, returns, pairs, entry_point=entry), program, roomy
    )
    assert [test.verdict for test in found.tests] == [verdict for *_, verdict in tests], found


@pytest.mark.parametrize(
    ("program", "kinds", "main"),
    [
        ("fn f(xs: &[i32]) -> i32 { 0 }", "int[]", "f"),
        ("fn f<'a>(a: &'a str, b: &'a str) -> &'a str { a }", "string string", "f"),
        ("fn f<T: Ord>(xs: &mut [T], k: usize) {}", "int[] int", "|a0: &'static mut [i64], a1: usize| f(a0, a1)"),
        ("fn f<T>(x: Option<T>, y: &T) where T: Into<f64> {}", "int? int", "|a0: Option<i32>, a1: &'static i32| f(a0, a1)"),
        ("fn f<T: FromStr>(x: T, y: impl Fn(i32) -> bool) {}", "string", "f"),
        ("fn f<T: AsRef<[i32]>, I>(x: T, y: I) where I: IntoIterator<Item = (u8, char)> {}", "int[] int[][]", "|a0: Vec<i32>, a1: Vec<(u8, char,)>| f(a0, a1)"),
        ("fn f(x: impl Into<Vec<String>>) {}", "string[]", "|a0: Vec<String>| f(a0)"),
        ("fn f<T>(x: T) {}", "map[float?]", "|a0: std::collections::HashMap<String, Option<f64>>| f(a0)"),
        ("struct A;\nimpl A { fn f<T>(x: T) {} }", "bool", "|a0: bool| A::f(a0)"),
        ("mod a { fn f<T>(x: T) {} }\n/* fn f() */ fn f(x: i32) {}", "int", "f"),
    ],
)  # fmt: skip
def test_what_a_declaration_in_rust_leaves_open_is_filled_in(program, kinds, main):
    assert main_of(program, "f", tuple(map(kind_of, kinds.split()))) == f"fn main() {{ assay_driver::run({main}) }}"


@pytest.mark.parametrize(
    "text",
    [
        "fn f<T: Into<Option<T>>>(x: T) {}",
        f"fn f<T>(x: {'&' * 3000}T) {{}}",
        "fn f<" + "T, " * 300_000,
        "\n" * 1_000_000 + "impl Solution",
        "impl A {" + "fn f " * 200_000,
    ],
)
def test_what_nobody_declares_is_left_to_the_compiler_and_costs_nothing(text):
    assert "run(f)" in main_of(text, "f", (kind_of("int"),)) or "A::f" in main_of(text, "f", (kind_of("int"),))


def test_an_empty_type_is_declared_where_only_its_methods_are():
    text = main_of("impl Solution { pub fn f(x: i32) -> i32 { x } }", "f", (kind_of("int"),))
    assert text == "struct Solution;\nfn main() { assay_driver::run(Solution::f) }"


@pytest.mark.parametrize("language", ["java", "csharp"])
def test_only_a_method_without_a_class_gets_one(language):
    for text in (
        "",
        "I cannot write that.\n",
        "enum A { B; int f() { return 1; } }",
        "/* a */ interface A { int f(); }",
    ):
        assert rewritten(CALLERS[language], text) == text
    assert (
        rewritten(CALLERS[language], "// by hand\nint f() { return 1; }")
        == "// by hand\nclass Solution {\nint f() { return 1; }\n}"
    )
