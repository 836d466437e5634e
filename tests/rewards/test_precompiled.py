"""Precompiled headers: made once, used where they fit, and never what makes a program compile."""

from __future__ import annotations

import os

import pytest

from rewards import building
from rewards.bench import Bench
from rewards.languages import find
from rewards.precompiled import command, shell_line
from rewards.sandbox.base import Job, Limits
from rewards.sandbox.local import LocalSandbox

CPP = find("cpp")
USES = "#include <bits/stdc++.h>\nint main() { std::map<int, int> m; std::cout << m.size() + 7; }\n"
LACKS = '#include <cstdio>\nint main() { std::map<int, int> m; std::printf("%zu", m.size()); }\n'


def test_the_command_has_the_flags_of_the_row_since_a_header_fits_no_others():
    made = command(CPP, "a.hpp", "a.gch")
    plain = CPP.compile_argv()
    assert made[: plain.index("-o")] == plain[: plain.index("-o")]
    assert made[-5:] == ("-x", "c++-header", "-o", "a.gch", "a.hpp")
    assert "/precompiled/bits/stdc++.h.gch" in shell_line(CPP)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        with LocalSandbox() as sandbox:
            if not sandbox.has(CPP.compile[0]):
                pytest.skip("no g++ here")
            yield Bench(sandbox=sandbox, limits=Limits(cpu_s=4, wall_s=15))


@pytest.mark.sandbox
def test_it_is_made_with_the_first_program_that_includes_it_and_then_used(bench: Bench):
    shelf = bench.sandbox.precompiled
    assert not list(shelf.rglob("*.gch"))
    with pytest.raises(building.CompileError):
        building.build(bench, CPP, LACKS)
    assert not list(shelf.rglob("*.gch")), "a program that does not include it"
    files = building.build(bench, CPP, USES)
    assert building.run(bench, CPP, files, bench.limits).stdout == b"7"
    made = list(shelf.rglob("*.gch"))
    assert len(made) == 2 and made[0].samefile(made[1]) and made[0].stat().st_size > 10_000_000
    # -H names what a compiler read: "!" marks a precompiled header
    argv = CPP.compile_argv(flags=("-H",))
    read = bench.sandbox.run(Job(argv=argv, files={CPP.source: USES.encode()}, limits=CPP.compile_limits))
    assert read.ok and b"! /precompiled/bits/stdc++.h.gch" in read.stderr


@pytest.mark.sandbox
def test_a_program_that_lacks_its_include_still_does_not_compile(bench: Bench):
    building.build(bench, CPP, USES)
    with pytest.raises(building.CompileError, match="map"):
        building.build(bench, CPP, LACKS)


@pytest.mark.sandbox
@pytest.mark.parametrize("program", [f"{USES}#include <bits/stdc++.h>\n", f"#include <vector>\n{USES}"])
def test_it_may_be_included_twice_or_late(program: str, bench: Bench):
    """What a task's prompt includes, an answer includes again."""
    building.build(bench, CPP, USES)
    files = building.build(bench, CPP, program)
    assert building.run(bench, CPP, files, bench.limits).stdout == b"7"


@pytest.mark.sandbox
def test_no_program_can_change_it(bench: Bench):
    building.build(bench, CPP, USES)
    code = (
        "import os\nfor name in ('x', 'bits/stdc++.h.gch'):\n"
        "    try:\n        open('/precompiled/' + name, 'r+' if name != 'x' else 'w'); print('open')\n"
        "    except OSError as e:\n        print(e.errno)\n"
    )
    python = find("python")
    files = {python.source: code.encode()}
    refused = [b"30", b"30" if os.getuid() else b"13"]  # by root, programs run as another user
    assert building.run(bench, python, files, bench.limits).stdout.split() == refused


@pytest.mark.sandbox
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with LocalSandbox() as sandbox:
        assert sandbox.precompiled is None
        assert building.build(Bench(sandbox=sandbox, limits=Limits()), CPP, USES)[CPP.artefact]


@pytest.mark.sandbox
def test_a_strict_umask_of_whoever_starts_it_harms_neither_boxes_nor_compilers(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tmp_path.chmod(0o755)
    before = os.umask(0o077)
    try:
        with LocalSandbox() as sandbox:
            bench = Bench(sandbox=sandbox, limits=Limits(cpu_s=4, wall_s=15))
            for program in (USES, USES.replace("7", "8")):  # the second one finds the header made
                files = building.build(bench, CPP, program)
                assert building.run(bench, CPP, files, bench.limits).ok
    finally:
        os.umask(before)


@pytest.mark.sandbox
def test_a_lock_that_cannot_be_had_is_done_without(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with LocalSandbox() as sandbox:
        sandbox.precompiled.with_suffix(".lock").mkdir()
        assert building.build(Bench(sandbox=sandbox, limits=Limits()), CPP, USES)[CPP.artefact]
