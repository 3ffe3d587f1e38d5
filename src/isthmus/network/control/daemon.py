"""The privileged daemon of one router: `python -m isthmus.network.control.daemon CONFIG`.

It alone needs CAP_NET_ADMIN. It listens on one local socket, takes JSON lines from the accounts that its configuration names, knows
five requests, and refuses what the configuration does not permit. Stopped or killed it leaves the data plane as it is; started again it
corrects what is wrong and touches nothing that is right. `--remove` removes all that it ever made, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pyroute2.netlink.exceptions import NetlinkError

from isthmus.domain.errors import Forbidden, Invalid, IsthmusError, Unavailable
from isthmus.network.control import desired
from isthmus.network.control.desired import DesiredState
from isthmus.network.control.linux_srv6 import LinuxSrv6
from isthmus.network.control.permit import Permit, read_permit

_log = logging.getLogger(__name__)
LONGEST_LINE = 4 << 20
LONGEST_WORD_OF_STRANGERS = 1 << 16
MOST_CONNECTIONS = 32
SECONDS_BETWEEN_CHECKS = 30.0
SECONDS_AFTER_TROUBLE = 0.2
_RTMGRP_LINK = 1
_Answer = TypeVar("_Answer")


class Daemon:
    """Answers requests; the kernel is told one thing after the other, by one thread."""

    def __init__(self, permit: Permit) -> None:
        """Touch nothing yet."""
        self._permit = permit
        self._kernel = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._connections = 0
        self._changed = asyncio.Event()
        self._links: dict[str, bool] = {}
        self._stirred = asyncio.Event()

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        self._plane = await self._in_kernel(lambda: LinuxSrv6(self._permit.state))
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        events = _link_events()
        loop.add_reader(events.fileno(), self._take_events, events)
        await self._look()
        await self._correct()
        self._permit.socket.unlink(missing_ok=True)
        former = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._talk, self._permit.socket, limit=LONGEST_LINE)
        finally:
            os.umask(former)
        # Who may ask is decided by the account at the other end; the file's mode lets them try.
        self._permit.socket.chmod(0o666)
        tasks = [asyncio.create_task(part()) for part in (self._check_from_time_to_time, self._follow_links)]
        print("ready", flush=True)
        async with server:
            await ended.wait()
        for task in tasks:
            task.cancel()
        loop.remove_reader(events.fileno())
        events.close()
        self._permit.socket.unlink(missing_ok=True)
        await self._in_kernel(self._plane.close)

    async def _in_kernel(self, call: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._kernel, call)

    async def _check_from_time_to_time(self) -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_CHECKS)
            await self._correct()

    async def _correct(self) -> None:
        try:
            changes = await self._in_kernel(self._plane.reconcile)
        except (IsthmusError, NetlinkError) as error:
            _log.warning("the data plane could not be corrected: %s", error)
            return
        if changes.total:
            _log.info("corrected the data plane: %d made, %d removed", changes.made, changes.removed)

    def _take_events(self, events: socket.socket) -> None:
        with contextlib.suppress(OSError):  # BlockingIOError: read empty; ENOBUFS: some were lost, so look anyway
            while True:
                events.recv(65536)
        self._stirred.set()

    async def _follow_links(self) -> None:
        """Look at the interfaces after events; those that come meanwhile are one more look together."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            try:
                await self._look()
            except NetlinkError as error:
                _log.warning("the interfaces could not be listed: %s", error)
                await asyncio.sleep(SECONDS_AFTER_TROUBLE)
                self._stirred.set()

    async def _look(self) -> None:
        links = await self._in_kernel(self._plane.links)
        if links != self._links:
            self._links = links
            self._changed.set()
            self._changed = asyncio.Event()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        admitted = False
        try:
            try:
                self._admit(writer)
            except IsthmusError:
                # What was sent is read before the answer: a close with unread data would take the answer away.
                await asyncio.wait_for(reader.read(LONGEST_WORD_OF_STRANGERS), 1.0)
                raise
            admitted = True
            self._connections += 1
            while line := await reader.readline():
                request = _read_request(line)
                if request["do"] == "watch":
                    await self._watch(writer)
                _send(writer, await self._answer(request))
                await writer.drain()
        except IsthmusError as error:
            _send(writer, _error(error))
        except (ValueError, ConnectionError, TimeoutError) as error:  # a line beyond the limit; a caller that went away
            _log.info("a connection ended: %s", error)
        finally:
            self._connections -= int(admitted)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _admit(self, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _pid, user, _group = struct.unpack("3i", peer)
        if user not in self._permit.users:
            raise Forbidden(f"The account number {user} may not ask.", remedy="Name it under `users`.")
        if self._connections >= MOST_CONNECTIONS:
            raise Unavailable("There are too many connections.", remedy="Close some.")

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        while True:
            changed = self._changed
            _send(writer, {"links": self._links})
            await writer.drain()
            await changed.wait()

    async def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._in_kernel(lambda: self._do(request))
        except IsthmusError as error:
            return _error(error)
        except NetlinkError as error:
            return _error(Unavailable(f"The kernel refused: {error}."))

    def _do(self, request: Mapping[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "apply":
                state = desired.read(request.get("state"))
                self._permit.check(state)
                return asdict(self._plane.apply(state))
            case "set_paths":
                paths = desired.read_paths(request.get("paths"))
                self._permit.check_paths(paths)
                return asdict(self._plane.set_paths(str(request.get("policy")), paths))
            case "reconcile":
                return asdict(self._plane.reconcile())
            case "state":
                return {"state": desired.as_json(self._plane.state())}
            case "links":
                return {"links": self._plane.links()}
            case other:
                raise Invalid("do", f"{other!r} is not a request.")


def _read_request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError:
        raise Invalid("request", "It is not JSON.") from None
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise Invalid("request", "It has no `do`.")
    return request


def _error(error: IsthmusError) -> dict[str, Any]:
    field = {"field": error.field} if isinstance(error, Invalid) else {}
    return {"error": {"code": error.code, "cause": error.cause, "remedy": error.remedy, **field}}


def _send(writer: asyncio.StreamWriter, value: object) -> None:
    writer.write(json.dumps(value).encode() + b"\n")


def _link_events() -> socket.socket:
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    events.bind((0, _RTMGRP_LINK))
    return events


def main() -> int:
    """Serve, or with --remove take everything away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "config", type=Path, help="JSON: socket, state, users, locators, segments, destinations, interfaces"
    )
    parser.add_argument(
        "--remove", action="store_true", help="remove all that the daemon made in this network namespace"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        permit = read_permit(arguments.config)
        if arguments.remove:
            plane = LinuxSrv6(permit.state)
            changes = plane.apply(DesiredState())
            plane.close()
            print(f"removed {changes.total}")
        else:
            asyncio.run(_serve(permit))
    except IsthmusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(permit: Permit) -> None:
    await Daemon(permit).serve()


if __name__ == "__main__":
    sys.exit(main())
