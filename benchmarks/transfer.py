"""Moving data over emulated long links: `python -m benchmarks.transfer [--json] [--quick]`, as root.

One link of 500 Mbit/s with 20 ms each way (packets cross it in trains, see docs/lab.md), then one that cuts them to 1,500 bytes and loses a share of them.
Side by side in one run: Isthmus, rclone and aria2 over TLS from rclone's HTTP server, one stream of CUBIC and of BBR (iperf3, no TLS). The yardstick is a
paced flood of datagrams of 1,400 bytes on the same link: what arrives of its payload is 1. Rclone and aria2 have 16 streams, and BBR as we have.
Contents are in memory: the disk is not measured. Then four SRv6 paths of 100 Mbit/s chosen by flow label against one; 100,000 files of 4 kB; a pull that is
killed at half and goes on; and how well the end was foretold under a promised rate.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3

from benchmarks.machine import describe, table
from benchmarks.transfer_ends import DATAGRAM_BYTES
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Content
from isthmus.data.transfer.tickets import Ticket, digest_of, encode_list, sign
from isthmus.lab import namespaces
from isthmus.lab.network.conditions import Brownout
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import enter_command, show
from isthmus.lab.network.weather import Weather
from isthmus.network.control.client import RouterClient
from isthmus.network.control.desired import Match
from isthmus.network.control.plan import Attachment, Fabric, Router, Steering
from isthmus.network.control.plan import Way as Via
from isthmus.trust.authority import Authority

LOSSES = (0.0, 0.0001, 0.001, 0.01)
ASKED = {0.0: 0.95, 0.0001: 0.92, 0.001: 0.85, 0.01: 0.70}
RATE, PATH_RATE = 500e6, 100e6
FRAME_BYTES = DATAGRAM_BYTES + 8 + 40 + 14
TCP_PAYLOAD_OF_FRAME = 1428 / 1514
PORT, HTTP_PORT = 7422, 7480
PEERS = ("rclone", "aria2")
TOOLS = {"iperf3": "iperf3", "rclone": "rclone", "aria2c": "aria2"}
ONE = """
name: {name}
routers: [r1]
sites: {{north: , south: }}
links:
  - {{name: long, ends: [north, r1], rate: 500 Mbit/s, delay: 20 ms, offload: true}}
  - {{name: lossy, ends: [south, r1]}}
"""
FOUR = """
name: {name}
control: true
routers: [a, b, r1, r2, r3, r4]
sites: {{north: , south: }}
links:
  - {{ends: [north, a], offload: true}}
  - {{ends: [south, b], offload: true}}
