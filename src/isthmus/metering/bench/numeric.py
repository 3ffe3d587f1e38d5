"""The processor through NumPy: matrices by its BLAS, vectors, memory and cache by its loops on every given processor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from isthmus.metering.bench import spread, together

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.metering.bench.limits import Given

VECTOR_ELEMENTS = 8192  # three arrays of 64 KiB: inside a second-level cache, long enough that calling costs little


class NumpyDevice:
    """The given processors, as NumPy's BLAS uses them."""

    kind = "cpu"

    def __init__(self, numpy: Any, name: str, memory_bytes: int) -> None:
        self._numpy = numpy
        self.name = name
        self.memory_bytes = memory_bytes
        self.by = f"numpy {numpy.__version__}"

    def matrix(self, precision: str, size: int) -> spread.Run | None:
        """By BLAS, which has fp64 and fp32."""
        kind = {"fp64": self._numpy.float64, "fp32": self._numpy.float32}.get(precision)
        if kind is None:
            return None
        random = self._numpy.random.RandomState(1)
        left, right = random.rand(size, size).astype(kind), random.rand(size, size).astype(kind)
        out = self._numpy.empty((size, size), kind)

        def run() -> None:
            self._numpy.dot(left, right, out=out)

        return run

    def add(self, size_bytes: int) -> spread.Run | None:
        """On one processor; `memory_rates` uses all."""
        return add_kernel(self._numpy, size_bytes // 8)()

    def send(self, size_bytes: int) -> spread.Run | None:  # noqa: ARG002 - of the port
        """A processor has its memory already."""
        return None


def add_kernel(numpy: Any, elements: int) -> together.Make:
    """Makes c = a + b over fp64 arrays of so many elements (STREAM's "add")."""

    def make() -> Callable[[], None]:
        one, other, out = (numpy.full(elements, float(number)) for number in (1, 2, 0))

        def run() -> None:
            numpy.add(one, other, out=out)

        return run

    return make


def _vector_kernel(numpy: Any) -> together.Make:
    def make() -> Callable[[], None]:
        value = numpy.full(VECTOR_ELEMENTS, 0.5)
        factor, more = numpy.full(VECTOR_ELEMENTS, 0.999), numpy.full(VECTOR_ELEMENTS, 0.0005)

        def run() -> None:
            for _ in range(20):
                numpy.multiply(value, factor, out=value)
                numpy.add(value, more, out=value)

        return run

    return make


def memory_figures(
    numpy: Any, limit: Given, cache_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic
) -> dict[str, spread.Measure]:
    """Vector rate, memory and last-level-cache bandwidth of the given processors together.

    Memory: three arrays a processor that are four times the cache in all (STREAM's rule), or a quarter of the memory that
    was given where that is less. Bytes are counted as STREAM counts them: two reads and one write an element.
    """
    cpus, by = limit.cpus, f"numpy {numpy.__version__}, {len(limit.cpus)} processes"
    cache = cache_bytes or 32 * 1024**2
    in_all = min(max(4 * cache, 96 * 1024**2), limit.memory_bytes // 4)
    elements = max(4096, in_all // (24 * len(cpus)))
    work = 40.0 * VECTOR_ELEMENTS
    vector = together.rates(_vector_kernel(numpy), work, cpus, seconds, clock)
    memory = together.rates(add_kernel(numpy, elements), 24.0 * elements, cpus, seconds, clock)
    inside = max(2048, min(cache // 4, limit.memory_bytes // 4) // (24 * len(cpus)))
    cached = together.rates(add_kernel(numpy, inside), 24.0 * inside, cpus, seconds, clock)
    return {
        "vector_ops_per_second": spread.summarise(vector, by),
        "memory_bytes_per_second": spread.summarise(memory, f"{by}, {24 * elements * len(cpus) // 1024**2} MiB"),
        "cache_bytes_per_second": spread.summarise(cached, f"{by}, {24 * inside * len(cpus) // 1024} KiB"),
    }
