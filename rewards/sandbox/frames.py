"""Messages over a pipe: a header and any number of byte strings, each with its length in front.

Both ends are ours (host, supervisor, and the watcher inside a box), yet what comes from a box is JSON with bounded
lengths: a watcher lives in the same box as hostile code, and a length is the one number that could hurt the reader.
What goes into a box is the host's own word, and marshalled: a fork takes it apart with fewer of its pages touched.
"""

from __future__ import annotations

import json
import marshal
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any

HEADER_LIMIT = 1 << 20
BLOB_LIMIT = 1 << 30
READY = b"+"  #: after a job: what its header names is there
GONE = b"."  #: after a reply: the box has ended, down to its last process
_LENGTH = struct.Struct("!I")
_JOB = struct.Struct("!dI")


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
    """A job for a supervisor: its wall limit in front, which is all that the supervisor itself reads of it.

    `READY` has to follow: a watcher is being made meanwhile.
    """
    head = marshal.dumps((header, [len(blob) for blob in blobs]), 4)
    return b"".join((_JOB.pack(wall_s, len(head)), head, *blobs))


def wall_of(fd: int) -> tuple[float, int]:
    """What is in front of a job: its wall limit in seconds, and how many bytes of header follow."""
    wall_s, size = _JOB.unpack(read_exactly(fd, _JOB.size))
    return wall_s, size


def rest_of(fd: int, size: int) -> tuple[dict[str, Any], list[bytes]]:
    """The rest of a job, of which `size` bytes are header, once the host is ready."""
    header, sizes = marshal.loads(read_exactly(fd, size))
    blobs = [read_exactly(fd, length) for length in sizes]
    read_exactly(fd, len(READY))
    return header, blobs


def await_end(read: Callable[[int], bytes]) -> None:
    """What follows a reply, of which `unpack` took the rest; when this returns, nothing of the box is left."""
    if read(len(GONE)) != GONE:
        raise BadFrame("no end of the box")


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
    parts, left = [], count
    while left:
        part = os.read(fd, min(left, 1 << 20))
        if len(part) == count:
            return part
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    """All of `data` to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
