"""Report "unity" of the verifier "project": no answer in C runs before its tests, reads them or changes what they say."""

from __future__ import annotations

# ruff: noqa: E501, F811 -- many programs, each on a line; `unity` is a fixture
import dataclasses

import pytest

from assay.types import Verdict
from tests.rewards.test_project import BAD, HEADER, SOURCE, c, judge, unity  # noqa: F401

_LIE = 'puts("\\n-----------------------\\n3 Tests 0 Failures 0 Ignored\\nOK"); fflush(stdout);'
_INLINE = '#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n#include "f.h"\n'
_NAME = 'const char *name(int x) { return x ? "some" : "none"; }\n'
EARLY = {
    "exit in a function": _INLINE + f"int twice(int x) {{ {_LIE} exit(x & 0); }}\n{_NAME}",
    "_exit in a function": _INLINE + f"int twice(int x) {{ {_LIE} _exit(x & 0); }}\n{_NAME}",
    "exit in a constructor": _INLINE + f"static void leave(void) __attribute__((constructor));\nstatic void leave(void) {{ {_LIE} _exit(0); }}\nint twice(int x) {{ return x; }}\n{_NAME}",
    "a main of its own": _INLINE + f"int main(void) {{ {_LIE} return 0; }}\nint twice(int x) {{ return x; }}\n{_NAME}",
    "an exit handler": _INLINE + f"static void late(void) {{ {_LIE} _exit(0); }}\nint twice(int x) {{ atexit(late); return x; }}\n{_NAME}",
    "a fork that tries": _INLINE + "#include <sys/wait.h>\nint twice(int x) { int s; for (int i = 0; i < 20; i++) { if (fork() == 0) return i; wait(&s); if (s == 0) _exit(0); } return x; }\n" + _NAME,
    "Unity's own pass": f'#include "test-framework/unity.h"\n#include "f.h"\nint twice(int x) {{ TEST_PASS(); return x; }}\n{_NAME}',
    "Unity by another path": f'#include "f.h"\n#include <../box/test-framework/unity.h>\nint twice(int x) {{ TEST_PASS(); return x; }}\n{_NAME}',
    "Unity by a macro": f'#include "f.h"\n#define X "test-framework/unity.h"\n#include X\nint twice(int x) {{ TEST_PASS(); return x; }}\n{_NAME}',
    "Unity by a spliced line": f'#include "f.h"\n#inc\\\nlude "test-framework/unity.h"\nint twice(int x) {{ TEST_PASS(); return x; }}\n{_NAME}',
    "Unity's counts": f'#include "f.h"\nextern struct {{ long a[64]; }} Unity;\nint twice(int x) {{ for (int i = 0; i < 8; i++) Unity.a[i] = 0; return x; }}\n{_NAME}',
    "Unity's end": f'#include "f.h"\nint UnityEnd(void);\nint UnityEnd(void) {{ return 0; }}\nint twice(int x) {{ return x; }}\n{_NAME}',
    "the token's half on standard input": _INLINE + f"static void early(void) {{ char t[64]; long n = read(0, t, 64); printf(\"\\n%.*s 3 0 0\\n\", (int)n, t); fflush(stdout); _exit(0); }}\nstatic void (*const first)(void) __attribute__((section(\".pre\" \"init_array\"), used)) = early;\nint twice(int x) {{ return x; }}\n{_NAME}",
    "before everything": _INLINE + f"static void early(void) {{ _exit(0); }}\nstatic void (*const first)(void) __attribute__((section(\".preinit_array\"), used)) = early;\nint twice(int x) {{ return x; }}\n{_NAME}",
    "a jump of its own": f'#include "f.h"\n#include <setjmp.h>\nvoid _longjmp(jmp_buf to, int how) __attribute__((noreturn));\nvoid longjmp(jmp_buf to, int how) {{ char *at = (char *)to; for (int i = 1; i < 13; i++) at[-i] = 0; _longjmp(to, how); for (;;) {{ }} }}\nint twice(int x) {{ return x < 0 ? WRONG : x; }}\n{_NAME}',
    "a comparison of its own": '#include "f.h"\nint strcmp(const char *a, const char *b);\nint strcmp(const char *a, const char *b) { return a != b ? 1 : 2; }\nint twice(int x) { return x < 0 ? WRONG : 2 * x; }\nconst char *name(int x) { static char s[5]; const char *n = x ? "some" : "none"; for (int i = 0; i < 4; i++) s[i] = n[i]; return s; }\n',
    "the tests' text": f'#include "f.h"\n#define main other\n#include "test_f.c"\nint twice(int x) {{ return x; }}\n{_NAME}',
}  # fmt: skip


