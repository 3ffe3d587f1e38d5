"""The twin beside SimGrid on KTH: the same scheduler in C++ over SimGrid's actors, the same waits, jobs per second of the processor.

The program is benchmarks/simgrid/batch.cpp, built into a temporary folder. It needs g++ and Debian's libsimgrid-dev, which are
installed when this runs as root and left alone otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.twin.readers import read_swf
from isthmus.twin.schedulers import simulate

PROGRAM = Path(__file__).parent / "simgrid" / "batch.cpp"
HEADER = Path("/usr/include/simgrid/s4u.hpp")
PROCESSORS = 100


def measure(traces: Path) -> tuple[dict[str, Any], list[tuple[str, str, str, str]]]:
    """Jobs per second of processor time of both, and how many waits are the same; rows of the table. Empty without SimGrid."""
    why = _missing()
    if why:
        return {"simgrid_left_out": why}, [("SimGrid on KTH", "left out", "", why)]
    log = read_swf(traces / "pwa" / "KTH-SP2.sc15-rebuilt.swf.gz")
    simulate(log, PROCESSORS, "easy")
    begun = time.process_time()
    ours = simulate(log, PROCESSORS, "easy")
    our_rate = len(log) / (time.process_time() - begun)
    with tempfile.TemporaryDirectory() as place:
        program, jobs, waits = (Path(place) / name for name in ("batch", "jobs", "waits"))
        subprocess.run(["g++", "-O2", "-std=c++17", "-o", program, PROGRAM, "-lsimgrid"], check=True)
        table = (log.submit_seconds, log.run_seconds, log.requested_processors, log.requested_seconds)
        np.savetxt(jobs, np.column_stack(table), fmt="%d")
        done = subprocess.run(
            [program, jobs, str(PROCESSORS), waits, "--log=root.thres:warning"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        theirs = np.loadtxt(waits, dtype=np.int64)
    seconds = float(done.stdout.split()[-1])
    same = float((theirs == ours).mean())
    rate = len(log) / seconds
    figures = {
        "simgrid_jobs_per_cpu_s": round(rate),
        "simgrid_twin_jobs_per_cpu_s": round(our_rate),
        "simgrid_same_waits": round(same, 6),
    }
    said = f"{same:.2%} of the waits are the twin's, which does {our_rate:,.0f} jobs/CPU s, {our_rate / rate:,.0f} times as many"
    return figures, [("SimGrid (C++, s4u) with EASY on KTH", f"{rate:,.0f} jobs/CPU s", "", said)]


def _missing() -> str:
    """What SimGrid lacks here, or nothing; as root it is installed."""
    if not HEADER.is_file() and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = ["apt-get", "-y", "-qq", "-o", "Dpkg::Use-Pty=0"]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--no-install-recommends", "g++", "libsimgrid-dev"]):
            if subprocess.run([*quiet, *words], capture_output=True, env=environment, check=False).returncode:
                break
    if not HEADER.is_file():
        return "libsimgrid-dev is not installed, and only root can install it"
    return "" if shutil.which("g++") else "there is no g++"