"""
FOUR += "".join(
    f"  - {{{{ends: [a, r{n}], rate: 100 Mbit/s, delay: 20 ms, offload: true}}}}\n"
    f"  - {{{{ends: [b, r{n}], offload: true}}}}\n"
    for n in range(1, 5)
)


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a quarter of the bytes, two of the losses")
    arguments = parser.parse_args()
    absent = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    if absent:
        sys.exit(f"needs the packages {' '.join(absent)}: apt-get install {' '.join(absent)}")
    os.setpriority(os.PRIO_PROCESS, 0, -15)  # the link is emulated by the same processors; children inherit it
    machine = describe()
    figures: dict[str, Any] = {"link": "500 Mbit/s, 20 ms each way, packets of 1500 bytes", "machine": machine}
    scale = 0.25 if arguments.quick else 1.0
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="isthmus-transfer-") as place:
        rig = Rig(Path(place))
        with rig.network(ONE):
            figures |= _single(rig, scale, LOSSES[::2] if arguments.quick else LOSSES)
        with rig.network(FOUR):
            figures |= _paths(rig, scale)
    figures["load_at_end"] = round(os.getloadavg()[0], 2)
    print(json.dumps(machine))
    print(table(_rows(figures)))
    if arguments.json:
        print(json.dumps(figures))


class Rig:
    """Two sites with their keeps in memory, in the network that is up."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.authority = Authority.open(place / "authority")
        self.name = ""
        self.south = ""
        self._number = 0
        (place / "ticket.pem").write_bytes(self.authority.ticket_public_key)
        for site in ("north", "south"):
            issued = self.authority.issue(site)
            directory = place / site
            directory.mkdir()
            (directory / "site.pem").write_bytes(issued.certificate)
            (directory / "site.key").write_bytes(issued.key or b"")
            (directory / "ca.pem").write_bytes(issued.authority)

    @contextmanager
    def network(self, text: str) -> Iterator[None]:
        """A network with a data server at north."""
        self.name = f"t{os.getpid()}"
        with EmulatedNetwork(read_text(text.format(name=self.name))):
            addresses = {site["name"]: site["addresses"][0] for site in show(self.name)["sites"]}
            self.north_address, self.south = addresses["north"], addresses["south"]
            for site in ("north", "south"):
                setting = "echo bbr > /proc/sys/net/ipv4/tcp_congestion_control"
                subprocess.run(enter_command(self.name, site, ["sh", "-c", setting]), check=True)
            fields = {
                "keep": str(self.place / "north" / "keep"),
                "tls": str(self.place / "north"),
                "ticket_key": str(self.place / "ticket.pem"),
                "port": PORT,
            }
            with self.running(
                "north", [sys.executable, "-m", "benchmarks.transfer_ends", "serve", self.file(fields)]
            ) as one:
                assert one.stdout is not None
                one.stdout.readline()
                yield

    def file(self, fields: dict[str, Any]) -> str:
        """A JSON file for a program."""
        self._number += 1
        path = self.place / f"{self._number}.json"
        path.write_text(json.dumps(fields))
        return str(path)

    @contextmanager
    def running(self, site: str, argv: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[str]]:
        """A program at a site, ended with the block."""
        child = subprocess.Popen(
            enter_command(self.name, site, list(argv)), stdout=subprocess.PIPE, text=True, **settings
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def received(self) -> int:
        """Bytes of frames that have come in at south."""
        with namespaces.inside(next(s["namespace"] for s in show(self.name)["sites"] if s["name"] == "south")):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        return sum(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("to-"))

    def pull(self, contents: Sequence[Content], ways: list[dict[str, Any]] | None = None) -> list[str]:
        """The command that fetches contents into an empty keep at south, or one that was begun."""
        listed = self.place / "contents"
        listed.write_bytes(encode_list(contents))
        ticket = Ticket(
            order="one", reader="south", sources=("north",), contents=digest_of(contents), expires=time.time() + 3600
        )
        fields = {
            "keep": str(self.place / "south" / "keep"),
            "tls": str(self.place / "south"),
            "contents": str(listed),
            "host": self.north_address,
            "port": PORT,
            "ticket": sign(ticket, self.authority.ticket_key),
            "ways": ways or [{}],
        }
        return [sys.executable, "-m", "benchmarks.transfer_ends", "pull", self.file(fields)]

    def forget(self) -> None:
        """Empty the keep at south."""
        shutil.rmtree(self.place / "south" / "keep", ignore_errors=True)

    def ours(self, contents: Sequence[Content], ways: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """Pull into an empty keep; the lines that it prints."""
        self.forget()
        with self.running("south", self.pull(contents, ways)) as child:
            said = [json.loads(line) for line in child.communicate()[0].splitlines()]
        if not said or said[-1].get("outcome", {}).get("end") != "done":
            raise SystemExit(f"a pull did not end well: {said[-1:]}")
        return said

    def random(self, size: int) -> Content:
        """A content at north."""
        path = self.place / "fresh"
        with path.open("wb") as file:
            for begin in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - begin)))
        content = Keep(self.place / "north" / "keep").put_file(path)
        path.unlink()
        return content


