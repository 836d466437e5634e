"""`slow_link.py A B SECONDS`: every frame that comes in at link A goes out at link B so much later, and back.

Kernels without netem have no delay of their own. Frames travel with the header of virtio, as large as TCP makes them
and without the checksum that a veth leaves for later.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from queue import SimpleQueue

ALL, PACKET, VNET_HDR, OUTGOING = 3, 263, 15, 4  #: of linux/if_ether.h and if_packet.h


def link(name: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    made.setsockopt(PACKET, VNET_HDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    made.bind((name, ALL))
    return made


def relay(source: socket.socket, sink: socket.socket, seconds: float) -> None:
    late: SimpleQueue[tuple[float, bytes]] = SimpleQueue()

    def send() -> None:
        while True:
            due, frame = late.get()
            time.sleep(max(0.0, due - time.monotonic()))
            with contextlib.suppress(OSError):  # a cable that is out loses it
                sink.send(frame)

    threading.Thread(target=send, daemon=True).start()
    while True:
        try:
            frame, sender = source.recvfrom(1 << 17)
        except OSError:
            continue
        if sender[2] != OUTGOING:
            late.put((time.monotonic() + seconds, frame))


if __name__ == "__main__":
    one, other, delay_s = link(sys.argv[1]), link(sys.argv[2]), float(sys.argv[3])
    threading.Thread(target=relay, args=(other, one, delay_s), daemon=True).start()
    print("ready", flush=True)
    relay(one, other, delay_s)
