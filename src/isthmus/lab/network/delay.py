"""The process that delays packets: `python -m isthmus.lab.network.delay FILE`, until it is ended.

Packets wait in the kernel (NFQUEUE); this process sees their numbers only and lets them go,
many with one word, when their time is over. FILE is JSON: a list of {"namespace", "queue", "delay_seconds",
"jitter_seconds"}; SIGHUP makes it read anew. It prints `ready` when every queue is its own. When it dies, packets pass
without delay (the rule's bypass).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from pathlib import Path

from isthmus.lab.namespaces import inside

# <linux/netfilter/nfnetlink_queue.h>
_NETLINK_NETFILTER = 12
_SUBSYSTEM_QUEUE = 3
_MESSAGE_VERDICT_BATCH, _MESSAGE_CONFIG = 3, 2
_CFG_COMMAND, _CFG_PARAMS, _CFG_QUEUE_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_COMMAND_BIND, _COPY_META = 1, 1
_FLAG_FAIL_OPEN, _FLAG_TRAINS = 1, 4  # NFQA_CFG_F_GSO: what came in a train stays one
_VERDICT_HEADER = 2
_ACCEPT = 1
_SO_RCVBUFFORCE = 33
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5
_PR_SET_TIMERSLACK = 29
_LONGEST_QUEUE = 60_000
_PACKET_NUMBER = struct.Struct(">I").unpack_from
_ID_OFFSET = 24  # nlmsghdr 16, nfgenmsg 4, head of the first attribute (the packet header) 4
_AT_ONCE = 1024
_IDLE_SECONDS = 0.5
_BATCH_SECONDS = 0.0005
"""How long packets gather while many come: to wake for each of them would take all of a processor."""
_MANY = 4
"""Packets of one look from which on the next ones are gathered."""


class Queue:
    """One queue of one namespace: packets leave in the order in which they came."""

    def __init__(self, namespace: str, number: int) -> None:
        """Take the queue; raises OSError when another process has it."""
        self.number = number
        self.delay_seconds = 0.0
        self.jitter_seconds = 0.0
        self.waiting: deque[tuple[float, int]] = deque()
        with inside(namespace):
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self.socket.bind((0, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        self._configure(_attribute(_CFG_COMMAND, struct.pack(">BBH", _COMMAND_BIND, 0, 0)))
        self._configure(_attribute(_CFG_PARAMS, struct.pack(">IB", 0, _COPY_META)))
        self._configure(_attribute(_CFG_QUEUE_MAXLEN, struct.pack(">I", _LONGEST_QUEUE)))
        flags = struct.pack(">I", _FLAG_FAIL_OPEN | _FLAG_TRAINS)
        self._configure(_attribute(_CFG_MASK, flags) + _attribute(_CFG_FLAGS, flags))
        self.socket.setblocking(False)

    def receive(self, gathered_seconds: float) -> int:
        """Note the packets that came and tell how many; those of one look share their due time.

        They came within the last `gathered_seconds`, on the average half of it ago.
        """
        due = time.monotonic() + self.delay_seconds - gathered_seconds / 2
        if self.jitter_seconds:
            due += random.uniform(-self.jitter_seconds, self.jitter_seconds)
        if self.waiting:
            due = max(due, self.waiting[-1][0])
        receive, note, number = self.socket.recv, self.waiting.append, _PACKET_NUMBER
        before = len(self.waiting)
        with contextlib.suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                note((due, number(receive(256), _ID_OFFSET)[0]))
        return len(self.waiting) - before

    def release(self, now: float) -> None:
        """Let go the packets whose time is over: one verdict for all up to the last."""
        last = None
        while self.waiting and self.waiting[0][0] <= now:
            last = self.waiting.popleft()[1]
        if last is not None:
            verdict = _attribute(_VERDICT_HEADER, struct.pack(">II", _ACCEPT, last))
            self.socket.send(self._message(_MESSAGE_VERDICT_BATCH, verdict, 1))

    def _configure(self, body: bytes) -> None:
        self.socket.send(self._message(_MESSAGE_CONFIG, body, 1 | 4))
        (error,) = struct.unpack_from("=i", self.socket.recv(8192), 16)
        if error:
            raise OSError(-error, os.strerror(-error))

    def _message(self, kind: int, body: bytes, flags: int) -> bytes:
        head = struct.pack("=IHHII", 20 + len(body), (_SUBSYSTEM_QUEUE << 8) | kind, flags, 0, 0)
        return head + struct.pack(">BBH", 0, 0, self.number) + body


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _set_delays(queues: dict[tuple[str, int], Queue], file: Path) -> None:
    for entry in json.loads(file.read_text(encoding="utf-8")):
        key = (entry["namespace"], entry["queue"])
        queue = queues.get(key)
        if queue is None:
            queue = queues[key] = Queue(*key)
        queue.delay_seconds, queue.jitter_seconds = entry["delay_seconds"], entry["jitter_seconds"]


def serve(file: Path) -> None:
    """Delay packets until a signal ends the process."""
    queues: dict[tuple[str, int], Queue] = {}
    changed = [True]
    signal.signal(signal.SIGHUP, lambda _number, _frame: changed.append(True))
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(5))
    told = False
    gathered = 0.0
    while True:
        if changed:
            changed.clear()
            _set_delays(queues, file)
            by_descriptor = {queue.socket.fileno(): queue for queue in queues.values()}
            descriptors = list(by_descriptor)
            if not told:
                print("ready", flush=True)
                told = True
        now = time.monotonic()
        wake = now + _IDLE_SECONDS
        # What is due within half the time for which packets gather goes now: on the average none waits longer.
        early = now + gathered / 2
        for queue in by_descriptor.values():
            if queue.waiting:
                if queue.waiting[0][0] <= early:
                    queue.release(early)
                if queue.waiting and queue.waiting[0][0] < wake:
                    wake = queue.waiting[0][0]
        try:
            if gathered:
                time.sleep(_BATCH_SECONDS)
            readable = select.select(descriptors, (), (), 0.0 if gathered else max(0.0, wake - time.monotonic()))[0]
        except InterruptedError:
            continue
        came = sum(by_descriptor[descriptor].receive(gathered) for descriptor in readable)
        gathered = _BATCH_SECONDS if came >= _MANY or (gathered and came) else 0.0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
