"""Two sites on emulated links and what runs between them, for `benchmarks.transfer`: our two ends, the flood, and the other tools."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.transfer_ends import DATAGRAM_BYTES
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Content
from isthmus.data.transfer.tickets import Ticket, digest_of, encode_list, sign
from isthmus.lab import namespaces
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import enter_command, show
from isthmus.trust.authority import Authority

RATE = 500e6
FRAME_BYTES = DATAGRAM_BYTES + 8 + 40 + 14
TCP_PAYLOAD_OF_FRAME = 1428 / 1514
PORT, HTTP_PORT = 7422, 7480
HOST_SETTINGS = """
echo bbr > /proc/sys/net/ipv4/tcp_congestion_control
ip -6 route show proto static | sed 's/ pref .*//' | while read route; do ip -6 route change $route initcwnd 64 initrwnd 64; done
"""
"""What docs/transfers.md tells operators to set; the buffers of TCP are large in emulated networks anyway."""
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
                subprocess.run(enter_command(self.name, site, ["sh", "-c", HOST_SETTINGS]), check=True)
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
        before = _used(self.name)
        with self.running("south", self.pull(contents, ways)) as child:
            said = [json.loads(line) for line in child.communicate()[0].splitlines()]
        if not said or said[-1].get("outcome", {}).get("end") != "done":
            raise SystemExit(f"a pull did not end well: {said[-1:]}")
        seconds = said[-1]["seconds"]
        used = {name: now - before.get(name, 0.0) for name, now in _used(self.name).items()} | {
            "receiver": said[-1]["cpu_seconds"]
        }
        said[-1]["processors"] = {name: round(passed / seconds, 2) for name, passed in used.items()}
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


def _used(network: str) -> dict[str, float]:
    """Seconds of processor time so far: of the data server, of the process that delays packets, of the kernel for packets (softirq, of
    which programs pay most elsewhere) and of all that runs on the machine."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = [int(field) / tick for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    used = {"packets": fields[6], "machine": sum(fields) - fields[3] - fields[4]}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            passed = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            continue
        for name, marker in (
            ("sender", "benchmarks.transfer_ends serve"),
            ("delay", f"isthmus.lab.network.delay /var/tmp/isthmus-network-{network}/"),
        ):
            if marker in command:
                used[name] = used.get(name, 0.0) + sum(map(int, passed)) / tick
    return used


def round_trip(rig: Rig) -> float:
    """Milliseconds."""
    argv = enter_command(rig.name, "south", ["ping", "-6", "-c", "10", "-i", "0.05", "-q", rig.north_address])
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return float(said.splitlines()[-1].split("=")[1].split("/")[1])


def yardstick(rig: Rig, seconds: float) -> float:
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


def peers(rig: Rig) -> dict[str, list[str]]:
    """The commands of the other tools."""
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


def peer(rig: Rig, argv: list[str], size: int, longest: float) -> float:
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


def iperf(rig: Rig, control: str, seconds: float) -> float:
    """Bytes per second of one stream without TLS."""
    with rig.running("south", ["iperf3", "-s", "-1", "-p", "5201"]) as server:
        time.sleep(0.3)
        client = ["iperf3", "-c", rig.south, "-p", "5201", "-t", str(int(seconds)), "-C", control, "-J"]
        with rig.running("north", client) as child:
            said = json.loads(child.communicate()[0])
        server.communicate()
    return float(said["end"]["sum_received"]["bits_per_second"]) / 8


def kill(pid: int) -> None:
    """SIGKILL to a program that was started through others in between."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split() if children.exists() else []:
        kill(int(child))
    os.kill(pid, signal.SIGKILL)
