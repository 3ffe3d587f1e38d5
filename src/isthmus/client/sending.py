"""Performs the steps of operations over httpx: one sender that blocks, one for asyncio; both do nothing else."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

from isthmus import __version__
from isthmus.client.config import NotConfigured, Profile
from isthmus.client.problems import raise_for
from isthmus.client.records import Event
from isthmus.client.sse import EventReader
from isthmus.client.wire import MAX_TOGETHER, Answer, Lost, Pause, Request, Steps, Together, Work

T = TypeVar("T")
TIMEOUT = httpx.Timeout(60.0, connect=10.0)
EVENT_TIMEOUT = httpx.Timeout(10.0, read=60.0)  # the server says something at least every 15 s
RECONNECT_SECONDS = 1.0


def _settings(profile: Profile) -> dict[str, Any]:
    verify: ssl.SSLContext | bool = True
    if profile.ca_file:
        try:
            verify = ssl.create_default_context(cafile=profile.ca_file)
        except OSError as error:
            raise NotConfigured(
                f"The certificates in {profile.ca_file!r} cannot be read: {error}.", remedy="Check ISTHMUS_CA_FILE."
            ) from error
    return {
        "base_url": profile.url,
        "headers": {"Authorization": f"Bearer {profile.token}", "User-Agent": f"isthmus-client/{__version__}"},
        "timeout": TIMEOUT,
        "verify": verify,
        "follow_redirects": False,
    }


def _arguments(call: Request) -> dict[str, Any]:
    given: dict[str, Any] = {"params": list(call.params), "headers": dict(call.headers)}
    if call.json is not None:
        given["json"] = call.json
    if call.content is not None:
        given["content"] = call.content
    if call.timeout_seconds is not None:
        given["timeout"] = httpx.Timeout(call.timeout_seconds, connect=10.0)
    return given


def _answer(response: httpx.Response) -> Answer:
    return Answer(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )


def _lost(error: httpx.HTTPError) -> Lost:
    return Lost(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


class Sender:
    """Performs steps and blocks meanwhile."""

    def __init__(self, profile: Profile, transport: httpx.BaseTransport | None = None) -> None:
        settings = _settings(profile)
        self._http = httpx.Client(**settings, transport=transport)

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        outcome: Any = None
        failure: Exception | None = None
        while True:
            try:
                effect = steps.throw(failure) if failure else steps.send(outcome)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            failure, outcome = None, None
            try:
                match effect:
                    case Request():
                        outcome = self._send(effect)
                    case Pause(seconds):
                        time.sleep(seconds)
                    case Work(do):
                        outcome = do()
                    case Together(several):
                        outcome = self._together(several)
            except Exception as error:
                failure = error

    def _send(self, call: Request) -> Answer | Lost:
        try:
            return _answer(self._http.request(call.method, call.path, **_arguments(call)))
        except httpx.HTTPError as error:
            return _lost(error)

    def _together(self, several: tuple[Steps[Any], ...]) -> list[Any]:
        if len(several) < 2:
            return [self.run(steps) for steps in several]
        with ThreadPoolExecutor(min(MAX_TOGETHER, len(several))) as pool:
            return list(pool.map(self.run, several))

    def events(self, params: dict[str, str], last_id: str, follow: bool) -> Iterator[Event]:
        """Server-sent events; a broken stream is taken up again after the last event that came."""
        reader = EventReader(last_id)
        while True:
            try:
                with self._http.stream(
                    "GET", "/v1/events", params=params, headers=reader.headers(), timeout=EVENT_TIMEOUT
                ) as response:
                    if response.status_code not in (200, 429, 502, 503, 504):
                        raise_for(response.status_code, response.headers, response.read())
                    if response.status_code == 200:
                        yield from reader.read(response.iter_lines())
                        if not follow:
                            return
            except httpx.HTTPError:
                pass
            time.sleep(RECONNECT_SECONDS)

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()


class AsyncSender:
    """Performs steps and lets other work go on meanwhile."""

    def __init__(self, profile: Profile, transport: httpx.AsyncBaseTransport | None = None) -> None:
        settings = _settings(profile)
        self._http = httpx.AsyncClient(**settings, transport=transport)

    async def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        outcome: Any = None
        failure: Exception | None = None
        while True:
            try:
                effect = steps.throw(failure) if failure else steps.send(outcome)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            failure, outcome = None, None
            try:
                match effect:
                    case Request():
                        outcome = await self._send(effect)
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case Work(do):
                        outcome = await asyncio.to_thread(do)
                    case Together(several):
                        outcome = await self._together(several)
            except Exception as error:
                failure = error

    async def _send(self, call: Request) -> Answer | Lost:
        try:
            return _answer(await self._http.request(call.method, call.path, **_arguments(call)))
        except httpx.HTTPError as error:
            return _lost(error)

    async def _together(self, several: tuple[Steps[Any], ...]) -> list[Any]:
        room = asyncio.Semaphore(MAX_TOGETHER)

        async def one(steps: Steps[Any]) -> Any:
            async with room:
                return await self.run(steps)

        running = [asyncio.ensure_future(one(steps)) for steps in several]
        try:
            return list(await asyncio.gather(*running))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def events(self, params: dict[str, str], last_id: str, follow: bool) -> AsyncIterator[Event]:
        """Server-sent events; a broken stream is taken up again after the last event that came."""
        reader = EventReader(last_id)
        while True:
            try:
                async with self._http.stream(
                    "GET", "/v1/events", params=params, headers=reader.headers(), timeout=EVENT_TIMEOUT
                ) as response:
                    if response.status_code not in (200, 429, 502, 503, 504):
                        raise_for(response.status_code, response.headers, await response.aread())
                    if response.status_code == 200:
                        async for line in response.aiter_lines():
                            event = reader.feed(line)
                            if event is not None:
                                yield event
                        if not follow:
                            return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(RECONNECT_SECONDS)

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.aclose()
