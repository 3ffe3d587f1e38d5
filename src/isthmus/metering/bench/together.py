"""One kernel on every given processor at once: a process for each, pinned, all measured in the same slices of time."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Make = Callable[[], Callable[[], None]]

SLICES = 12
WARM_UP_SECONDS = 0.3


def rates(
    make: Make, work: float, cpus: Sequence[int], seconds: float, clock: Callable[[], float] = time.monotonic
) -> list[float]:
    """Work per second (by `clock`) of all processors together, one value for each slice of time.

    `make` builds the kernel inside each process (its arrays are that process's own); one call of it does `work`.
    RuntimeError when a process died, for instance for want of memory.
    """
    slice_seconds = seconds / SLICES
    start = time.monotonic() + WARM_UP_SECONDS + 0.02 * len(cpus) + 0.2
    readers, children = [], []
    for cpu in cpus:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os._exit(_work(make, cpu, start, slice_seconds, writer, clock))
        os.close(writer)
        readers.append(reader)
        children.append(child)
    answers = [_all_of(reader) for reader in readers]
    ended = [os.waitpid(child, 0)[1] for child in children]
    if any(ended) or not all(answers):
        raise RuntimeError("a measuring process died")
    each = [json.loads(text) for text in answers]
    return [sum(one[index] for one in each) * work for index in range(SLICES)]


def _work(make: Make, cpu: int, start: float, slice_seconds: float, writer: int, clock: Callable[[], float]) -> int:
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {cpu})
        kernel = make()
        kernel()
        while time.monotonic() < start:
            kernel()
        found = []
        for index in range(SLICES):
            end = start + (index + 1) * slice_seconds
            begun, calls = clock(), 0
            while True:
                kernel()
                calls += 1
                if time.monotonic() >= end:
                    break
            found.append(calls / (clock() - begun))
        os.write(writer, json.dumps(found).encode())
        return 0
    except BaseException:
        return 1


def _all_of(reader: int) -> str:
    with os.fdopen(reader, "rb") as stream:
        return stream.read().decode()
