"""Finds and makes each account's root directory at a site, and notices when it is not the one that it was."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.domain.errors import Refused, Unavailable
from isthmus.sites import scripts
from isthmus.sites.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """One account's root: its absolute path, the mark written when it was made, and the programs found at the site."""

    path: str
    mark: str
    tools: Mapping[str, str]


class Roots:
    """The roots of a site's accounts, looked up once each; `setting` may hold `~` and `{account}`. With `shared` an
    absolute setting without either gets a directory for each account, since each must own its root."""

    def __init__(self, transport: Transport, setting: str, *, shared: bool) -> None:
        self._shared = shared
        self._transport = transport
        self._setting = setting
        self._known: dict[str, Root] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def make(self, account: str) -> Root:
        """The account's root, made when it is not there; Refused when it cannot be made."""
        account = account or self._transport.own_account
        known = self._known.get(account)
        if known is not None and known.tools:
            return known
        async with self._locks.setdefault(account, asyncio.Lock()):
            known = self._known.get(account)
            if known is not None and known.tools:
                return known
            place = self._place(account)
            if self._shared and self._transport.own_account == "root" and place.startswith("/"):
                await self._transport.run(["/bin/sh", "-c", scripts.GIVE, "sh", place, account])
            result = await self._transport.run(["/bin/sh", "-c", scripts.OPEN, "sh", place], account=account)
            found = _parse(result.text)
            if result.exit_code != 0 or found is None:
                raise Refused(
                    f"The directory {place} cannot be made at {self._transport.place} by {account}: {result.complaint}",
                    remedy="Set `root` to a directory which that account can write.",
                    code="no_root",
                )
            return self._remember(account, found)

    async def look(self, account: str) -> Root | None:
        """The account's root if there is one; nothing is made."""
        account = account or self._transport.own_account
        known = self._known.get(account)
        if known is not None:
            return known
        command = ["/bin/sh", "-c", scripts.LOOK, "sh", self._place(account)]
        result = await self._transport.run(command, account=account)
        if result.exit_code != 0:
            raise Unavailable(
                f"{self._transport.place} does not say where {account} keeps its attempts: {result.complaint}"
            )
        if result.text.strip() == "none":
            return None
        found = _parse(result.text)
        if found is None:
            raise Unavailable(f"{self._transport.place} answered garbage about the root of {account}.")
        return self._remember(account, found)

    def _remember(self, account: str, found: Root) -> Root:
        known = self._known.get(account)
        if known is not None and known.mark != found.mark:
            raise Unavailable(
                f"The root {found.path} at {self._transport.place} is not the one that it was.",
                remedy="Check that the file system is mounted.",
                code="root_replaced",
            )
        self._known[account] = found
        return found

    def _place(self, account: str) -> str:
        if "{account}" in self._setting:
            return self._setting.replace("{account}", account)
        if self._setting.startswith("~") or not self._shared:
            return self._setting
        return f"{self._setting.rstrip('/')}/{account}"


def _parse(text: str) -> Root | None:
    path = mark = ""
    tools: dict[str, str] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "root":
            path = rest
        elif word == "mark":
            mark = rest
        elif word == "tool":
            name, _, where = rest.partition(" ")
            tools[name] = where
    return Root(path=path, mark=mark, tools=tools) if path.startswith("/") and mark else None
