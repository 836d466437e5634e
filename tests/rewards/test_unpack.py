"""Archives of tool-chains come whole into an image, or not at all; what an unpacked program may do, it may still do."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from rewards.languages import LANGUAGES
from rewards.sandbox.image import record_sums, with_sums
from rewards.sandbox.unpack import main


@pytest.fixture()
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "made" / "tool-1.2"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "tool").write_text("#!/bin/sh\necho right\n")
    (folder / "bin" / "tool").chmod(0o755)
    (folder / "README").write_text("about")
    return folder


def packed(tools: Path, to: Path, *, around: bool) -> str:
    """The folder as an archive of the kind its name says, with or without the folder itself."""
    base = tools.parent if around else tools
    if to.suffix == ".zip":
        with zipfile.ZipFile(to, "w") as archive:
            for path in tools.rglob("*"):
                archive.write(path, path.relative_to(base))
    else:
        with tarfile.open(to, "w:xz" if to.suffix == ".xz" else "w:gz") as archive:
            for path in tools.iterdir():
                archive.add(path, path.relative_to(base))
    return to.as_uri()


@pytest.mark.parametrize("name", ["t.tar.gz", "t.tar.xz", "t.zip"])
@pytest.mark.parametrize("around", [True, False])
def test_what_is_in_the_archive_becomes_the_place(tools: Path, tmp_path: Path, name: str, around: bool):
    root = tmp_path / "root"
    url = packed(tools, tmp_path / name, around=around)
    assert main([str(root), url, "/usr/local/tool"]) == 0
    assert (root / "usr/local/tool/README").read_text() == "about"
    assert subprocess.check_output([root / "usr/local/tool/bin/tool"]) == b"right\n"
    assert [path.name for path in (root / "usr/local").iterdir()] == ["tool"]


def test_what_cannot_be_had_is_left_out_and_said_and_the_next_one_comes(tools: Path, tmp_path: Path, capsys):
    root = tmp_path / "root"
    (tmp_path / "broken.tar.gz").write_bytes(b"no archive")
    pairs = [
        *((tmp_path / "absent.tar.gz").as_uri(), "/usr/local/absent"),
        *((tmp_path / "broken.tar.gz").as_uri(), "/usr/local/broken"),
        *(packed(tools, tmp_path / "t.tar.gz", around=True), "/usr/local/tool"),
    ]
    assert main([str(root), *pairs]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["/usr/local/absent", "/usr/local/broken", "/usr/local/tool"]
    assert ["left out" in line for line in said] == [True, True, False]
    assert [path.name for path in (root / "usr/local").iterdir()] == ["tool"]


def test_every_language_that_no_package_has_names_its_archive():
    for row in LANGUAGES.values():
        if row.tools and not row.package:
            url, place = row.download
            assert any(tool.startswith(f"{place}/") for tool in row.tools), row.name
            assert url.startswith("https://")


@pytest.mark.parametrize("name", ["t.tar.gz", "t.tar.xz"])
def test_an_archive_that_ends_early_is_left_out(tools: Path, tmp_path: Path, name: str, capsys):
    url = packed(tools, tmp_path / name, around=True)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    assert main([str(tmp_path / "root"), url, "/usr/local/tool"]) == 0
    assert "left out" in capsys.readouterr().out
    assert not (tmp_path / "root/usr/local/tool").exists()


# Sums


def test_an_archive_with_another_sum_is_left_out_and_one_with_its_own_is_not(tools: Path, tmp_path: Path, capsys):
    url = packed(tools, tmp_path / "t.tar.gz", around=True)
    right = hashlib.sha256((tmp_path / "t.tar.gz").read_bytes()).hexdigest()
    wrong = "0" * 64
    pairs = [f"{url}#sha256={wrong}", "/usr/local/wrong", f"{url}#sha256={right}", "/usr/local/right"]
    assert main([str(tmp_path / "root"), *pairs]) == 0
    assert [path.name for path in (tmp_path / "root/usr/local").iterdir()] == ["right"]
    left_out, unpacked = capsys.readouterr().out.splitlines()
    assert f"its sha256 is {right}, not {wrong}" in left_out
    assert unpacked == f"/usr/local/right: unpacked {url} sha256={right}"


def test_what_the_first_build_got_is_what_later_ones_must_get(tools: Path, tmp_path: Path, capsys):
    file, archive = tmp_path / "data" / "archives.sha256", tmp_path / "t.tar.gz"
    url = packed(tools, archive, around=True)
    archives = (url, "/usr/local/tool")

    def build() -> list[str]:
        main([str(tmp_path / "root"), *with_sums(archives, file)])
        return capsys.readouterr().out.splitlines()

    assert record_sums([*build(), "noise"], with_sums(archives, file), file) == [url]
    assert file.read_text() == f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {url}\n"
    assert record_sums(build(), with_sums(archives, file), file) == [] and len(file.read_text().splitlines()) == 1
    (tools / "README").write_text("another")
    packed(tools, archive, around=True)
    assert "left out" in build()[0] and record_sums(build(), with_sums(archives, file), file) == []
    file.write_text("")
    assert "unpacked" in build()[0]


def test_sums_in_the_table_are_sums_and_are_not_replaced_by_recorded_ones(tmp_path: Path):
    rows = [row for row in LANGUAGES.values() if row.archive]
    assert all(re.fullmatch(r"[0-9a-f]{64}", row.sha256) for row in rows if row.sha256)
    assert {"zig", "julia", "dart", "powershell"} <= {row.name for row in rows if row.sha256}
    (tmp_path / "sums").write_text("".join(f"{'0' * 64}  {row.archive.split()[0]}\n" for row in rows))
    for row in rows:
        address, place = with_sums(row.download, tmp_path / "sums")
        assert address.endswith(f"#sha256={row.sha256 or '0' * 64}") and place == row.download[1]
