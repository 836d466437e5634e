"""What a driver in a box reports, one record per test, and the verdict each record amounts to.

    index status cause cpu_us wall_us memory_kib size\n  and `size` bytes

Reading is strict: indices count up from 0, and the first malformed record ends the list. A verdict is AC only
where a record holds a well-formed value and that value is the expected one. Exit statuses, signals and causes are
consulted only to say how a test that claimed no value failed.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay.errors import InfraFailure
from assay.types import TestVerdict, Verdict
from rewards.sandbox.base import KilledBy, RunResult
from rewards.values import BadValue

READY, NO_PROGRAM = -2, -1
_CUT_CPU, _CUT_WALL, _CUT_SIZE = 1, 2, 3
_HEAD = re.compile(rb"(-?\d{1,9}) (\d{1,9}) ([0-3]) (\d{1,15}) (\d{1,15}) (\d{1,12}) (\d{1,10})\n")
_KILLED = {
    KilledBy.CPU: (Verdict.TLE, "processor time of all tests together"),
    KilledBy.WALL: (Verdict.TLE, "wall time of all tests together"),
    KilledBy.MEMORY: (Verdict.MLE, "memory"),
    KilledBy.OUTPUT: (Verdict.OLE, "too much output"),
}

#: Judges the bytes after "V"; True or False, or BadValue with what was wrong with them.
Judge = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a driver's report, and the bytes a child wrote."""

    index: int
    status: int  #: as wait(2) gives it
    cause: int  #: what the driver cut short: 0 nothing, 1 processor time, 2 wall time, 3 the size of the value
    cpu_s: float
    wall_s: float
    memory_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A driver's whole report: whether it began, whether there was a program, and its records in order."""

    began: bool
    no_program: str | None
    records: tuple[Record, ...]


def read_report(stdout: bytes) -> Report:
    """Split a driver's standard output; what follows the first malformed record is ignored."""
    began, no_program, records, position = False, None, [], 0
    while head := _HEAD.match(stdout, position):
        index, status, cause, cpu_us, wall_us, memory_kib, size = map(int, head.groups())
        data = stdout[head.end() : head.end() + size]
        if len(data) < size:
            break
        position = head.end() + size
        if index == READY and not began:
            began = True
        elif index == NO_PROGRAM and not records:
            no_program = text_of(data)
            break
        elif index == len(records):
            records.append(
                Record(
                    index=index,
                    status=status,
                    cause=cause,
                    cpu_s=cpu_us / 1e6,
                    wall_s=wall_us / 1e6,
                    memory_bytes=memory_kib * 1024,
                    data=data,
                )
            )
        else:
            break
    return Report(began=began, no_program=no_program, records=tuple(records))


def text_of(data: bytes) -> str:
    """The message in a C or E record, for people."""
    try:
        text = json.loads(data[1:])
    except (ValueError, RecursionError):
        return "(unreadable message)"
    return text[:2000] if type(text) is str else "(unreadable message)"


def verdicts(run: RunResult, report: Report, judges: Sequence[Judge]) -> tuple[TestVerdict, ...]:
    """One verdict per judge; tests without a record get the one that says how the run ended."""
    found = [_verdict(record, judge) for record, judge in zip(report.records, judges, strict=False)]
    if len(found) < len(judges):
        found += [_missing(run, report)] * (len(judges) - len(found))
    return tuple(found)


def require_start(run: RunResult, report: Report) -> None:
    """Raise InfraFailure when the driver did not begin: nothing of the answer had run, so it cannot be the reason."""
    if not report.began:
        how = run.killed_by or f"exit {run.exit_code}, signal {run.signal}"
        raise InfraFailure(f"the driver did not start ({how}): {run.stderr[-300:].decode('utf-8', 'replace')}")


def _verdict(record: Record, judge: Judge) -> TestVerdict:
    verdict, detail = _judge(record, judge)
    return TestVerdict(
        verdict=verdict, cpu_s=record.cpu_s, wall_s=record.wall_s, memory_bytes=record.memory_bytes, detail=detail
    )


def _judge(record: Record, judge: Judge) -> tuple[Verdict, str]:
    if record.cause in (_CUT_CPU, _CUT_WALL):
        return Verdict.TLE, "processor time" if record.cause == _CUT_CPU else "wall time"
    if record.cause == _CUT_SIZE:
        return Verdict.OLE, "the value is too large to report"
    if record.data[:1] == b"V":
        try:
            return (Verdict.AC, "") if judge(record.data[1:]) else (Verdict.WA, "another value")
        except BadValue as error:
            return Verdict.WA, str(error)
    if record.data[:1] == b"E":
        text = text_of(record.data)
        return (Verdict.MLE if text.startswith("MemoryError") else Verdict.RE), text
    signalled = record.status & 0x7F
    if signalled == signal.SIGXCPU:
        return Verdict.TLE, "processor time"
    if signalled == signal.SIGXFSZ:
        return Verdict.OLE, "a file grew too large"
    if signalled:
        return Verdict.RE, f"killed by {_signal_name(signalled)}"
    return Verdict.RE, f"left with status {record.status >> 8} before returning a value"


def _missing(run: RunResult, report: Report) -> TestVerdict:
    if run.killed_by is not None:
        verdict, detail = _KILLED[run.killed_by]
        return TestVerdict(verdict=verdict, detail=detail)
    if report.records and report.records[-1].cause in (_CUT_CPU, _CUT_WALL):
        return TestVerdict(verdict=Verdict.TLE, detail="not run: an earlier test ran out of time")
    how = _signal_name(run.signal) if run.signal else f"status {run.exit_code}"
    return TestVerdict(verdict=Verdict.RE, detail=f"the run ended early ({how})")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
