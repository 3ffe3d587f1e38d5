"""Moving data over emulated long links: `python -m benchmarks.transfer [--json] [--quick] [--only CELL ...]`, as root.

One link of 500 Mbit/s with 20 ms each way (packets cross it in trains, see docs/lab.md), then one that cuts them to 1,500 bytes and loses a share of them.
Side by side in one run: Isthmus, rclone and aria2 over TLS from rclone's HTTP server, one stream of CUBIC and of BBR (iperf3, no TLS). The yardstick is a
paced flood of datagrams of 1,400 bytes on the same link, before and after each cell: what arrives of its payload is 1, of the higher of the two. Rclone and
aria2 have 16 streams, and BBR as we have; all have the hosts' settings that docs/transfers.md names. Contents are in memory: the disk is not measured. Time
is that of the whole pull (the start of Python is not in it: a site's agent runs anyway), of the others that of the program.
Then four SRv6 paths of 100 Mbit/s chosen by flow label against one; 100,000 files of 4 kB; a pull that is killed at half and goes on; and how well the end
was foretold under a promised rate. `--only` measures some cells: 0.00%, 0.01%, 0.10%, 1.00%, resume, eta, small, paths.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3

from benchmarks.machine import describe, table
from benchmarks.transfer_rig import FOUR, HTTP_PORT, ONE, RATE, Rig, iperf, kill, peer, peers, round_trip, yardstick
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Content
from isthmus.lab.network.conditions import Brownout
from isthmus.lab.network.showing import show
from isthmus.lab.network.weather import Weather
from isthmus.network.control.client import RouterClient
from isthmus.network.control.desired import Match
from isthmus.network.control.plan import Attachment, Fabric, Router, Steering
from isthmus.network.control.plan import Way as Via

LOSSES = (0.0, 0.0001, 0.001, 0.01)
ASKED = {0.0: 0.95, 0.0001: 0.92, 0.001: 0.85, 0.01: 0.70}
CELLS = ("0.00%", "0.01%", "0.10%", "1.00%", "resume", "eta", "small", "paths")
TOOLS = {"iperf3": "iperf3", "rclone": "rclone", "aria2c": "aria2"}


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a quarter of the bytes, two of the losses")
    parser.add_argument("--only", action="append", choices=CELLS, help="only this cell (may be given again)")
    arguments = parser.parse_args()
    absent = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    if absent:
        sys.exit(f"needs the packages {' '.join(absent)}: apt-get install {' '.join(absent)}")
    os.setpriority(os.PRIO_PROCESS, 0, -15)  # the link is emulated by the same processors; children inherit it
    machine = describe()
    figures: dict[str, Any] = {"link": "500 Mbit/s, 20 ms each way, packets of 1500 bytes", "machine": machine}
    scale = 0.25 if arguments.quick else 1.0
    left_out = {"0.01%", "1.00%"} if arguments.quick else set()
    cells = arguments.only or [cell for cell in CELLS if cell not in left_out]
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="isthmus-transfer-") as place:
        rig = Rig(Path(place))
        if set(cells) - {"paths"}:
            with rig.network(ONE):
                figures |= _single(rig, scale, cells)
        if "paths" in cells:
            with rig.network(FOUR):
                figures |= _paths(rig, scale)
    figures["load_at_end"] = round(os.getloadavg()[0], 2)
    print(json.dumps(machine))
    print(table(_rows(figures)))
    if arguments.json:
        print(json.dumps(figures))


def _single(rig: Rig, scale: float, cells: Collection[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {"rtt_ms": round_trip(rig)}
    losses = [loss for loss in LOSSES if _name(loss) in cells]
    weather = Weather(rig.name)
    content = rig.random(int(960e6 * scale))
    if losses:
        figures |= _by_loss(rig, weather, content, losses, scale)
        weather.heal()
    if "resume" in cells:
        figures |= _resume(rig, content)
    if "eta" in cells:
        figures |= _eta(rig, weather, scale)
        weather.heal()
    if "small" in cells:
        figures |= _small(rig, int(100_000 * scale), content)
    return figures


def _by_loss(rig: Rig, weather: Weather, content: Content, losses: list[float], scale: float) -> dict[str, Any]:
    by_loss: dict[str, dict[str, float]] = {}
    floods, processors = {}, {}
    peak = 0.0
    flood_seconds = 2.0
    with _web(rig, content):
        for loss in losses:
            weather.brown_out("lossy", Brownout(loss=loss))
            before = yardstick(rig, flood_seconds)
            said = rig.ours([content])[-1]
            peak = max(peak, said["peak_mib"])
            rates = {"ours": content.size_bytes / said["seconds"]}
            longest = 1.2 * content.size_bytes / before
            for name, argv in peers(rig).items():
                rates[name] = peer(rig, argv, content.size_bytes, longest)
            for name in ("cubic", "bbr"):
                rates[name] = iperf(rig, name, 6.0 if scale == 1 else 4.0)
            whole = max(before, yardstick(rig, flood_seconds))
            floods[_name(loss)] = round(whole * 8 / 1e6, 1)
            by_loss[_name(loss)] = {key: round(rate / whole, 4) for key, rate in rates.items()}
            processors[_name(loss)] = said["processors"]
            print(
                _name(loss), floods[_name(loss)], by_loss[_name(loss)], said["processors"], file=sys.stderr, flush=True
            )
    return {"by_loss": by_loss, "udp_mbit": floods, "peak_mib": round(peak, 1), "processors": processors}


@contextmanager
def _web(rig: Rig, content: Content) -> Iterator[None]:
    """The content behind rclone's HTTP server at north."""
    web = rig.place / "web"
    web.mkdir()
    (web / "big").hardlink_to(Keep(rig.place / "north" / "keep").path_of(content.blake3))
    tls = rig.place / "north"
    argv = [
        *("rclone", "serve", "http", str(web), "--addr", f"[::]:{HTTP_PORT}", "--config", "/dev/null"),
        *("--cert", str(tls / "site.pem"), "--key", str(tls / "site.key"), "--no-checksum"),
    ]
    with rig.running("north", argv, stderr=subprocess.DEVNULL):
        yield


