"""HTTP to slurmrestd: which version it speaks, who asks, and what its errors mean."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from isthmus.domain.errors import Unavailable
from isthmus.sites.batch.pace import Pace
from isthmus.sites.slurmrestd.requests import error_texts
from isthmus.sites.slurmrestd.token import TokenSource

OLDEST, NEWEST = 36, 43
_VERSION = re.compile(r"/slurm/v0\.0\.(\d+)/")


class RestClient:
    """Requests as an account; at most `max_requests` at once, each with a time-out."""

    def __init__(
        self,
        url: str,
        tokens: TokenSource,
        *,
        user: str,
        version: int = 0,
        max_requests: int = 8,
        timeout_seconds: float = 60.0,
        query_seconds: float = 0.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`user`: who asks about queue and load. `version` 0: the newest that both sides speak.
        `query_seconds`: see `Pace`."""
        self.place = url.rstrip("/")
        self._tokens = tokens
        self._user = user
        self._version = version
        self._slots = asyncio.Semaphore(max_requests)
        self._pace = Pace(query_seconds)
        self._http = httpx.AsyncClient(
            base_url=self.place, timeout=timeout_seconds, transport=transport, trust_env=False, follow_redirects=False
        )

    async def version(self) -> int:
        """The number N of the interface v0.0.N in use."""
        if not self._version:
            status, document = await self.call("GET", "/openapi/v3")
            paths = document.get("paths") if isinstance(document, Mapping) else None
            if status != 200 or not isinstance(paths, Mapping):
                raise Unavailable(f"{self.place} does not tell what it speaks (HTTP status {status}).")
            spoken = {int(match[1]) for path in paths if (match := _VERSION.match(str(path)))}
            shared = [number for number in spoken if OLDEST <= number <= NEWEST]
            if not shared:
                raise Unavailable(
                    f"{self.place} speaks none of the versions v0.0.{OLDEST} to v0.0.{NEWEST}.",
                    remedy="Start slurmrestd with one of them (-s).",
                )
            self._version = max(shared)
        return self._version

    async def get(self, plugin: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        """A document of `slurm` or `slurmdb`; Unavailable for any error in it, whatever the HTTP status says."""
        version = await self.version()
        await self._pace.take()
        status, document = await self.call("GET", f"/{plugin}/v0.0.{version}/{path}", params=params)
        errors = error_texts(document)
        if status != 200 or errors:
            raise Unavailable(self._explain(status, errors))
        return document

    async def call(
        self,
        method: str,
        path: str,
        *,
        account: str = "",
        params: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> tuple[int, Any]:
        """Status and document (None when it is no JSON). Unavailable when there is no answer or no right to ask."""
        account = account or self._user
        headers = {"X-SLURM-USER-NAME": account, "X-SLURM-USER-TOKEN": await self._tokens.token(account)}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = orjson.dumps(body)
        async with self._slots:
            try:
                answer = await self._http.request(method, path, params=params, headers=headers, content=content)
            except httpx.HTTPError as error:
                raise Unavailable(f"{self.place} does not answer: {type(error).__name__}.") from None
        if answer.status_code in {401, 403}:
            self._tokens.forget()
            raise Unavailable(self._explain(answer.status_code, []), remedy="Check the token and its account.")
        try:
            return answer.status_code, orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            return answer.status_code, None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _explain(self, status: int, errors: list[str]) -> str:
        text = "; ".join(errors)
        if status in {401, 403} or "authentication" in text.lower() or "Unspecified error" in text:
            # slurmrestd passes a token on; what the controller says about a bad one is no more than "Unspecified error".
            self._tokens.forget()
            why = f"refuses the token for {self._user} (expired or wrong), or its controller does not answer"
            return f"{self.place} {why} (HTTP status {status}{': ' + text if text else ''})."
        return f"{self.place} answers with an error (HTTP status {status}): {text or 'no explanation'}."
