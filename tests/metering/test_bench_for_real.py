"""The benchmark itself, run as the one file that is sent to sites."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from isthmus.domain.capability import Quantity
from isthmus.metering import packing
from isthmus.metering.bench import accelerators, device, limits, moving, numeric
from isthmus.metering.reading import read_document

BENCH = Path(packing.__file__).parent / "bench"
NEED_NUMPY = {Quantity.VECTOR, Quantity.MEMORY, Quantity.CACHE, Quantity.FP64, Quantity.FP32}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file."""
    path = tmp_path_factory.mktemp("bench") / packing.NAME
    path.write_bytes(packing.bench_file())
    return path


def run(
    program: Path, *words: str, python: Sequence[str] = (sys.executable,), before: Callable[[], None] | None = None
) -> tuple[dict[str, Any], bytes]:
    """Run it in its own directory, with nothing of Isthmus in the path; its document, read and as written."""
    done = subprocess.run(
        [*python, program.name, "--json", "--seconds", "3", "--memory", str(512 * 1024**2), *words],
        cwd=program.parent, capture_output=True, timeout=100, check=True, preexec_fn=before,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "64"},
    )  # fmt: skip
    return json.loads(done.stdout), done.stdout


def test_every_quantity_is_measured_or_its_lack_is_explained(program: Path) -> None:
    """Alone, with NumPy: all figures of a processor with samples and spread; the rest is named with its reason; nothing is
    left behind."""
    told, raw = run(program)
    node = read_document(raw)
    of_processor = set(Quantity) - {Quantity.HOST_LINK}
    assert set(node.processor.figures) | {Quantity(name) for name in node.left_out} == of_processor
    assert set(node.processor.figures) >= NEED_NUMPY
    assert all(one.samples + one.rejected >= 3 for one in node.processor.figures.values())
    assert node.cpus == len(os.sched_getaffinity(0))
    assert "loopback" in node.processor.figures[Quantity.NETWORK].by
    assert told["libraries"]["numpy"]
    assert [path.name for path in program.parent.iterdir()] == [program.name]


def test_without_numpy_it_says_what_it_had_to_leave_out(program: Path) -> None:
    """Python alone measures thread, latency, storage and network."""
    _, raw = run(program, python=(sys.executable, "-I", "-S"))
    node = read_document(raw)
    assert set(node.processor.figures) == {
        Quantity.SERIAL, Quantity.LATENCY, Quantity.STORAGE_READ, Quantity.STORAGE_WRITE, Quantity.NETWORK
    }  # fmt: skip
    assert set(node.left_out) >= NEED_NUMPY
    assert all("NumPy" in node.left_out[quantity] for quantity in NEED_NUMPY)


def test_it_measures_the_processors_that_the_job_was_given(program: Path) -> None:
    """Bound to one processor it uses one, whatever the environment of the job says."""
    one = min(os.sched_getaffinity(0))
    _, raw = run(program, python=(sys.executable, "-S"), before=lambda: os.sched_setaffinity(0, {one}))
    assert read_document(raw).cpus == 1


def test_the_network_is_measured_to_a_peer(program: Path) -> None:
    """`--serve` and `--peer` are two ends; the figure says so."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=moving.serve_one, args=(server,))
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        measure = moving.peer(address, 0.2)
        thread.join()
    assert measure.by == f"peer {address}"
    assert measure.median > 0


def test_the_same_sources_give_the_same_file(program: Path) -> None:
    """So that a site keeps it in its cache; and it is small."""
    packing.bench_file.cache_clear()
    assert packing.bench_file() == program.read_bytes()
    assert len(packing.bench_file()) < 100_000


@pytest.mark.parametrize("path", sorted(BENCH.glob("*.py")), ids=lambda path: path.name)
def test_it_is_python_of_old_sites(path: Path) -> None:
    """Grammar of Python 3.8, annotations that are never evaluated, no import but the standard library's and its own."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    assert "from __future__ import annotations" in text or not re.search(r"def |class ", text)
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.startswith("isthmus.metering.bench") or name.partition(".")[0] in sys.stdlib_module_names


def test_a_quota_counts_like_fewer_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tightest cpu.max and memory.max from the job's own group up to the root are what was given."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cpu.max").write_text("100000 100000\n")
    (tmp_path / "a/b/cpu.max").write_text("max 100000\n")
    (tmp_path / "a/b/memory.max").write_text(f"{300 * 1024**2}\n")
    real = limits.read
    own = {"/proc/self/cgroup": "0::/a/b\n"}
    monkeypatch.setattr(limits, "GROUPS", str(tmp_path))
    monkeypatch.setattr(limits, "read", lambda path: own.get(path) or real(path))
    found = limits.given()
    assert (found.quota, len(found.cpus)) == (1.0, 1)
    assert found.memory_bytes <= 300 * 1024**2


def test_version_one_groups_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cpu.cfs_quota_us over its period, with controllers that are mounted together."""
    (tmp_path / "cpu,cpuacct/job").mkdir(parents=True)
    (tmp_path / "cpu,cpuacct/job/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu,cpuacct/job/cpu.cfs_period_us").write_text("100000\n")
    real = limits.read
    own = {"/proc/self/cgroup": "4:cpu,cpuacct:/job\n0::/\n"}
    monkeypatch.setattr(limits, "GROUPS", str(tmp_path))
    monkeypatch.setattr(limits, "read", lambda path: own.get(path) or real(path))
    found = limits.given()
    assert (found.quota, len(found.cpus)) == (0.5, 1)


def test_a_device_is_measured_through_the_port() -> None:
    """All figures of a device are taken in one way; what its library cannot is told, and costs no other figure."""
    numpy = pytest.importorskip("numpy")
    one = numeric.NumpyDevice(numpy, "processor", 64 * 1024**2)
    left_out: dict[str, str] = {}
    figures = device.accelerator_figures(one, 0.5, left_out.__setitem__)
    assert set(figures) == {Quantity.FP64, Quantity.FP32, Quantity.MEMORY}
    assert set(left_out) == {Quantity.FP16, Quantity.INT8}


def test_a_device_that_breaks_costs_its_own_figures_only() -> None:
    """A driver's error is told as the reason."""
    numpy = pytest.importorskip("numpy")

    class Broken(numeric.NumpyDevice):
        def matrix(self, precision: str, size: int) -> Callable[[], None] | None:
            if precision == "fp32":
                raise RuntimeError("out of memory")
            return super().matrix(precision, size)

    left_out: dict[str, str] = {}
    figures = device.accelerator_figures(Broken(numpy, "x", 16 * 1024**2), 0.3, left_out.__setitem__)
    assert "out of memory" in left_out[Quantity.FP32]
    assert Quantity.FP64 in figures


def test_torch_measures_short_formats() -> None:
    """Where PyTorch is, bfloat16 and int8 come from it."""
    torch = pytest.importorskip("torch")
    one = accelerators.TorchDevice(torch, "cpu", name="x", kind="cpu", memory_bytes=64 * 1024**2)
    left_out: dict[str, str] = {}
    assert {Quantity.FP16, Quantity.INT8} <= set(device.accelerator_figures(one, 0.5, left_out.__setitem__))
