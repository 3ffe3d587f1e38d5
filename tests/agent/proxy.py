"""A link that can be cut: a TCP proxy on loopback between agent and control plane."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum


class Weather(StrEnum):
    """What the link does now."""

    FINE = "fine"
    CUT = "cut"  # connections break at once, new ones too
    HOLD = "hold"  # bytes stay where they are: nobody gets an answer, nobody is told
    DEAF = "deaf"  # requests arrive, their responses are lost


class Proxy:
    """Forwards to 127.0.0.1:`port`; `port` may be changed."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.weather = Weather.FINE
        self.lost = 0  # responses, or parts of them, that were thrown away
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """Where agents dial."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Break everything."""
        assert self._server is not None
        self._server.close()
        self._break_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def turn(self, weather: Weather) -> None:
        """Change the weather; connections that carried worse weather are broken when it gets fine."""
        worse = self.weather is not Weather.FINE
        self.weather = weather
        if weather is Weather.CUT or (worse and weather is Weather.FINE):
            self._break_all()
        self._changed.set()
        self._changed = asyncio.Event()

    def _break_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self.weather is Weather.CUT:
                return
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.add(up_writer)
        flows = [
            asyncio.create_task(self._flow(reader, up_writer, back=False)),
            asyncio.create_task(self._flow(up_reader, writer, back=True)),
        ]
        try:
            await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for flow in flows:
                flow.cancel()
            await asyncio.gather(*flows, return_exceptions=True)
            self._writers.discard(up_writer)
            up_writer.transport.abort()
            with contextlib.suppress(OSError):
                await up_writer.wait_closed()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                while self.weather is Weather.HOLD:
                    await self._changed.wait()
                if back and self.weather is Weather.DEAF:
                    self.lost += 1
                    return  # the connection breaks
                writer.write(chunk)
                await writer.drain()


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """A proxy that runs in the block."""
    link = Proxy(port)
    await link.start()
    try:
        yield link
    finally:
        await link.stop()
