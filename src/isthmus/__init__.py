"""Isthmus joins separate compute centres, and the networks between them, into one compute network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.client.asynchronous import AsyncClient as AsyncClient
    from isthmus.client.sync import Client as Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Client", "AsyncClient"):  # imported when asked for: the command line answers faster without
        from isthmus import client

        return getattr(client, name)
    raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
