"""The Python client of the REST face, sync and async; owns how a user's program speaks to the service, and imports of the
other rooms `domain` alone.

`wire` says what is to be sent, `operations` and `administration` are the calls, `transfer`, `waiting` and `handles` are made
of them, `sending` performs them over httpx, `sync` and `asynchronous` are what users import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.client.asynchronous import AsyncClient as AsyncClient
    from isthmus.client.sync import Client as Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from isthmus.client.sync import Client

        return Client
    if name == "AsyncClient":
        from isthmus.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(name)