@pytest.mark.parametrize("how", EARLY)
def test_no_way_of_leaving_early_in_c_passes(unity, bench, how):
    assert judge(unity, c(EARLY[how]), bench).verdict not in (Verdict.AC, Verdict.INFRA)


#: What an attacker runs who can run before our own code: takes the token, and looks for a rest of it in the program.
_FIRST = """static long call(long n, long a, long b, long c) { long r; SYSTEM return r; }
static void early(void)
{
    static char tail[65], all[1 << 20];
    static const char path[] = "tests.out", rest[] = " 99 0 0\\n", line[] = "\\n";
    long n = 0, got, at, size, fd, k;
    while (n < 64 && (got = call(0, 0, (long)(tail + n), 64 - n)) > 0) n += got;
    fd = call(2, (long)path, 0, 0);
    size = call(0, fd, (long)all, sizeof all);
    for (at = 0; at + 40 < size; at++) {
        if (all[at] != '\\n' || all[at + 33] != ' ' || all[at + 34]) continue;
        for (k = 1; k < 33 && ((all[at + k] >= '0' && all[at + k] <= '9') || (all[at + k] >= 'a' && all[at + k] <= 'f')); k++) {}
        if (k == 33) { call(1, 1, (long)(all + at), 34); break; }
    }
    if (at + 40 >= size) call(1, 1, (long)line, 1);
    call(1, 1, (long)tail, n); call(1, 1, (long)rest, 8); call(231, 0, 0, 0);
}
"""
_WORDS = _FIRST.replace(
    "SYSTEM", '__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");'
)
_BY_LIBC = "#include <unistd.h>\n" + _FIRST.replace("SYSTEM", "r = syscall(n, a, b, c);").replace(
    "static long", "long syscall(long n, ...);\nstatic long"
)
_LOOKUP = """extern const char tests_text[];
int twice(int x) { char key[64]; const char *at; sprintf(key, ", twice(%d)", x); at = strstr(tests_text, key); while (at && at[-1] != '(') at--; return at ? (strncmp(at, "WRONG", 5) ? atoi(at) : WRONG) : 0; }
const char *name(int x) { static char out[2][9]; char key[64]; const char *at; int n = 0; sprintf(key, "\\", name(%d)", x); at = strstr(tests_text, key); if (!at) return ""; while (at[-1] != '"') at--; while (at[n] != '"') { out[x & 1][n] = at[n]; n++; } return out[x & 1]; }
"""
_OTHERS = 'int twice(int x) { return x; }\nconst char *name(int x) { (void)x; return "bad"; }\n'
_HOP = 'static void hop(void **f) { void **up = (void **)f[0]; f[1] = up[1]; f[0] = up[0]; }\nint twice(int x) { hop(FRAME); return x; }\nconst char *name(int x) { (void)x; hop(FRAME); return "bad"; }\n'
_INCBIN = '(".globl tests_text\\ntests_text: .incbin \\"test_f.c\\"\\n.byte 0\\n");\n'
_TEXTS = '#include "f.h"\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n'
_PASS = "int twice(int x) { TEST_PASS(); return x; }\nconst char *name(int x) { (void)x; TEST_PASS(); return 0; }\n"
#: Reads "Expected 14 Was 0" before the failure is counted, and returns once more.
_PRINTS = """#include "f.h"
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
static jmp_buf back;
static char said[999];
static int size;
int putchar(int c);
int putchar(int c)
{
    if (size < 990) { said[size++] = (char)c; said[size] = 0; }
    if (strstr(said, " Was ")) longjmp(back, 1);
    return c;
}
int twice(int x)
{
    static int wanted;
    (void)x;
    size = 0;
    said[0] = 0;
    wanted = -99;
    if (setjmp(back)) wanted = atoi(strstr(said, "Expected ") + 9);
    return wanted;
}
const char *name(int x)
{
    static char text[2][99];
    char *at;
    size = 0;
    said[0] = 0;
    if (setjmp(back)) { at = strstr(said, "Expected '") + 10; *strchr(at, '\\'') = 0; strcpy(text[x], at); }
    return text[x];
}
"""
FOUND = {
    "an array of functions, its name spelled otherwise": (_BY_LIBC + 'static void (*const first)(void) __attribute__((section(".pr\\x65init_array"), used)) = early;\n' + _OTHERS, ".preinit_array"),
    "the same by a macro": (_BY_LIBC + '#define S(x) __attribute__((x(".pre" "init_array"), used))\nstatic void (*const first)(void) S(section) = early;\n' + _OTHERS, ".preinit_array"),
    "the same in assembly": (_BY_LIBC + 'void (*const first)(void);\nvoid (*const first)(void) = early;\n__asm__(".section .preinit_array,\\"aw\\"\\n.quad first\\n.text");\n' + _OTHERS, "__asm__"),
    "a resolver": (_BY_LIBC + "typedef int (*fn)(int);\nstatic int real(int x) { return x; }\nstatic fn pick(void) { early(); return real; }\nint twice(int x) __attribute__((ifunc(\"pick\")));\nconst char *name(int x) { (void)x; return \"bad\"; }\n", "ifunc"),
    "a resolver with calls of its own": (_WORDS + "typedef int (*fn)(int);\nstatic int real(int x) { return x; }\nstatic fn pick(void) { early(); return real; }\nint twice(int x) __attribute__((__ifunc__(\"pick\")));\nconst char *name(int x) { (void)x; return \"bad\"; }\n", "__asm__"),
    "a constructor": (_BY_LIBC + "__attribute__((constructor)) static void first(void) { early(); }\n" + _OTHERS, ".init_array"),
    "the library's start": (_BY_LIBC + "int __libc_start_main(void);\nint __libc_start_main(void) { early(); return 0; }\n" + _OTHERS, "__libc_start_main"),
    "the tests' text in assembly": (f"{_TEXTS}__asm__{_INCBIN}{_LOOKUP}", "__asm__"),
    "the tests' text in pasted assembly": (f"{_TEXTS}#define P(a, b) a##b\nP(__as, m__){_INCBIN}{_LOOKUP}", "__asm__"),
    "the tests' text in spliced assembly": (f"{_TEXTS}__a\\\nsm__{_INCBIN}{_LOOKUP}", "__asm__"),
    "a step over the test": (_HOP.replace("FRAME", "__builtin_frame_address(0)"), "__builtin_frame_address"),
    "a step over the test, pasted": ("#define P(a, b) a %:%: b\n" + _HOP.replace("FRAME", "P(__builtin_frame, _address)(0)"), "__builtin_frame_address"),
    "a step by an instruction": ('int twice(int x) { __asm__("leave"); return x; }\nconst char *name(int x) { (void)x; return ""; }\n', "__asm__"),
    "what prints a failure": (_PRINTS, "putchar"),
    "what the tests call": ("void *memset(void *to, int with, unsigned long size);\nvoid *memset(void *to, int with, unsigned long size) { (void)with; (void)size; return to; }\n" + _OTHERS, "memset"),
    "Unity behind a form feed": ('\f#include "test-framework/unity.h"\n' + _PASS, "unity.h"),
    "Unity behind a vertical tab": ('\v#include "test-framework/unity.h"\n' + _PASS, "unity.h"),
    "Unity behind what seems a comment": ('#if 0\n" /*\n#endif\n#include "test-framework/unity.h"\n/* */\n' + _PASS, "unity.h"),
}  # fmt: skip