def _single(rig: Rig, scale: float, losses: Sequence[float]) -> dict[str, Any]:
    content = rig.random(int(640e6 * scale))
    weather = Weather(rig.name)
    by_loss: dict[str, dict[str, float]] = {}
    yardsticks = {}
    peak = 0.0
    with ExitStack() as stack:
        web = rig.place / "web"
        web.mkdir()
        (web / "big").hardlink_to(Keep(rig.place / "north" / "keep").path_of(content.blake3))
        tls = rig.place / "north"
        stack.enter_context(
            rig.running(
                "north",
                [
                    *("rclone", "serve", "http", str(web), "--addr", f"[::]:{HTTP_PORT}", "--config", "/dev/null"),
                    *("--cert", str(tls / "site.pem"), "--key", str(tls / "site.key"), "--no-checksum"),
                ],
                stderr=subprocess.DEVNULL,
            )
        )
        rtt = _round_trip(rig)
        for loss in losses:
            weather.brown_out("lossy", Brownout(loss=loss))
            whole = _yardstick(rig, 3.0 if scale == 1 else 2.0)
            yardsticks[_name(loss)] = round(whole * 8 / 1e6, 1)
            said = rig.ours([content])
            peak = max(peak, said[-1]["peak_mib"])
            cell = {"ours": content.size_bytes / said[-1]["outcome"]["seconds"] / whole}
            longest = 1.2 * content.size_bytes / whole
            for name, argv in _peers(rig, content.size_bytes).items():
                cell[name] = _peer(rig, argv, content.size_bytes, longest) / whole
            for name in ("cubic", "bbr"):
                cell[name] = _iperf(rig, name, 8.0 if scale == 1 else 4.0) / whole
            by_loss[_name(loss)] = {key: round(value, 4) for key, value in cell.items()}
            print(_name(loss), yardsticks[_name(loss)], by_loss[_name(loss)], file=sys.stderr, flush=True)
        figures: dict[str, Any] = {
            "by_loss": by_loss,
            "udp_mbit": yardsticks,
            "rtt_ms": rtt,
            "peak_mib": round(peak, 1),
        }
        weather.heal()
        figures |= _resume(rig, content)
        errors: list[float] = []
        promised = rig.random(int(160e6 * max(scale, 0.5)))
        for loss, rate in ((0.0, 0.6), (0.001, 0.6), (0.01, 0.4)):
            weather.brown_out("lossy", Brownout(loss=loss))
            errors += _foretold(rig.ours([promised], [{"windows": [rate * RATE / 8]}]))
        weather.heal()
        figures["eta_p95_error"] = round(sorted(errors)[int(0.95 * (len(errors) - 1))], 4)
        figures["eta_samples"] = len(errors)
        figures |= _small(rig, int(100_000 * scale), content)
    return figures


def _name(loss: float) -> str:
    return f"{loss:.2%}"


def _round_trip(rig: Rig) -> float:
    argv = enter_command(rig.name, "south", ["ping", "-6", "-c", "10", "-i", "0.05", "-q", rig.north_address])
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return float(said.splitlines()[-1].split("=")[1].split("/")[1])


def _yardstick(rig: Rig, seconds: float) -> float:
    """Bytes of payload per second that arrive of a flood at 1.2 times the link's rate, the first half second left out."""
    fields = {"host": rig.south, "port": 9, "bytes_per_second": 1.2 * RATE / 8, "seconds": seconds + 1.0}
    sink = [
        sys.executable,
        "-c",
        "import socket,time; s=socket.socket(10,2); s.bind(('::',9)); print(1,flush=True); time.sleep(60)",
    ]
    with rig.running("south", sink) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        with rig.running(
            "north", [sys.executable, "-m", "benchmarks.transfer_ends", "flood", rig.file(fields)]
        ) as child:
            before = rig.received()
            while rig.received() == before and child.poll() is None:
                time.sleep(0.02)
            time.sleep(0.5)
            before, begun = rig.received(), time.monotonic()
            time.sleep(seconds - 0.5)
            got, passed = rig.received() - before, time.monotonic() - begun
            child.communicate()
    return got * DATAGRAM_BYTES / FRAME_BYTES / passed


def _peers(rig: Rig, size: int) -> dict[str, list[str]]:
    url = f"https://[{rig.north_address}]:{HTTP_PORT}"
    target = rig.place / "south" / "peer"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return {
        "rclone": [
            *("rclone", "copyto", ":http:big", str(target / "rclone"), "--http-url", url, "--no-check-certificate"),
            *("--config", "/dev/null", "--multi-thread-streams", "16", "--multi-thread-cutoff", "1M", "--quiet"),
        ],
        "aria2": [
            *("aria2c", "-x16", "-s16", "-k1M", "--check-certificate=false", "--file-allocation=none", "--quiet"),
            *("--no-conf", "--allow-overwrite=true", "-d", str(target), "-o", "aria2", f"{url}/big"),
        ],
    }


