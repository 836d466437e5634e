"""Messages over a pipe: a JSON header and any number of byte strings, each with its length in front.

Both ends are ours (host, supervisor, and the watcher inside a box), yet lengths are bounded: a watcher lives in the
same box as hostile code, and a length is the one number that could hurt the reader.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any

HEADER_LIMIT = 1 << 20
BLOB_LIMIT = 1 << 30
GONE = b"."  #: after a reply: the box has ended, down to its last process
_LENGTH = struct.Struct("!I")
_WALL = struct.Struct("!d")


class BadFrame(ValueError):
    """The bytes are not a message, or the pipe ended in the middle of one."""


def pack(header: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """One message as bytes."""
    head = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join((_LENGTH.pack(len(head)), head, *blobs))


def unpack(read: Callable[[int], bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """The next message, taken with `read(count)`, which returns exactly `count` bytes or raises EOFError."""
    (size,) = _LENGTH.unpack(read(4))
    if size > HEADER_LIMIT:
        raise BadFrame(f"header of {size} bytes")
    try:
        header = json.loads(read(size))
        sizes = header.pop("blobs")
    except (ValueError, AttributeError, KeyError) as error:
        raise BadFrame(f"header: {error}") from None
    blobs = []
    for length in sizes:
        if type(length) is not int or not 0 <= length <= BLOB_LIMIT:
            raise BadFrame(f"blob of {length!r} bytes")
        blobs.append(read(length))
    return header, blobs


def job(wall_s: float, header: dict[str, Any], blobs: Sequence[bytes]) -> bytes:
    """A job for a supervisor: its wall limit in front, which is all that the supervisor itself reads of it."""
    return _WALL.pack(wall_s) + pack(header, blobs)


def wall_of(read: Callable[[int], bytes]) -> float:
    """The wall limit in front of a job, in seconds."""
    (wall_s,) = _WALL.unpack(read(_WALL.size))
    return float(wall_s)


def reply(read: Callable[[int], bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """A supervisor's reply to a job; when this returns, nothing of the box is left."""
    header, blobs = unpack(read)
    if read(len(GONE)) != GONE:
        raise BadFrame("no end of the box")
    return header, blobs


def take_from(data: bytes) -> Callable[[int], bytes]:
    """A `read` for `unpack` over bytes that are already here."""
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        if position + count > len(data):
            raise BadFrame("ends in the middle")
        position += count
        return data[position - count : position]

    return read


def read_exactly(fd: int, count: int) -> bytes:
    """`count` bytes from a blocking descriptor; EOFError when it ends before."""
    parts = []
    while count:
        part = os.read(fd, min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    """All of `data` to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
