"""One thread: a fixed mix of the standard library's C code, and the latency of memory by a chain of reads."""

from __future__ import annotations

import array
import decimal
import json
import math
import random
import re
import time
import zlib
from typing import TYPE_CHECKING

from isthmus.metering.bench import spread

if TYPE_CHECKING:
    from collections.abc import Callable

LINE = 8  # elements of 8 bytes in a cache line of 64
STEPS = 16_384
NEAR_BYTES = 16 * 1024


def parts() -> dict[str, Callable[[], object]]:
    """The parts of the mix. All are C code behind Python's interface, so that the Python version matters little."""
    chance = random.Random(1)
    numbers = [chance.random() for _ in range(20_000)]
    words = " ".join(f"{chance.randrange(16**6):06x}" for _ in range(12_000))
    document = {f"key{index}": [chance.random(), f"value {index}", None, True] for index in range(1_500)}
    pattern = re.compile(r"(\w)(\w)\w*?\2\1")
    raw = words.encode()
    context = decimal.Context(prec=3000)
    seven = decimal.Decimal(7)
    return {
        "json": lambda: json.loads(json.dumps(document)),
        "sort": lambda: sorted(numbers),
        "zlib": lambda: zlib.compress(raw, 6),
        "regex": lambda: pattern.findall(words),
        "decimal": lambda: context.sqrt(seven),
        "bigint": lambda: pow(3, 4001, 10**1500 + 7),
    }


def serial_rate(seconds: float, clock: Callable[[], float] = time.perf_counter) -> spread.Measure:
    """Passes of the mix per second on one thread: the geometric mean of the rates of its parts, sample by sample."""
    made = parts()
    share = seconds / len(made)
    samples: dict[str, list[float]] = {}
    for name, part in made.items():
        begun = time.perf_counter()
        part()
        calls = max(1, int(0.01 / max(1e-6, time.perf_counter() - begun)))

        def run(part: Callable[[], object] = part, calls: int = calls) -> None:
            for _ in range(calls):
                part()

        samples[name] = spread.rates(run, float(calls), share, clock)
    count = min(len(values) for values in samples.values())
    mixed = [
        math.exp(sum(math.log(values[index]) for values in samples.values()) / len(samples)) for index in range(count)
    ]
    return spread.summarise(mixed, "standard library")


def chain(size_bytes: int) -> array.array[int]:
    """A table whose element at the start of each cache line names the next line, in one random cycle through all."""
    lines = max(2, size_bytes // (8 * LINE))
    order = list(range(1, lines))
    random.Random(2).shuffle(order)
    table = array.array("q", bytes(8 * LINE * lines))
    here = 0
    for line in order:
        table[here * LINE] = line * LINE
        here = line
    table[here * LINE] = 0
    return table


def walk(table: array.array[int], start: int) -> int:
    """Follow the chain for STEPS reads, each of which needs the one before; answers where it ended."""
    here = start
    for _ in range(STEPS // 8):
        here = table[table[table[table[table[table[table[table[here]]]]]]]]
    return here


def latency(size_bytes: int, seconds: float) -> spread.Measure:
    """Seconds that a dependent read from a table of so many bytes takes longer than one from the first-level cache.

    Both tables are walked by the same loop of the interpreter, turn by turn; the difference leaves the interpreter out.
    How near that comes to a compiled chain is measured by benchmarks/metering.py. Times are the thread's own processor time:
    being set aside for another process is no property of memory.
    """
    near, far = chain(NEAR_BYTES), chain(size_bytes)
    here = walk(far, 0)
    walk(near, 0)
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < spread.MIN_REPETITIONS or time.perf_counter() < end:
        begun = time.thread_time()
        walk(near, 0)
        middle = time.thread_time()
        here = walk(far, here)
        after = time.thread_time()
        samples.append(max(1e-12, ((after - middle) - (middle - begun)) / STEPS))
    return spread.summarise(samples, f"chain over {size_bytes // 1024**2} MiB")
