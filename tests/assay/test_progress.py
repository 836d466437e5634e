import io
import time

import pytest

from assay.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_it_says_a_line_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    seen = []
    for item in progress([1, 2, 3, 4], "scoring", stream=out):
        seen.append(item)
        now[0] += 6.0
    assert seen == [1, 2, 3, 4]
    assert out.getvalue().splitlines() == [
        "scoring: 2/4 (50%) 12.0s ~12.0s left",
        "scoring: 4/4 (100%) 24.0s ~0.0s left",
        "scoring: 4/4 (100%) done in 24.0s",
    ]


def test_a_number_of_items_is_counted_by_hand():
    out = io.StringIO()
    with progress(10, "hashing", stream=out, every_s=0.0) as bar:
        bar.advance(4, note="a.bin")
    first, last = out.getvalue().splitlines()
    assert first.startswith("hashing: 4/10 (40%)") and first.endswith("left a.bin")
    assert last.startswith("hashing: 4/10 (40%) done in")


def test_an_error_passes_through_and_is_not_called_done():
    out = io.StringIO()
    with pytest.raises(KeyError):
        for item in progress({"a": 1}, "x", stream=out):
            raise KeyError(item)
    with pytest.raises(KeyError), progress(3, "x", stream=out):
        raise KeyError
    assert "stopped in" in out.getvalue()


def test_an_iterator_without_length_and_an_empty_one():
    out = io.StringIO()
    assert list(progress((i for i in range(3)), "x", stream=out)) == [0, 1, 2]
    assert list(progress([], "y", stream=out)) == []
    assert "x: 3 done" in out.getvalue() and "y: 0/0 done" in out.getvalue()


def test_a_terminal_gets_a_bar():
    out = Terminal()
    assert list(progress(range(3), "[red]scoring", stream=out)) == [0, 1, 2]
    assert "[red]scoring" in out.getvalue() and "3/3" in out.getvalue()