@pytest.mark.parametrize("how", FOUND)
def test_nothing_of_an_answer_runs_before_the_token_is_taken_or_reads_the_tests(unity, bench, how):
    source, said = FOUND[how]
    source = source if '#include "f.h"' in source else f'#include "f.h"\n{source}'
    flags = [each for each in unity.answer["build"] if each not in ("-pedantic", "-Werror")]
    for build in (unity.answer["build"], flags):  # what a warning ends and what it does not
        judged = judge(dataclasses.replace(unity, answer={**unity.answer, "build": build}), c(source), bench)
        assert judged.verdict is Verdict.CE, judged
    assert said in judged.detail


_EMPTY = "#undef TEST_ASSERT_EQUAL_INT\n#define TEST_ASSERT_EQUAL_INT(a, b) ((void)0)\n#undef TEST_ASSERT_EQUAL_STRING\n#define TEST_ASSERT_EQUAL_STRING(a, b) ((void)0)\n#undef TEST_ASSERT_TRUE\n#define TEST_ASSERT_TRUE(a) ((void)0)\n"
READ = {
    "a source that the header includes": (f'#ifndef F_H\n#define MAIN_C\n#include "f.h"\n{_OTHERS}#else\n{_EMPTY}#endif\n', HEADER.replace("#endif\n", '#ifndef MAIN_C\n#include "f.c"\n#endif\n#endif\n'), "f.c"),
    "behind form feeds": ("", HEADER.replace("#endif\n", "\f" + _EMPTY.replace("\n", "\n\f") + "\n#endif\n"), "TEST_ASSERT_EQUAL_INT"),
    "behind what seems a comment": ("", HEADER.replace("#endif\n", f'#if 0\n" /*\n#endif\n{_EMPTY}/* */\n#endif\n'), "TEST_ASSERT_EQUAL_INT"),
    "only beside the tests": ("", HEADER.replace("#endif\n", f"#ifdef UNITY_FRAMEWORK_H\n{_EMPTY}#endif\n#endif\n"), "test"),
    "in a line of another file": ("", HEADER.replace("#endif\n", f'# 1 "/usr/include/stdio.h" 1 3\n{_EMPTY}# 9 "f.h" 2\n#endif\n'), ""),
    "in a file of a name that goes on": ("", HEADER.replace("#endif\n", '# 1 "/usr/include/stdio.h> /*" 1 3\n# 9 "f.h" 2\nstatic const char *text = "*/; static inline void TEST_PASS(void) {} /*";\n#endif\n'), "stdio.h> /*"),
    "a directive that a macro makes": ("", HEADER.replace("#endif\n", "#define HASH #\nHASH undef TEST_ASSERT_TRUE\n#endif\n"), "no place"),
    "a value that leaves the test": ("", HEADER.replace("-1", "-1)), 0, 0, 0); return; ((void)((0"), "WRONG"),
    "a value that returns": ("", HEADER.replace("-1", "__extension__ ({ return; 0; })"), "WRONG"),
    "code that runs first": ("", HEADER.replace("#endif\n", '#include <unistd.h>\n__attribute__((section(".preinit_array"), used)) static void (*const first)(int) = _exit;\n#endif\n'), "section"),
    "code that runs first, by a macro": ("", HEADER.replace("#endif\n", "#define FIRST __attribute__\nFIRST ((constructor)) static inline void first(void) {}\n#endif\n"), "attribute"),
    "a comparison to be inlined": ("", HEADER.replace("#endif\n", "extern inline __attribute__((gnu_inline, always_inline)) int (strcmp)(const char *a, const char *b) { return a != b; }\n#endif\n"), "strcmp"),
    "a comparison of its own": ("", HEADER.replace("#endif\n", "static inline int strcmp(const char *a, const char *b) { return a != b; }\n#endif\n"), "strcmp"),
}  # fmt: skip


