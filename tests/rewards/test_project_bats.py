"""Verifier "project": scripts that their tests source, and runners whose status is believed."""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import dataclasses

import pytest

from assay.errors import DataError, EnvironmentProblem
from assay.types import Task, Verdict
from rewards.bench import Bench
from rewards.sandbox.base import Limits
from rewards.sandbox.fake import FakeSandbox, ended
from rewards.verifiers.project import read
from tests import projects
from tests.projects import judge, task

HELPER = 'assert_output() {\n    [[ $output == "$1" ]] || { echo "got $output" >&2; return 1; }\n}\n'
SOURCED = """load helper
setup() { source twice.sh; }

@test "a word" {
    run twice ab
    assert_output "abab"
}

@test "another" {
    run twice c
    [ "$status" -eq 0 ]
    [ "$output" = "cc" ]
}
"""
INSIDE = """load helper
. ./twice.sh

is_odd() { (( $1 % 2 == 1 )); }

@test "by name" {
    local list=(1 2 3 5) expected="1 3 5"
    local result=()
    keep is_odd list result
    [ "${result[*]}" = "$expected" ]
    [ "${#list[@]}" -eq 4 ]
}

@test "a state" {
    deposit 5
    deposit "$(deposit 1; echo 7)"
    [ "$balance" -eq 12 ]
    deposit 0 || failed=1
    [ "$failed" = 1 ]
}

@test "a map" {
    declare -A colours=([red]=1)
    paint colours blue 2
    [[ ${colours[blue]} == 2 && ${colours[red]} == 1 ]]
    echo word | { read_it; [[ $word == word ]]; }
}

@test "leaving" {
    run leave 3
    [ "$status" -eq 3 ]
}
"""
RIGHT = """declare -i balance=0
keep() { local -n from=$2 to=$3; local each; for each in "${from[@]}"; do "$1" "$each" && to+=("$each"); done; return 0; }
deposit() { (( $1 > 0 )) || return 1; balance+=$1; }
paint() { local -n map=$1; map[$2]=$3; }
read_it() { IFS= read -r word; }
leave() { exit "$1"; }
"""


def bats(tests: str = SOURCED) -> Task:
    return projects.bats(tests, HELPER)


# --- bats


@pytest.mark.parametrize("tests", [SOURCED, SOURCED.replace("source twice.sh", 'source "$BATS_TEST_DIRNAME/twice.sh"'), SOURCED.replace("source twice.sh", "load twice.sh")])  # fmt: skip
def test_a_script_that_its_tests_source_passes(bench, tests):
    judged = judge(bats(tests), 'twice() { echo "$1$1"; }', bench)
    assert judged.verdict is Verdict.AC, judged


def test_what_a_sourced_script_does_to_variables_is_seen(bench, nothing_left):
    judged = judge(bats(INSIDE), RIGHT, bench)
    assert [test.verdict for test in judged.tests] == [Verdict.AC] * 4, judged
    for right, wrong in (("to+=", "to=(1); : to+="), ("+=$1", "+=1"), ("map[$2]=$3", "map=()"), ("exit", "return 4;")):
        assert judge(bats(INSIDE), RIGHT.replace(right, wrong), bench).verdict is Verdict.WA, right


_BAD = '\ntwice() { echo "$1"; }'
_SAID = "BATS_TEST_COMPLETED=1\nexit 0"
_TOLD = '; printf "ok 1 %s\\n" "$BATS_TEST_DESCRIPTION" >&3; '
SCRIPTS = {
    "a variable by its prefix": f'twice() {{ :; }}\nfor v in ${{!assay_*}}; do printf -v "$v" 1; done\n{_SAID}',
    "a variable by its prefix in a trap": f"twice() {{ :; }}\ntrap 'for v in ${{!assay_*}}; do printf -v \"$v\" 1; done; {_SAID}' DEBUG",
    "a bracket of its own": "[() { :; }" + _BAD,
    "a test of its own": "test() { :; }\nreadonly -f test" + _BAD,
    "no commands at all": "shopt -s extdebug\ntrap false DEBUG" + _BAD,
    "every command returns": "shopt -s extdebug\nset -T\ntrap '(exit 2)' DEBUG" + _BAD,
    "no errors": "set +eET\ntrap - ERR EXIT DEBUG\nset +e" + _BAD,
    "no errors, then errors": 'twice() { set +e; echo "$1"; trap "set -e" DEBUG; }',
    "the token from a function's text": f'twice() {{ :; }}\nt=$(declare -f | sed -n "s/.*printf .# %s.n. .\\([0-9a-f]*\\).*/\\1/p"){_TOLD}printf "# %s\\n" "$t" >&3\n{_SAID}',
    "the expected from a function's text": 'twice() { declare -f | sed -n "s/.*assert_output \\"\\(.*\\)\\";*/\\1/p" | head -1; }',
    "posix": "set -o posix\nPOSIXLY_CORRECT=1\nalias run=:\nshopt -s expand_aliases" + _BAD,
    "disabled": "enable -n [ test printf" + _BAD,
    "a builtin of its own": "builtin() { :; }\ncommand() { :; }\nprintf() { echo '#'; }\nreadonly -f builtin command printf" + _BAD,
    "output that stays": "declare -r output=abab" + _BAD,
    "the helper": "assert_output() { :; }\nreadonly -f assert_output" + _BAD,
    "a trap at the end": f"trap 'for v in ${{!assay_*}}; do printf -v \"$v\" 1; done; bats_exit_trap' EXIT\n{_SAID}",
    "leaves when called": "twice() { exit 0; }\nteardown() { :; }",
    "another shell": "exec true",
    "its parent's files": f'twice() {{ cat /proc/$PPID/fd/* 2>/dev/null | head -c 100; }}{_TOLD}{_SAID}',
}  # fmt: skip


