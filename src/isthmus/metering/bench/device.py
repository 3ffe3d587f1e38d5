"""What every kind of device offers the benchmark, and the figures that are taken of it in the same way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from isthmus.metering.bench import spread

if TYPE_CHECKING:
    from collections.abc import Callable

PRECISIONS = {"fp64": 8, "fp32": 4, "fp16": 2, "int8": 1}  # bytes of one element
ENOUGH_SECONDS = 0.08  # of one multiplication
LARGEST = 16_384


class Device(Protocol):
    """A processor or an accelerator behind a well-kept library. A run returns when the device has done the work."""

    name: str
    kind: str  # cpu, nvidia, amd, intel, ascend, ...
    memory_bytes: int
    by: str  # the library and its version

    def matrix(self, precision: str, size: int) -> spread.Run | None:
        """A multiplication of two square matrices of `size`; None when the device or its library cannot."""
        ...

    def add(self, size_bytes: int) -> spread.Run | None:
        """An addition of two vectors into a third in the device's memory, each of `size_bytes`; None when it cannot."""
        ...

    def send(self, size_bytes: int) -> spread.Run | None:
        """A copy from the host's memory to the device's; None for a processor."""
        ...


def matrix_rate(
    device: Device,
    precision: str,
    seconds: float,
    memory_bytes: int,
    clock: Callable[[], float] = time.perf_counter,
) -> spread.Measure | None:
    """Operations per second (2 n^3 for each multiplication) at the smallest size that takes long enough, or at the largest
    that fits into a quarter of `memory_bytes`; None when the device cannot."""
    largest = LARGEST
    while largest > 128 and 3 * largest**2 * 8 > memory_bytes / 4:
        largest //= 2
    size = 256
    while True:
        run = device.matrix(precision, size)
        if run is None:
            return None
        run()
        took = min(_seconds(run, clock) for _ in range(3))  # the least: another process may have disturbed one
        if size >= largest or took >= ENOUGH_SECONDS:
            break
        size *= 2
    return spread.summarise(spread.rates(run, 2.0 * size**3, seconds, clock), f"{device.by}, n={size}")


def _seconds(run: spread.Run, clock: Callable[[], float]) -> float:
    begun = clock()
    run()
    return clock() - begun


def accelerator_figures(
    device: Device, seconds: float, say_left_out: Callable[[str, str], None]
) -> dict[str, spread.Measure]:
    """All figures of one accelerator, in about `seconds`; what it cannot is told with the reason."""
    found: dict[str, spread.Measure] = {}
    share = seconds / (len(PRECISIONS) + 2)
    for precision in PRECISIONS:
        name = f"{precision}_ops_per_second"
        try:
            measure = matrix_rate(device, precision, share, device.memory_bytes)
        except Exception as error:  # a driver's or library's own error must not cost the other figures
            say_left_out(name, f"{device.by}: {type(error).__name__}: {error}"[:300])
            continue
        if measure is None:
            say_left_out(name, f"{device.by} does not multiply {precision} on {device.name}")
        else:
            found[name] = measure
    size = min(1024**3, device.memory_bytes // 16)
    for name, make, work in (
        ("memory_bytes_per_second", device.add, 3.0 * size),
        ("host_link_bytes_per_second", device.send, 1.0 * size),
    ):
        try:
            run = make(size)
            if run is not None:
                found[name] = spread.summarise(spread.rates(run, work, share), device.by)
        except Exception as error:  # as above
            say_left_out(name, f"{device.by}: {type(error).__name__}: {error}"[:300])
    return found