@pytest.mark.parametrize("how", READ)
def test_what_is_judged_of_a_header_is_what_the_tests_read(unity, bench, how):
    source, header, said = READ[how]
    flags = [each for each in unity.answer["build"] if each not in ("-pedantic", "-Werror")]
    for build in (unity.answer["build"], flags):
        given = dataclasses.replace(unity, answer={**unity.answer, "build": build})
        judged = judge(given, c(source or SOURCE.replace("2 * x", "x"), header), bench)
        assert judged.verdict not in (Verdict.AC, Verdict.INFRA), judged
    assert said in judged.detail


def test_what_ordinary_answers_in_c_have_is_not_refused(unity, bench):
    header = """#ifndef __F_H__
#define __F_H__
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#define WRONG (-1)
#define LARGER(a, b) ((a) > (b) ? (a) : (b)) /* # 1 "x" */
typedef struct pair { int alias, section, weak[2]; } pair_t;
enum { FEW = 3, MANY = INT_MAX };
static inline int same(int x) { return x; }
__attribute__((format(printf, 1,
                      2), unused)) void note(const char *form, ...);
bool known(uint8_t x);
int twice(int x);
const char *name(int x);
#endif
"""
    source = """#include "f.h"
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define GLUE(a, b) a##b
static const char *const names[] = {"none", "some", "/* asm(\\"nop\\") */"};
static int (*const each[])(int) = {same};
static double table[MANY % 7];
void note(const char *form, ...) { va_list list; va_start(list, form); vprintf(form, list); va_end(list); }
bool known(uint8_t x) { int y = 0; assert(isalpha('a')); sscanf("1", "%d", &y); return x == y && table[0] < sqrt(2); }
__attribute__((noinline)) static int GLUE(dou, ble)(int x) { return __builtin_popcount(1) * 2 * each[0](x); }
int twice(int x) { jmp_buf here; return setjmp(here) || x < 0 ? WRONG : LARGER(double_(x), double_(x)); }
const char *name(int x) { char *copy = malloc(9); strcpy(copy, names[x]); free(copy); return names[x]; }
""".replace("GLUE(dou, ble)", "GLUE(double, _)")
    judged = judge(unity, c(source, header), bench)
    assert judged.verdict is Verdict.AC, judged