@pytest.mark.parametrize("how", SCRIPTS)
def test_no_script_that_is_sourced_changes_what_its_tests_say(bench, how):
    judged = judge(bats(), SCRIPTS[how], bench)
    assert judged.verdict not in (Verdict.AC, Verdict.INFRA), judged
    top = judge(bats(SOURCED.replace("setup() { source twice.sh; }", "source twice.sh")), SCRIPTS[how], bench)
    assert top.verdict not in (Verdict.AC, Verdict.INFRA), top


@pytest.mark.parametrize(
    "script",
    [
        "keep() { expected=''; }",
        "keep() { expected=; result=(); }\nexpected=''",
        "keep() { printf -v 'result[$(echo)]' x; eval 'unset result; declare -gA result=([\\$(kill -9 \\$\\$)]=1)'; }",
        "keep() { :; }\n[() { :; }",
        "keep() { BATS_TEST_COMPLETED=1; PATH=/nowhere; IFS=x; result=(1 3 5 7); }",
        "keep() { printf 'end\\0end\\0000\\0' >&8; printf 'end\\0end\\0000\\0' > /proc/$PPID/fd/8; exit 0; }",
    ],
)
def test_what_a_sourced_script_does_to_the_tests_own_variables_is_not(bench, script):
    one = INSIDE[: INSIDE.index('@test "a state"')]
    judged = judge(bats(one), script, bench)
    assert judged.verdict not in (Verdict.AC, Verdict.INFRA), judged
    keep = RIGHT.splitlines()[1]
    assert judge(bats(one), keep, bench).verdict is Verdict.AC


# --- status alone


SHELL = (
    'set -e\nout=$(/usr/bin/python3 add.py 2 3)\n[ "$out" = 5 ]\nout=$(/usr/bin/python3 add.py 4 5)\n[ "$out" = 9 ]\n'
)
EXPECTED = "import subprocess, sys\nfor at in 2, 3:\n    out = subprocess.run([sys.executable, 'add.py', '2', str(at)], capture_output=True, text=True).stdout\n    assert out == open(f'wanted/{at}/sum.txt').read(), out\n"
ADD = "import sys\nprint(int(sys.argv[1]) + int(sys.argv[2]))\n"


def status(given: dict[str, str], run: list[str], **more) -> Task:
    return task({"language": "python", "files": ["add.py"], "given": given, "run": run, "report": "exit", **more})


@pytest.fixture
def roomy(bench):
    return dataclasses.replace(bench, limits=dataclasses.replace(bench.limits, cpu_s=3.0, wall_s=10.0))


@pytest.mark.parametrize(
    "attack",
    [
        "open('run.sh', 'r+').write('\\nexit 0' * 1000)",
        "import os\nos.remove('run.sh'); open('run.sh', 'w').write('exit 0')",
        "import os\nos.rename('run.sh', 'old.sh'); open('run.sh', 'w').write('exit 0')",
        "import os\nopen('new.sh', 'w').write('exit 0'); os.replace('new.sh', 'run.sh')",
        "import os\nos.chmod('run.sh', 0o777); open('run.sh', 'w').write('exit 0')",
        "import os\nopen(f'/proc/{os.getppid()}/fd/255', 'w').write('\\nexit 0' * 1000)",
    ],
)
def test_an_answer_cannot_write_its_runner(roomy, attack):
    given = status({"run.sh": SHELL}, ["/bin/bash", "run.sh"])
    tried = f"try:\n    exec({attack!r})\nexcept Exception: pass\n"
    assert judge(given, tried + ADD, roomy).verdict is Verdict.AC
    assert judge(given, tried + "print(7)\n", roomy).verdict is Verdict.WA


