"""Accelerators (and the processor's short formats) through PyTorch, else through CuPy: whatever of the two is present."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.metering.bench import spread
    from isthmus.metering.bench.device import Device


def load(name: str) -> Any:
    """A library, or None where it is not installed or does not start."""
    try:
        return importlib.import_module(name)
    except Exception:  # a broken installation raises whatever it likes
        return None


class TorchDevice:
    """A device of PyTorch: `cpu`, `cuda:0` (NVIDIA, and AMD by ROCm), `xpu:0` (Intel), `npu:0` (Ascend), `mps`."""

    def __init__(self, torch: Any, place: str, *, name: str, kind: str, memory_bytes: int) -> None:
        self._torch = torch
        self._place = place
        self.name = name
        self.kind = kind
        self.memory_bytes = memory_bytes
        self.by = f"torch {torch.__version__}"

    def _done(self) -> None:
        family = getattr(self._torch, self._place.partition(":")[0], None)
        if self.kind != "cpu" and family is not None:
            family.synchronize(*([self._place] if ":" in self._place else []))

    def matrix(self, precision: str, size: int) -> spread.Run | None:
        """fp64, fp32 (without TF32), fp16 as bfloat16, int8 into int32."""
        torch = self._torch
        if precision == "int8":
            if not hasattr(torch, "_int_mm"):
                return None
            left, right = (
                torch.randint(-128, 127, (size, size), dtype=torch.int8, device=self._place) for _ in range(2)
            )

            def run_int8() -> None:
                torch._int_mm(left, right)
                self._done()

            return run_int8
        kind = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.bfloat16}[precision]
        one, other = (torch.rand((size, size), device=self._place).to(kind) for _ in range(2))
        out = torch.empty((size, size), dtype=kind, device=self._place)

        def run() -> None:
            torch.mm(one, other, out=out)
            self._done()

        return run

    def add(self, size_bytes: int) -> spread.Run | None:
        """fp32 vectors."""
        torch = self._torch
        one, other, out = (torch.ones(size_bytes // 4, device=self._place) for _ in range(3))

        def run() -> None:
            torch.add(one, other, out=out)
            self._done()

        return run

    def send(self, size_bytes: int) -> spread.Run | None:
        """From pinned memory where that can be had."""
        if self.kind == "cpu":
            return None
        torch = self._torch
        here = torch.ones(size_bytes // 4)
        if self._place.startswith("cuda"):
            here = here.pin_memory()
        there = torch.empty(size_bytes // 4, device=self._place)

        def run() -> None:
            there.copy_(here)
            self._done()

        return run


class CupyDevice:
    """An NVIDIA or AMD device of CuPy, where PyTorch is absent."""

    def __init__(self, cupy: Any, index: int, *, name: str, kind: str, memory_bytes: int) -> None:
        self._cupy = cupy
        self._device = cupy.cuda.Device(index)
        self.name = name
        self.kind = kind
        self.memory_bytes = memory_bytes
        self.by = f"cupy {cupy.__version__}"

    def matrix(self, precision: str, size: int) -> spread.Run | None:
        """fp64, fp32, fp16 by cuBLAS."""
        kind = {"fp64": "float64", "fp32": "float32", "fp16": "float16"}.get(precision)
        if kind is None:
            return None
        with self._device:
            one, other = (self._cupy.random.rand(size, size).astype(kind) for _ in range(2))
            out = self._cupy.empty((size, size), kind)

        def run() -> None:
            with self._device:
                self._cupy.matmul(one, other, out=out)
                self._device.synchronize()

        return run

    def add(self, size_bytes: int) -> spread.Run | None:
        """fp32 vectors."""
        with self._device:
            one, other, out = (self._cupy.ones(size_bytes // 4, "float32") for _ in range(3))

        def run() -> None:
            with self._device:
                self._cupy.add(one, other, out=out)
                self._device.synchronize()

        return run

    def send(self, size_bytes: int) -> spread.Run | None:
        """From NumPy's memory."""
        numpy = load("numpy")
        if numpy is None:
            return None
        here = numpy.ones(size_bytes // 4, "float32")
        with self._device:
            there = self._cupy.empty(size_bytes // 4, "float32")

        def run() -> None:
            with self._device:
                there.set(here)
                self._device.synchronize()

        return run


def find(torch: Any, cupy: Any) -> list[Device]:
    """Every accelerator that the job may use."""
    if torch is not None:
        return _of_torch(torch)
    return [] if cupy is None else _of_cupy(cupy)


def _of_torch(torch: Any) -> list[Device]:
    found: list[Device] = []
    cuda_kind = "amd" if getattr(torch.version, "hip", None) else "nvidia"
    for family, kind in (("cuda", cuda_kind), ("xpu", "intel"), ("npu", "ascend"), ("mlu", "cambricon"), ("musa", "moorethreads")):  # fmt: skip
        module = getattr(torch, family, None)
        if module is None or not module.is_available():
            continue
        for index in range(module.device_count()):
            told = module.get_device_properties(index)
            memory = int(getattr(told, "total_memory", 0)) or 1024**3
            name = str(getattr(told, "name", family))
            found.append(TorchDevice(torch, f"{family}:{index}", name=name, kind=kind, memory_bytes=memory))
    return found


def _of_cupy(cupy: Any) -> list[Device]:
    found: list[Device] = []
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except Exception:  # no driver, no device
        return found
    kind = "amd" if getattr(runtime, "is_hip", False) else "nvidia"
    for index in range(count):
        told = runtime.getDeviceProperties(index)
        name = told["name"].decode() if isinstance(told["name"], bytes) else str(told["name"])
        found.append(CupyDevice(cupy, index, name=name, kind=kind, memory_bytes=int(told["totalGlobalMem"])))
    return found