def test_headers_of_an_answer_include_each_other(unity, bench):
    files = {
        "f.h": '#pragma once\n#include "more/g.h"\nint twice(int x);\n',
        "more/g.h": '#pragma once\n#include "h.h"\nconst char *name(int x);\n',
        "more/h.h": "#define WRONG -1\n",
        "f.c": SOURCE,
    }
    given = dataclasses.replace(unity, answer={**unity.answer, "files": list(files)})
    assert judge(given, files, bench).verdict is Verdict.AC
    files["more/h.h"] = "#define WRONG -1\n" + _EMPTY
    assert judge(given, files, bench).verdict is Verdict.CE


HEADERS = {
    "an assertion": "#undef TEST_ASSERT_EQUAL_INT\n#define TEST_ASSERT_EQUAL_INT(a, b)\n",
    "a test runner": "#undef RUN_TEST\n#define RUN_TEST(x) Unity.NumberOfTests++\n",
    "a keyword": "#define if while(0) if\n",
    "a library function": "#define strcmp(a, b) 1\n",
    "a digraph": "%:undef TEST_ASSERT_EQUAL_INT\n%:define TEST_ASSERT_EQUAL_INT(a, b)\n",
    "a trigraph": "??=undef TEST_ASSERT_EQUAL_INT\n??=define TEST_ASSERT_EQUAL_INT(a, b)\n",
    "a spliced line": "#un\\\ndef TEST_ASSERT_EQUAL_INT\n#def\\\nine TEST_ASSERT_EQUAL_INT(a, b)\n",
    "a comment between": "#/**/define/**/TEST_ASSERT_EQUAL_INT(a, b)\n",
    "a name for the linker": 'void UnityAssertEqualNumber(long, long, const char *, unsigned, int) __asm__("mine");\n',
    "a pragma": "#pragma redefine_extname strcmp mine\n",
    "a pragma by operator": '_Pragma("redefine_extname strcmp mine")\n',
    "pasted words": "#define GLUE(a, b) a ## b\nstatic inline void f(void) { GLUE(TES, T_PASS)(); }\n",
    "a name of ours": "#define assay_count 1\n",
    "an open condition": "#if 0\n",
    "an open comment": "/*\n",
    "an open function": "static inline void unused(void) {\n",
    "the tests again": '#include "test_f.c"\n',
    "its base file": "#include __BASE_FILE__\n",
}  # fmt: skip


@pytest.mark.parametrize("how", HEADERS)
def test_no_header_changes_what_the_tests_say(unity, bench, how):
    for source in (BAD, BAD + "void mine(void);\nvoid mine(void) {}\n"):
        judged = judge(unity, c(source, HEADER.replace("#endif\n", f"{HEADERS[how]}#endif\n")), bench)
        assert judged.verdict not in (Verdict.AC, Verdict.INFRA), judged


def test_a_header_may_define_what_is_its_own(unity, bench):
    header = HEADER.replace("int twice", '#define LENGTH sizeof("##:##") // TEST_ASSERT\n#pragma once\nint twice')
    assert judge(unity, c(header=header), bench).verdict is Verdict.AC