def _peer(rig: Rig, argv: list[str], size: int, longest: float) -> float:
    """Bytes per second: of the whole, or of what has come (all TCP payload) when it takes much longer than the link would."""
    before, begun = rig.received(), time.monotonic()
    with rig.running("south", argv, stderr=subprocess.DEVNULL) as child:
        try:
            child.communicate(timeout=longest)
            passed = time.monotonic() - begun
            if child.returncode:
                raise SystemExit(f"{argv[0]} failed with {child.returncode}")
            rate = size / passed
        except subprocess.TimeoutExpired:
            rate = (rig.received() - before) * TCP_PAYLOAD_OF_FRAME / (time.monotonic() - begun)
            child.kill()
            child.communicate()
    shutil.rmtree(rig.place / "south" / "peer")
    (rig.place / "south" / "peer").mkdir()
    return rate


def _iperf(rig: Rig, control: str, seconds: float) -> float:
    with rig.running("south", ["iperf3", "-s", "-1", "-p", "5201"]) as server:
        time.sleep(0.3)
        client = ["iperf3", "-c", rig.south, "-p", "5201", "-t", str(int(seconds)), "-C", control, "-J"]
        with rig.running("north", client) as child:
            said = json.loads(child.communicate()[0])
        server.communicate()
    return float(said["end"]["sum_received"]["bits_per_second"]) / 8


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
        _kill(child.pid)
        child.wait()
    with rig.running("south", rig.pull([content])) as child:
        said = json.loads(child.communicate()[0].splitlines()[-1])["outcome"]
    Keep(rig.place / "south" / "keep").verify(content.blake3)
    return {
        "resent_share": round((rig.received() - begun) / undisturbed - 1, 4),
        "resumed_at_share": round(said["resumed_bytes"] / content.size_bytes, 3),
    }


def _kill(pid: int) -> None:
    """SIGKILL to a program that was started through others in between."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split() if children.exists() else []:
        _kill(int(child))
    os.kill(pid, signal.SIGKILL)


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
    small = 4000 * count / said[-1]["outcome"]["seconds"]
    whole = large.size_bytes / rig.ours([large])[-1]["outcome"]["seconds"]
    return {
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
    for content, labels in ((one, [1]), (four, [1, 2, 3, 4])):
        said = rig.ours([content], [{"flow_label": label} for label in labels])[-1]["outcome"]
        rates.append(content.size_bytes / said["seconds"])
    return {
        "four_paths": round(rates[1] / rates[0], 3),
        "one_path_mbit": round(rates[0] * 8 / 1e6, 1),
        "path": "100 Mbit/s, 20 ms each way",
    }


def _rows(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, cell in figures["by_loss"].items():
        asked = next(share for loss, share in ASKED.items() if _name(loss) == name)
        others = ", ".join(f"{key} {cell[key]:.1%}" for key in ("rclone", "aria2", "cubic", "bbr"))
        rows.append((f"share of the link, loss {name}", f"{cell['ours']:.1%}", f">= {asked:.0%}", others))
    if cell := figures["by_loss"].get("0.10%"):
        rows.append(("against one CUBIC stream, loss 0.10%", f"{cell['ours'] / cell['cubic']:.1f}x", ">= 4x", ""))
    return [
        *rows,
        (
            "four SRv6 paths against one",
            f"{figures['four_paths']:.2f}x",
            ">= 3.6x",
            f"one: {figures['one_path_mbit']} Mbit/s",
        ),
        (
            "files of 4 kB, rate against a large file",
            f"{figures['small_files']:.1%}",
            ">= 50 %",
            f"{figures['small_files_per_second']:,} files/s",
        ),
        (
            "sent again after SIGKILL at half",
            f"{figures['resent_share']:.2%}",
            "<= 2 %",
            f"gone on from {figures['resumed_at_share']:.1%}, hashes equal",
        ),
        (
            f"foretold end, error p95 of {figures['eta_samples']}",
            f"{figures['eta_p95_error']:.1%}",
            "<= 5 %",
            "of the whole time, under a promised rate",
        ),
        (
            "payload of the flood",
            ", ".join(f"{rate} Mbit/s" for rate in figures["udp_mbit"].values()),
            "",
            f"{figures['link']}; RTT {figures['rtt_ms']} ms",
        ),
        ("most memory of the puller", f"{max(figures['peak_mib'], figures['small_peak_mib'])} MiB", "", ""),
    ]


if __name__ == "__main__":
    main()