def _eta(rig: Rig, weather: Weather, scale: float) -> dict[str, Any]:
    """Pulls of some seconds under a promise that the link can hold, at three losses."""
    content = rig.random(int(160e6 * max(scale, 0.5)))
    errors: list[float] = []
    for loss, rate in ((0.0, 0.6), (0.001, 0.6), (0.01, 0.4)):
        weather.brown_out("lossy", Brownout(loss=loss))
        for _ in range(3 if scale == 1 else 1):
            errors += _foretold(rig.ours([content], [{"windows": [rate * RATE / 8]}]))
    return {"eta_p95_error": round(sorted(errors)[int(0.95 * (len(errors) - 1))], 4), "eta_samples": len(errors)}


def _name(loss: float) -> str:
    return f"{loss:.2%}"


def _resume(rig: Rig, content: Content) -> dict[str, float]:
    """Frames that come in over a pull killed at half and one that goes on, against an undisturbed one."""
    begun = rig.received()
    rig.ours([content])
    undisturbed = rig.received() - begun
    rig.forget()
    begun = rig.received()
    with rig.running("south", rig.pull([content])) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line).get("done_bytes", 0) >= content.size_bytes / 2:
                break
        kill(child.pid)
        child.wait()
    with rig.running("south", rig.pull([content])) as child:
        said = json.loads(child.communicate()[0].splitlines()[-1])["outcome"]
    Keep(rig.place / "south" / "keep").verify(content.blake3)
    return {
        "resent_share": round((rig.received() - begun) / undisturbed - 1, 4),
        "resumed_at_share": round(said["resumed_bytes"] / content.size_bytes, 3),
    }


def _foretold(said: list[dict[str, Any]]) -> list[float]:
    """Errors of all that was told of the end, as shares of the whole time."""
    begun, ended = said[-1]["begun"], said[-1]["ended"]
    told = [
        line["predicted_end"]
        for line in said[:-1]
        if line["predicted_end"] and line["done_bytes"] < line["total_bytes"]
    ]
    return [abs(end - ended) / (ended - begun) for end in told]


def _small(rig: Rig, count: int, large: Content) -> dict[str, Any]:
    keep = Keep(rig.place / "north" / "keep")
    contents = []
    for _ in range(count):
        data = os.urandom(4000)
        name = blake3(data).hexdigest()
        path = rig.place / "fresh"
        path.write_bytes(data)
        keep.admit(str(path), name)
        contents.append(Content(blake3=name, size_bytes=4000))
    said = rig.ours(contents)
    small = 4000 * count / said[-1]["seconds"]
    whole = large.size_bytes / rig.ours([large])[-1]["seconds"]
    return {
        "small_processors": said[-1]["processors"],
        "small_files": round(small / whole, 3),
        "small_files_per_second": round(small / 4000),
        "small_peak_mib": round(said[-1]["peak_mib"], 1),
    }


