"""Takes every figure in its share of the time and puts them into one document."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.metering.bench import FORMAT, accelerators, limits, moving, numeric, serial, spread
from isthmus.metering.bench.device import PRECISIONS, Device, accelerator_figures, matrix_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    Figures = dict[str, spread.Measure]
    Say = Callable[[str], None]

STORAGE = ("storage_write_bytes_per_second", "storage_read_bytes_per_second")
BY_NUMPY = ("vector_ops_per_second", "memory_bytes_per_second", "cache_bytes_per_second")
LAST_BEGIN_SECONDS = 105.0
LATE = "the time was over: the node was too busy, or --seconds too long"
LATENCY_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class Wanted:
    """How to measure: about `seconds` in all, storage in `directory`, network to `peer` (empty: loopback)."""

    seconds: float = 60.0
    directory: str = "."
    peer: str = ""
    memory_bytes: int = 0
    processor_time: bool = False  # work by processor time, not by elapsed time: one processor of a busy machine


class Bench:
    """One measurement of one node."""

    def __init__(self, wanted: Wanted, say: Say) -> None:
        self._begun = time.perf_counter()
        self._wanted = wanted
        self._say = say
        self._given = limits.given(wanted.memory_bytes)
        limits.hold_threads(len(self._given.cpus))  # before a library is loaded
        self._clock: Callable[[], float] = time.process_time if wanted.processor_time else time.perf_counter
        if wanted.processor_time and len(self._given.cpus) > 1:
            raise ValueError("processor time is measured on one processor: bind the benchmark to one")
        self._processor = limits.processor()
        self.figures: Figures = {}
        self.left_out: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """Measure and answer the document."""
        at = time.time()
        share = self._wanted.seconds / 14
        self._try(
            ("serial_passes_per_second",), lambda: {"serial_passes_per_second": serial.serial_rate(share, self._clock)}
        )
        self._try(("memory_latency_seconds",), lambda: self._latency(share))
        self._try(STORAGE, lambda: moving.storage(self._wanted.directory, share))
        self._try(("network_bytes_per_second",), lambda: {"network_bytes_per_second": self._network(share)})
        numpy = self._load("numpy")
        cache = int(str(self._processor["cache_bytes"]))
        if numpy is not None:  # before PyTorch, whose threads a forked process would not have
            self._try(BY_NUMPY, lambda: numeric.memory_figures(numpy, self._given, cache, share, self._clock))
        else:
            self.left_out.update(dict.fromkeys(BY_NUMPY, "NumPy is needed"))
        torch = self._load("torch")
        self._matrices(numpy, torch, share)
        found = self._find(torch)
        each = [
            self._accelerator(index, device, 4 * share / len(found))
            for index, device in enumerate(found)
            if not self._late()
        ]
        return {
            "format": FORMAT,
            "measured_at": at,
            "seconds": round(time.perf_counter() - self._begun, 2),
            "node": platform.node(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processor": self._processor["model"],
            "cache_bytes": cache,
            "libraries": self._libraries(numpy, torch),
            "given": {
                "cpus": len(self._given.cpus),
                "cpus_of_node": self._given.cpus_of_node,
                "quota": self._given.quota,
                "memory_bytes": self._given.memory_bytes,
            },
            "figures": {name: measure.record() for name, measure in self.figures.items()},
            "accelerators": each,
            "left_out": self.left_out,
        }

    def _find(self, torch: Any) -> list[Device]:
        try:
            return accelerators.find(torch, accelerators.load("cupy") if torch is None else None)
        except Exception as error:  # a broken driver must not cost the processor's figures
            self.left_out["accelerators"] = f"{type(error).__name__}: {error}"[:300]
            return []

    def _late(self) -> bool:
        """Whether nothing more is begun, so that all ends within two minutes even on a node that is very busy."""
        return time.perf_counter() - self._begun > LAST_BEGIN_SECONDS

    def _load(self, name: str) -> Any:
        self._say(f"looking for {name}")
        return accelerators.load(name)

    def _try(self, names: tuple[str, ...], take: Callable[[], Figures]) -> None:
        """Take figures; what fails is left out with its reason, and the others go on."""
        if self._late():
            self.left_out.update(dict.fromkeys(names, LATE))
            return
        self._say(", ".join(names))
        try:
            self.figures.update(take())
        except (OSError, RuntimeError, MemoryError, ValueError) as error:
            self.left_out.update(dict.fromkeys(names, f"{type(error).__name__}: {error}"[:300]))

    def _latency(self, share: float) -> Figures:
        cache = int(str(self._processor["cache_bytes"]))
        size = min(max(4 * cache, 64 * 1024**2), LATENCY_BYTES, self._given.memory_bytes // 8)
        if self._wanted.seconds < 20:  # the table alone takes a second for each 100 MiB
            size = min(size, 64 * 1024**2)
        return {"memory_latency_seconds": serial.latency(size, share)}

    def _network(self, share: float) -> spread.Measure:
        return moving.peer(self._wanted.peer, share) if self._wanted.peer else moving.loopback(share)

    def _matrices(self, numpy: Any, torch: Any, share: float) -> None:
        """Each precision by every library that has it; the better rate counts, since a task can use it too."""
        model, memory = str(self._processor["model"]), self._given.memory_bytes
        devices: list[Device] = []
        if numpy is not None:
            devices.append(numeric.NumpyDevice(numpy, model, memory))
        if torch is not None:
            torch.set_num_threads(len(self._given.cpus))
            devices.append(accelerators.TorchDevice(torch, "cpu", name=model, kind="cpu", memory_bytes=memory))
        for precision in PRECISIONS:
            name = f"{precision}_ops_per_second"
            if self._late():
                self.left_out[name] = LATE
                continue
            self._say(name)
            best: spread.Measure | None = None
            reasons = []
            for device in devices:
                try:
                    measure = matrix_rate(device, precision, share / max(1, len(devices)), memory, self._clock)
                except (RuntimeError, MemoryError, ValueError, NotImplementedError) as error:
                    reasons.append(f"{device.by}: {error}"[:200])
                    continue
                if measure is not None and (best is None or measure.median > best.median):
                    best = measure
            if best is not None:
                self.figures[name] = best
            else:
                need = "NumPy or PyTorch is needed" if precision in ("fp64", "fp32") else "PyTorch is needed"
                self.left_out[name] = "; ".join(reasons) or need

    def _accelerator(self, index: int, device: Device, seconds: float) -> dict[str, Any]:
        self._say(f"accelerator {index}: {device.name}")
        left_out: dict[str, str] = {}
        figures = accelerator_figures(device, seconds, left_out.__setitem__)
        return {
            "index": index,
            "name": device.name,
            "kind": device.kind,
            "memory_bytes": device.memory_bytes,
            "figures": {name: measure.record() for name, measure in figures.items()},
            "left_out": left_out,
        }

    def _libraries(self, numpy: Any, torch: Any) -> dict[str, str]:
        found = {"python": platform.python_version()}
        for name, module in (("numpy", numpy), ("torch", torch)):
            if module is not None:
                found[name] = str(module.__version__)
        for name in ("OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES"):
            if os.environ.get(name):
                found[name] = os.environ[name]
        return found