@pytest.mark.parametrize(
    "attack",
    [
        "open('wanted/2/sum.txt', 'w').write('7\\n')",
        "import os\nos.rename('wanted/2', 'wanted/4'); os.mkdir('wanted/2'); open('wanted/2/sum.txt', 'w').write('7\\n')",
        "import os\nos.rename('wanted', 'old'); os.makedirs('wanted/2'); open('wanted/2/sum.txt', 'w').write('7\\n')",
        "import shutil\nshutil.rmtree('wanted')",
    ],
)
def test_an_answer_cannot_write_what_its_runner_reads(roomy, attack, nothing_left):
    given = {"run.py": EXPECTED, "wanted/2/sum.txt": "4\n", "wanted/3/sum.txt": "5\n"}
    tried = f"try:\n    exec({attack!r})\nexcept Exception: pass\n"
    assert judge(status(given, ["{python}", "run.py"]), tried + ADD, roomy).verdict is Verdict.AC
    assert judge(status(given, ["{python}", "run.py"]), tried + "print(7)\n", roomy).verdict is Verdict.WA


def test_files_beside_those_that_are_fixed_can_be_written(roomy):
    given = {"run.py": EXPECTED, "wanted/2/sum.txt": "4\n", "wanted/3/sum.txt": "5\n"}
    program = f"import os\nos.makedirs('mine/x')\nopen('wanted/mine.txt', 'w').write('1')\nopen('add.txt', 'w').write('1')\n{ADD}"
    again = program.replace("os.makedirs('mine/x')", "os.makedirs('mine/x', exist_ok=True)")
    assert judge(status(given, ["{python}", "run.py"]), again, roomy).verdict is Verdict.AC


_HERE = "import sys\nsys.path.insert(0, '.')\n"
INSIDE_THE_RUNNER = {
    "an import": _HERE + "import add\nassert add.add(2, 3) == 5\n",
    "an import behind a look at the text": _HERE + "assert 'def add' in open('add.py').read()\nfrom add import add\nassert add(2, 3) == 5\n",
    "an import behind a try": _HERE + "import subprocess\nif subprocess.run([sys.executable, '-c', 'import add; print(1)'], capture_output=True).stdout != b'1\\n': sys.exit('x')\nimport add\nassert add.add(2, 3) == 5\n",
    "a name at run time": _HERE + "import importlib\nadd = importlib.import_module('a' + 'dd')\nassert add.add(2, 3) == 5\n",
    "its text": "space = {}\nexec(open('add.py').read(), space)\nassert space['add'](2, 3) == 5\n",
    "a child that asserts": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import add; assert add.add(2, 3) == 5'], check=True)\n",
}  # fmt: skip


@pytest.mark.parametrize("how", INSIDE_THE_RUNNER)
def test_a_runner_that_takes_the_answer_into_its_process_is_no_data(how):
    with pytest.raises(DataError, match="into its own process"):
        read(status({"run.py": INSIDE_THE_RUNNER[how]}, ["{python}", "run.py"]))


def test_what_an_answer_is_written_in_is_told_by_its_files(roomy):
    inside = {
        "run.py": _HERE
        + "for name in ['add']:\n    text = open(name + '.py').read()\n    import code\n    code.InteractiveInterpreter().runsource(text, '', 'exec')\n"
    }
    for language in (["python", "bash"], ["bash", "python"], "python"):
        with pytest.raises(DataError, match="only leaves with status 0"):
            judge(status(inside, ["{python}", "run.py"], language=language), "print()\n", roomy)
    looks = {"run.py": inside["run.py"].replace("    import code", "    assert 'def add' in text\n    import code")}
    given = dataclasses.replace(
        status(looks, ["{python}", "run.py"]), reference="```python\ndef add(a, b): return a + b\n```"
    )
    with pytest.raises(DataError, match="only leaves with status 0"):
        judge(given, "import os\ndef add(a, b): pass\nos._exit(0)\n", roomy)
    with pytest.raises(DataError, match="suffix"):
        read(
            task(
                {
                    "language": "python",
                    "files": ["add.py", "add.toml"],
                    "given": {"run.py": ""},
                    "run": ["{python}", "run.py"],
                    "report": "exit",
                }
            )
        )


