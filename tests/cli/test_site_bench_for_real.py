"""`isthmus site bench` and `isthmus site show` against the real service and this machine as its site."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from isthmus.cli.site_bench import show_capabilities
from isthmus.domain.capability import Quantity
from isthmus.metering.aggregate import by_kind
from isthmus.store.documents import dump
from tests.cli.conftest import Ask
from tests.metering.nodes import device, reference_node

WITH_DEVICES = "2 x Reference + 2 x Fast"
QUICK = ("--seconds", "3", "--python", sys.executable)


@pytest.mark.timeout(300)
def test_a_site_is_measured_and_shown(ask: Ask) -> None:
    """The benchmark runs as a task, its vector is stored with date and error, and every later look tells it."""
    assert ask("site", "show", "local", "--json").document["capabilities"] == []
    told = ask("site", "bench", "local", *QUICK, "--json").document
    (done,) = told["benchmarks"]
    assert (done["state"], done["pool"]) == ("done", "local")
    assert ask("show", done["task_id"], "--json").document["state"] == "succeeded"
    (found,) = told["capabilities"]
    assert found["capability"]["nodes"] == [done["node"]]
    assert found["capability"]["processor"]["figures"]["fp64_ops_per_second"]["median"] > 1e8
    assert found["capability"]["general"] > 0
    assert ask("site", "show", "local", "--json").document["capabilities"] == told["capabilities"]
    shown = ask("site", "show", "local")
    assert "UNITS/NODE" in shown.out
    assert found["capability"]["kind"] in shown.out
    assert "FP64 GF/s" not in shown.out
    wide = ask("site", "show", "local", "-o", "wide").out
    assert "FP64 GF/s" in wide
    assert "±" in wide
    assert "MEMORY_BOUND" in wide


@pytest.mark.timeout(300)
def test_a_measurement_that_fails_is_told(ask: Ask) -> None:
    """A Python that is not there: exit code 125, and why; the pool keeps the capability that it had."""
    before = ask("site", "show", "local", "--json").document["capabilities"]
    told = ask("site", "bench", "local", "--pool", "local", "--seconds", "3", "--python", "/no/such/python", code=125)
    assert "failed" in told.err
    assert ask("site", "show", "local", "--json").document["capabilities"] == before


def test_wrong_wishes_are_told(ask: Ask) -> None:
    """A pool that is not there is bad data, a wrong number a usage error, an unknown site is not found."""
    assert "local" in ask("site", "bench", "local", "--pool", "nopool", code=65).err
    ask("site", "bench", "local", "--nodes", "0", code=64)
    ask("site", "bench", "nowhere", code=66)


@pytest.mark.timeout(300)
def test_it_need_not_be_waited_for(ask: Ask) -> None:
    """--detach answers the task at once."""
    (made,) = ask("site", "bench", "local", *QUICK, "--detach", "--json").document
    assert made["state"] == "due"
    ask("cancel", made["task_id"])
    ask("wait", made["task_id"], code=None)


def test_devices_and_slow_nodes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """As the service answers them: each accelerator's vector in a row of its own, a slow node with what it lacks."""
    nodes = [replace(reference_node(f"g{i}"), accelerators=(device(), device())) for i in range(3)]
    nodes.append(replace(reference_node("g9", scale={Quantity.SERIAL: 0.5}), accelerators=(device(), device())))
    (pool,) = by_kind([replace(one, left_out={"network_bytes_per_second": "no route"}) for one in nodes])
    assert pool.kind == WITH_DEVICES
    show_capabilities([{"pool": "gpu", "capability": json.loads(dump(pool))}], wide=True)
    told = capsys.readouterr()
    assert WITH_DEVICES in told.out
    (row,) = [line for line in told.out.splitlines() if line.startswith("gpu, each of 2")]
    assert "600±2%" in row  # ten times the reference's matrices in fp64
    assert "g9 does 50% of its kind in serial_passes_per_second" in told.err
    assert "no route" in told.err
