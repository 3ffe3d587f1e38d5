"""What a site's agent does for the network, where its operator lets it: measure paths, and speak to routers' daemons of its machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isthmus.domain.errors import Forbidden
from isthmus.network.measurement.probing import Prober, Probes, Told


class NetworkDoor:
    """Denies by default: only the prefixes and the sockets that the agent was started with."""

    def __init__(self, measured: Iterable[str] = (), routers: Iterable[Path] = ()) -> None:
        """`measured` are prefixes; `routers` sockets of daemons of `isthmus.network.control`."""
        self._measured = tuple(measured)
        self._prober = Prober(self._measured)
        self._routers = {str(path) for path in routers}

    async def measure(self, asked: Probes) -> tuple[Told, ...]:
        """A round of measurements; Forbidden outside of what is permitted."""
        if not self._measured:
            raise Forbidden(
                "This agent measures nothing.",
                remedy="The site's operator starts it with --measure PREFIX.",
            )
        return await asyncio.to_thread(self._prober.run, asked)

    async def ask_router(self, socket: str, request: dict[str, Any]) -> dict[str, Any]:
        """One request to a router's daemon, and its answer as it is; the daemon checks what it is asked."""
        if socket not in self._routers:
            raise Forbidden(
                f"This agent does not speak to {socket}.",
                remedy="The site's operator starts it with --router SOCKET.",
            )
        from isthmus.network.control.client import RouterClient

        return await asyncio.to_thread(RouterClient(Path(socket)).ask, request)