def _paths(rig: Rig, scale: float) -> dict[str, Any]:
    found = show(rig.name)
    routers = [Router(name=router["name"], locator=router["locator"]) for router in found["routers"]]
    prefixes = {"north": f"{rig.north_address.removesuffix('1')}/64", "south": f"{rig.south.removesuffix('1')}/64"}
    attachments = [
        Attachment(site=site, router=router, prefixes=(prefixes[site],))
        for site, router in (("north", "a"), ("south", "b"))
    ]
    planes = {router["name"]: RouterClient(Path(router["control"])) for router in found["routers"]}
    steerings = [
        Steering(
            name=f"{source}-{n}",
            source=source,
            target=target,
            ways=(Via(via=(f"r{n}",)),),
            match=Match(flow_label=n),
        )
        for n in range(1, 5)
        for source, target in (("north", "south"), ("south", "north"))
    ]
    for name, state in Fabric(routers, attachments).states(steerings).items():
        planes[name].apply(state)
    one, four = rig.random(int(80e6 * scale)), rig.random(int(320e6 * scale))
    rates = []
    used: dict[str, float] = {}
    for content, labels in ((one, [1]), (four, [1, 2, 3, 4])):
        said = rig.ours([content], [{"flow_label": label} for label in labels])[-1]
        rates.append(content.size_bytes / said["seconds"])
        used = said["processors"]
    return {
        "four_paths": round(rates[1] / rates[0], 3),
        "paths_processors": used,
        "one_path_mbit": round(rates[0] * 8 / 1e6, 1),
        "path": "100 Mbit/s, 20 ms each way",
    }


def _shares(processors: dict[str, float]) -> str:
    return ", ".join(f"{key} {share}" for key, share in processors.items())


def _rows(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, cell in figures.get("by_loss", {}).items():
        asked = next(share for loss, share in ASKED.items() if _name(loss) == name)
        others = ", ".join(f"{key} {cell[key]:.1%}" for key in ("rclone", "aria2", "cubic", "bbr"))
        rows.append((f"share of the link, loss {name}", f"{cell['ours']:.1%}", f">= {asked:.0%}", others))
        used = _shares(figures["processors"][name])
        rows.append(
            (
                f"  flood; processors while ours ran, of {os.cpu_count()}",
                f"{figures['udp_mbit'][name]} Mbit/s",
                "",
                used,
            )
        )
    if cell := figures.get("by_loss", {}).get("0.10%"):
        rows.append(("against one CUBIC stream, loss 0.10%", f"{cell['ours'] / cell['cubic']:.1f}x", ">= 4x", ""))
    if "four_paths" in figures:
        one, used = f"one: {figures['one_path_mbit']} Mbit/s", _shares(figures["paths_processors"])
        rows.append(
            ("four SRv6 paths against one", f"{figures['four_paths']:.2f}x", ">= 3.6x", f"{one}; processors {used}")
        )
    if "small_files" in figures:
        rate, used = f"{figures['small_files_per_second']:,} files/s", _shares(figures["small_processors"])
        rows.append(
            (
                "files of 4 kB, rate against a large file",
                f"{figures['small_files']:.1%}",
                ">= 50 %",
                f"{rate}; processors {used}",
            )
        )
    if "resent_share" in figures:
        gone_on = f"gone on from {figures['resumed_at_share']:.1%}, hashes equal"
        rows.append(("sent again after SIGKILL at half", f"{figures['resent_share']:.2%}", "<= 2 %", gone_on))
    if "eta_p95_error" in figures:
        label = f"foretold end, error p95 of {figures['eta_samples']}"
        rows.append((label, f"{figures['eta_p95_error']:.1%}", "<= 5 %", "of the whole time, under a promised rate"))
    peak = max(figures.get("peak_mib", 0.0), figures.get("small_peak_mib", 0.0))
    if peak:
        rows.append(("most memory of the puller", f"{peak} MiB", "", ""))
    return rows


if __name__ == "__main__":
    main()