@pytest.mark.parametrize(
    ("files", "given", "run"),
    [
        (["add.sh"], {"run.sh": "set -e\n. ./add.sh\n[ $(add 2 3) = 5 ]\n"}, ["/bin/bash", "run.sh"]),
        (["add.rb"], {"run.rb": "require_relative 'add'\nabort unless add(2, 3) == 5\n"}, ["/usr/bin/ruby", "run.rb"]),
        (["add.js"], {"run.js": "const { add } = require('./add');\nif (add(2, 3) != 5) process.exit(1);\n"}, ["/usr/bin/node", "run.js"]),
        (["add.py"], {"run.sh": "python3 -c 'import add; assert add.add(2, 3) == 5'\n"}, ["/bin/bash", "run.sh"]),
        (["add.sh"], {"x.txt": ""}, ["/bin/bash", "-c", "source ./add.sh; [ $(add 2 3) = 5 ]"]),
    ],
)  # fmt: skip
def test_other_languages_load_as_well(files, given, run):
    with pytest.raises(DataError, match="into its own process"):
        read(task({"language": "bash", "files": files, "given": given, "run": run, "report": "exit"}))
    record = {"language": "bash", "files": files, "given": {"run.sh": f"# source add\nfor x in 1; do ./{files[0]} 2 3; done\n"}, "run": ["/bin/bash", "run.sh"], "report": "exit"}  # fmt: skip
    assert read(task(record)).files == tuple(files)


MAIN = '#include "f.h"\nint main(void) { return twice(7) != 14; }\n'
OWN = '#include <stdio.h>\n#include <stdlib.h>\nint main(int c, char **v) { printf("%d\\n", c * atoi(v[1])); return 0; }\n'
BUILD = ["/usr/bin/gcc", "-o", "tests.out", "f.c"]


def test_a_program_in_c_is_a_process_of_its_own_or_no_data(roomy):
    more = {"build": BUILD, "artefact": "tests.out", "run": ["/bin/bash", "run.sh"], "report": "exit"}
    own = {"language": "c", "files": ["f.c"], "given": {"run.sh": "[ $(./tests.out 7) = 14 ]\n"}, "beside": ["run.sh"]}
    given = task({**own, **more})
    assert judge(given, OWN, roomy).verdict is Verdict.AC
    assert judge(given, OWN.replace("c *", "3 *"), roomy).verdict is Verdict.WA
    assert judge(given, "int main(void) { return 0; }", roomy).verdict is Verdict.WA
    linked = {**own, "given": {"main.c": MAIN, "f.h": "int twice(int x);\n", "run.sh": "./tests.out\n"}}
    with pytest.raises(DataError, match="linked with the answer"):
        read(task({**linked, **more, "build": [*BUILD, "main.c"]}))
    hidden = {**linked, "given": {"main.inc": MAIN, "f.h": "int twice(int x);\n", "run.sh": "./tests.out\n"}}
    hidden |= {**more, "build": [*BUILD, "-x", "c", "main.inc"]}
    with pytest.raises(DataError, match="can be built"):
        judge(task(hidden), '#include "f.h"\n#include <stdlib.h>\nint twice(int x) { exit(x & 0); }', roomy)
    with pytest.raises(DataError, match="only leaves with status 0"):
        good = '```c\n#include "f.h"\nint twice(int x) { return 2 * x; }\n```'
        judge(dataclasses.replace(task(hidden), reference=good), "int x;", roomy)


def test_tests_of_bats_may_do_what_they_like_themselves(bench):
    tests = 'load helper\nhelp() { :; }\n@test "one" {\n    help() { echo abab; }\n    set +e\n    source twice.sh\n    run twice ab\n    assert_output "$(help)"\n}\n'
    assert judge(bats(tests), 'twice() { echo "$1$1"; }', bench).verdict is Verdict.AC
    assert judge(bats(tests), 'twice() { echo "$1"; }', bench).verdict is Verdict.WA


@pytest.mark.parametrize("how", ["a bracket of its own", "no errors", "no commands at all", "output that stays"])
def test_the_commonest_assertion_is_the_shells_own(bench, how):
    head, _, other = SOURCED.partition('@test "a word"')
    tests = head + other[other.index('@test "another"') :]
    assert judge(bats(tests), 'twice() { echo "$1$1"; }', bench).verdict is Verdict.AC
    assert judge(bats(tests), SCRIPTS[how].replace("abab", "cc"), bench).verdict is Verdict.WA


def test_a_tier_that_cannot_keep_a_runner_from_its_answer_judges_no_status():
    """There an answer would write the runner, and believe itself."""
    given = {"run.sh": "./add.py 2 3 | grep -q 5\n"}
    box = FakeSandbox([ended()])
    with pytest.raises(EnvironmentProblem, match=r"can rewrite on tier 'fake': set rewards.sandbox.tier=local"):
        judge(status(given, ["/bin/bash", "run.sh"]), "print(5)", Bench(sandbox=box, limits=Limits()))
    assert not box.jobs
