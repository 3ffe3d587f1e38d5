"""Fetches inputs by http and https at the site itself, with its curl or wget; addresses and headers go by standard input."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from isthmus.domain.errors import Invalid, IsthmusError
from isthmus.domain.lifecycle import EndReason
from isthmus.sites import scripts
from isthmus.sites.port import JobFile, Rejected, Staged, StageOutcome, Uncertain
from isthmus.sites.roots import Root
from isthmus.sites.transport import Carries, CommandResult, Transport

_LONGEST_SECONDS = 6 * 3600.0
_CURL = {  # curl(1), EXIT CODES
    6: "the host's name is not known there",
    7: "the host does not take the connection",
    18: "the content broke off",
    28: "it took too long",
    35: "TLS cannot be agreed with the host",
    47: "it is redirected without end",
    52: "the host answered nothing",
    56: "the connection broke",
    60: "the host's certificate is not trusted there",
}
_GONE = frozenset({"400", "401", "403", "404", "405", "410", "451"})


class Fetcher:
    """Fetches at one site."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def fetch(self, files: Sequence[tuple[JobFile, str]], root: Root, key: str, account: str) -> StageOutcome:
        """Fetch each file to its place, then mark the attempt staged."""
        try:
            for item, place in files:
                refusal = await self._fetch_one(item, place, root, account)
                if refusal is not None:
                    return refusal
            marked = await self._transport.run(
                ["/bin/sh", "-c", scripts.MARK_STAGED, "sh", root.path], stdin=f"{key}\n".encode(), account=account
            )
        except Invalid as error:
            return Rejected(reason=EndReason.INPUT_MISSING, message=str(error))
        except IsthmusError as error:
            return Uncertain(message=str(error))
        if marked.text.strip() != key:
            return Uncertain(message=f"The attempt could not be marked staged: {marked.complaint}")
        return Staged()

    async def _fetch_one(self, item: JobFile, place: str, root: Root, account: str) -> StageOutcome | None:
        mode = "755" if item.executable else "644"
        if "curl" in root.tools:
            script, config = scripts.FETCH_CURL, curl_config(item)
        elif "wget" in root.tools:
            script, config = scripts.FETCH_WGET, wget_config(item)
        else:
            return Rejected(
                reason=EndReason.REJECTED_BY_SITE,
                message=f"{self._transport.place} has neither curl nor wget to fetch {show_url(item.url)} with.",
            )
        result = await self._transport.run(
            ["/bin/sh", "-c", script, "sh", place, mode],
            stdin=config,
            timeout_seconds=_LONGEST_SECONDS,
            account=account,
            carries=Carries.IN,
        )
        return None if result.exit_code == 0 else _explain(item, result, uses_curl="curl" in root.tools)


def curl_config(item: JobFile) -> bytes:
    """The address and headers as curl's configuration."""
    lines = [f'url = "{_quoted(item.url)}"']
    lines += [f'header = "{_quoted(f"{name}: {value}")}"' for name, value in item.headers.items()]
    return ("\n".join(lines) + "\n").encode()


def wget_config(item: JobFile) -> bytes:
    """The address on the first line, then headers as wget's configuration."""
    lines = [
        _one_line(item.url),
        *(f"header = {_one_line(f'{name}: {value}')}" for name, value in item.headers.items()),
    ]
    return ("\n".join(lines) + "\n").encode()


def show_url(url: str) -> str:
    """An address without what may be secret in it: no user, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _one_line(text: str) -> str:
    if any(ord(mark) < 32 for mark in text):
        raise Invalid("url", "an address or header holds a control character.", remedy="Remove it.")
    return text


def _quoted(text: str) -> str:
    return _one_line(text).replace("\\", "\\\\").replace('"', '\\"')


def _explain(item: JobFile, result: CommandResult, *, uses_curl: bool) -> StageOutcome:
    status = result.text.strip()[-3:]
    shown = show_url(item.url)
    if uses_curl and result.exit_code == 22 and status in _GONE:
        return Rejected(reason=EndReason.INPUT_MISSING, message=f"{shown} answered {status}.")
    if uses_curl and result.exit_code in (1, 3):
        return Rejected(reason=EndReason.INPUT_MISSING, message=f"{shown} is not an address that can be fetched.")
    why = f"failed with code {result.exit_code}"
    if uses_curl:
        why = f"answered {status}" if result.exit_code == 22 else _CURL.get(result.exit_code, why)
    return Uncertain(message=f"Fetching {shown} at the site: {why}; it is tried again.")
