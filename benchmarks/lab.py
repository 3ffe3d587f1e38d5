"""How true the emulated network is: `python -m benchmarks.lab [--json] [--quick]`, as root.

Seconds until a small and a large network carry packets and until they are gone; delay against what was asked, over an idle link and beside a
stream; rate of a paced flood through a link; loss. Wall-clock seconds: the figures of a loaded machine are upper bounds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import time
from typing import Any

from benchmarks.machine import describe, table
from benchmarks.traffic import Flow, Running
from isthmus.lab.network.conditions import Brownout
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import enter_command
from isthmus.lab.network.weather import Weather

NAME = f"l{os.getpid()}"
DELAY_MS = 25.0
RATES, LOSSES = (100e6, 500e6), (0.001, 0.01)
WAN = f"""
name: {NAME}
routers: [r1, r2]
sites: {{north: , south: }}
links:
  - {{ends: [north, r1]}}
  - {{name: wan, ends: [r1, r2], rate: 500 Mbit/s, delay: {DELAY_MS:g} ms, mtu: 1500}}
  - {{ends: [south, r2]}}
"""
SOUTH = "fd10:4::1"
PAYLOAD = 1400
FRAME = PAYLOAD + 8 + 40 + 14


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="shorter streams")
    arguments = parser.parse_args()
    machine = describe()
    seconds = 2.0 if arguments.quick else 8.0
    begun = time.monotonic()
    with EmulatedNetwork(read_text(WAN)):
        small_ready = time.monotonic() - begun
        idle = _round_trips(500)
        beside_stream = _stream(10_000, seconds, beside=True)
        weather = Weather(NAME)
        rates = {}
        for rate in RATES:
            weather.brown_out("wan", Brownout(rate_bits_per_second=rate))
            rates[rate] = _stream(1.2 * rate / 8 / FRAME, seconds)
        losses = {}
        for loss in LOSSES:
            weather.brown_out("wan", Brownout(loss=loss))
            result = _stream(15_000, seconds)
            losses[f"{loss:g}"] = result["lost"] / result["sent"]
        weather.heal()
    big = _big()
    figures = {
        "ready_seconds": round(big["ready"], 2),
        "down_seconds": round(big["down"], 2),
        "small_ready_seconds": round(small_ready, 2),
        "round_trip_ms": idle,
        "round_trip_ms_beside_10000_per_s": beside_stream["round_trip_ms"],
        "rate_share": {
            f"{rate / 1e6:g}": round(got["per_second"] * FRAME * 8 / rate, 4) for rate, got in rates.items()
        },
        "offered_share": {
            f"{rate / 1e6:g}": round(got["sent"] / got["seconds"] * FRAME * 8 / rate, 3) for rate, got in rates.items()
        },
        "loss_got": {asked: round(got, 5) for asked, got in losses.items()},
        "machine": machine,
    }
    print(json.dumps(machine))
    print(table(_rows(figures)))
    if arguments.json:
        print(json.dumps(figures))


def _rows(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    idle, beside = figures["round_trip_ms"], figures["round_trip_ms_beside_10000_per_s"]
    return [
        ("12 sites, 20 routers, 34 links: until packets flow", f"{figures['ready_seconds']} s", "seconds", ""),
        ("the same: until all is removed", f"{figures['down_seconds']} s", "", ""),
        ("2 sites, 2 routers: until packets flow", f"{figures['small_ready_seconds']} s", "", ""),
        ("round trip over 25 ms each way, p50 / p99", f"{idle['p50']} / {idle['p99']} ms", "50 ms", "500 pings"),
        ("the same beside 10,000 packets/s", f"{beside['p50']} / {beside['p99']} ms", "50 ms", ""),
        *(
            (
                f"what a flood gets through {rate} Mbit/s",
                f"{share:.1%}",
                "100 %",
                f"{figures['offered_share'][rate]:.0%} was offered",
            )
            for rate, share in figures["rate_share"].items()
        ),
        *(
            (f"loss of {float(asked):.1%}", f"{got:.3%}", f"{float(asked):.1%}", "")
            for asked, got in figures["loss_got"].items()
        ),
    ]


def _round_trips(count: int) -> dict[str, float]:
    words = ["ping", "-n", "-c", str(count), "-i", "0.004", SOUTH]
    shown = subprocess.run(enter_command(NAME, "north", words), capture_output=True, text=True, check=True).stdout
    times = sorted(float(found) for found in re.findall(r"time=([\d.]+)", shown))
    return {
        "p50": round(statistics.median(times), 2),
        "p99": round(times[int(0.99 * (len(times) - 1))], 2),
        "least": times[0],
    }


def _stream(per_second: float, seconds: float, *, beside: bool = False) -> dict[str, Any]:
    flow = Flow(
        network=NAME,
        source="north",
        target="south",
        address=SOUTH,
        port=7100,
        per_second=per_second,
        seconds=seconds,
        size=PAYLOAD,
        burst=8,
    )
    running = Running(flow)
    round_trips = None
    if beside:
        time.sleep(0.3)
        round_trips = _round_trips(int((seconds - 0.6) / 0.005))
    result = running.result()
    tenths = sorted((int(key), value) for key, value in result["by_tenth"].items())[5:-3]
    inner = sum(value for _tenth, value in tenths) / (len(tenths) / 10)
    return result | {"per_second": inner, "round_trip_ms": round_trips}


def _big() -> dict[str, float]:
    """A ring of 20 routers with two chords; 12 sites."""
    lines = [f"  - {{ends: [r{one}, r{(one + 1) % 20}], rate: 1 Gbit/s, delay: 2 ms}}" for one in range(20)]
    lines += [f"  - {{ends: [r{one}, r{one + 10}], rate: 1 Gbit/s, delay: 5 ms, loss: 0.01 %}}" for one in (0, 5)]
    lines += [f"  - {{ends: [s{number}, r{number}]}}" for number in range(12)]
    routers = ", ".join(f"r{number}" for number in range(20))
    sites = ", ".join(f"s{number}: " for number in range(12))
    text = "\n".join([f"name: {NAME}", f"routers: [{routers}]", f"sites: {{{sites}}}", "links:", *lines])
    begun = time.monotonic()
    with EmulatedNetwork(read_text(text)):
        words = ["ping", "-n", "-c", "1", "-W", "2", "10.64.27.1"]
        subprocess.run(enter_command(NAME, "s0", words), stdout=subprocess.DEVNULL, check=True)
        ready = time.monotonic() - begun
        begun = time.monotonic()
    return {"ready": ready, "down": time.monotonic() - begun}


if __name__ == "__main__":
    main()
