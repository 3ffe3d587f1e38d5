"""The network between one control plane and one site: loses, delays, repeats and reorders, both ways or one way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.domain.errors import Unavailable
from tests.world.centre import Centre
from tests.world.process import Process

PARTIAL = {"stage", "submit", "cancel", "let_go", "collect", "clean"}


@dataclass(slots=True)
class Link:
    """The state of one link. Rates are for each call."""

    rng: random.Random
    centre: Centre
    there: bool = True  # requests arrive
    back: bool = True  # answers arrive
    drop: float = 0.0
    lose_answer: float = 0.0
    late: float = 0.0  # the caller gives up, the request arrives afterwards
    twice: float = 0.0
    partial: float = 0.0
    latency: float = 0.02
    calls: dict[str, int] = field(default_factory=dict)

    def heal(self) -> None:
        """A quiet network again."""
        self.there = self.back = True
        self.drop = self.lose_answer = self.late = self.twice = self.partial = 0.0
        self.latency = 0.02

    async def call(self, name: str, arguments: Sequence[Any] | None) -> Any:
        """One request and its answer, if all goes well."""
        self.calls[name] = self.calls.get(name, 0) + 1
        rng, loop = self.rng, asyncio.get_running_loop()
        method: Callable[..., Any] = getattr(self.centre, name)

        def act(part: Sequence[Any] | None = arguments) -> Any:
            return method() if part is None else method(part)

        await asyncio.sleep(rng.expovariate(1 / self.latency))
        if not self.there or rng.random() < self.drop:
            await self._silence(name)
        if rng.random() < (self.late if name == "submit" else self.late / 5):
            loop.call_later(rng.uniform(1, 90), act)
            await self._silence(name)
        if rng.random() < self.twice:
            loop.call_later(rng.uniform(0, 60), act)
        if name in PARTIAL and arguments and rng.random() < self.partial:
            act(list(arguments)[: rng.randrange(len(arguments) + 1)])
            await self._silence(name)
        answer = act()
        await asyncio.sleep(rng.expovariate(1 / self.latency))
        if not self.back or rng.random() < self.lose_answer:
            await self._silence(name)
        return answer

    async def _silence(self, name: str) -> None:
        """No answer: the connection breaks, or nothing ever comes."""
        if self.rng.random() < 0.5:
            await asyncio.sleep(self.rng.uniform(0, 5))
            raise Unavailable(f"{self.centre.name} does not answer {name}.")
        await asyncio.sleep(1e7)


class FarSite:
    """The port as one control-plane process sees it, over a link. Stands still or dies with its process."""

    def __init__(self, process: Process, link: Link) -> None:
        self._process = process
        self._link = link

    async def _call(self, name: str, arguments: Sequence[Any] | None = None) -> Any:
        await self._process.gate(f"{name}.before")
        answer = await self._link.call(name, arguments)
        await self._process.gate(f"{name}.after")
        return answer

    async def describe(self) -> Any:
        return await self._call("describe")

    async def close(self) -> None:
        return None

    async def logs(self, *_: Any) -> bytes:
        return b""


def _forward(name: str) -> Any:
    async def method(self: FarSite, arguments: Sequence[Any]) -> Any:
        return await self._call(name, arguments)

    return method


for _name in ("stage", "submit", "find", "observe", "cancel", "let_go", "cancel_native", "collect", "usage", "clean"):
    setattr(FarSite, _name, _forward(_name))
