"""What the client does, without doing it: requests, pauses and local work are yielded; two thin senders perform them.

An operation is a generator of effects that returns its result, so that retries, uploads and waiting are written once
for the sync and the async client.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from isthmus.client.problems import raise_for
from isthmus.domain.errors import Unavailable

T = TypeVar("T")

RETRY_STATUS = frozenset({429, 502, 503, 504})
MAX_TRIES = 6
MAX_TOGETHER = 8
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of the REST face. `repeatable` calls change nothing the second time and may be sent again."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def document(self) -> Any:
        """The body as JSON; Unavailable when it is something else (a proxy's page, say)."""
        import json

        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Unavailable(
                f"The answer is not JSON (status {self.status}).",
                remedy="Check that the address is that of Isthmus itself and not of something before it.",
                code="not_isthmus",
            ) from error

    def field(self, name: str) -> Any:
        """One field of the JSON object in the body; Unavailable when it is not there."""
        document = self.document()
        if not isinstance(document, dict) or name not in document:
            raise Unavailable(
                f"The answer has no {name!r}.",
                remedy="Check that ISTHMUS_URL is Isthmus itself, and that this client is not older than the service.",
                code="not_isthmus",
            )
        return document[name]

    def items(self) -> list[Any]:
        """The items of the list in the body; Unavailable when it is no list."""
        found = self.field("items")
        return found if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection failed before an answer came; whether the call arrived is not known."""

    cause: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Local work that may take long (hashing, disk): the async sender does it in a thread."""

    do: Callable[[], Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Together:
    """Several operations that may go on at once, at most `MAX_TOGETHER`; the outcome is the list of their results."""

    steps: tuple[Generator[Any, Any, Any], ...] = field(repr=False)


Effect = Request | Pause | Work | Together
Steps = Generator[Effect, Any, T]


def request(
    method: str,
    path: str,
    *,
    params: Mapping[str, object] | None = None,
    json: Any = None,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    timeout_seconds: float | None = None,
    repeatable: bool | None = None,
) -> Request:
    """Build a request: empty parameters are left out, lists are repeated; a POST with an Idempotency-Key may be repeated."""
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        if value is None or value in ("", ()):
            continue
        pairs += [(name, _text(item)) for item in (value if isinstance(value, tuple | list) else (value,))]
    sent = dict(headers or {})
    if idempotency_key:
        sent["Idempotency-Key"] = idempotency_key
    safe = method in ("GET", "HEAD", "PUT", "DELETE") or "Idempotency-Key" in sent
    return Request(
        method=method,
        path=path,
        params=tuple(pairs),
        json=json,
        content=content,
        headers=sent,
        repeatable=safe if repeatable is None else repeatable,
        timeout_seconds=timeout_seconds,
    )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def new_key() -> str:
    """A fresh Idempotency-Key."""
    return secrets.token_hex(16)


def send(call: Request, *, accept: frozenset[int] = frozenset()) -> Steps[Answer]:
    """Send a call, repeat it while that is safe and may help, and raise the error of an answer that is one.

    Statuses in `accept` are answers, not errors. A 429 was not carried out and is repeated for any method; a lost
    connection or a 5xx only when the call is repeatable. `Retry-After` is honoured.
    """
    for attempt in range(1, MAX_TRIES + 1):
        outcome: Answer | Lost = yield call
        last = attempt == MAX_TRIES
        if isinstance(outcome, Lost):
            if last or not call.repeatable:
                raise Unavailable(
                    f"Isthmus does not answer: {outcome.cause}.",
                    remedy="Check the address (ISTHMUS_URL), and that the service runs: `isthmus up`."
                    if call.repeatable
                    else "It is not known whether the call arrived. Look before you repeat it.",
                )
            yield Pause(_backoff(attempt))
            continue
        if outcome.status < 400 or outcome.status in accept:
            return outcome
        again = outcome.status == 429 or (outcome.status in RETRY_STATUS and call.repeatable)
        if last or not again:
            raise_for(outcome.status, outcome.headers, outcome.body)
        yield Pause(retry_after(outcome.headers) or _backoff(attempt))
    raise AssertionError("unreachable")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a `Retry-After` header, None without one; never more than the longest pause."""
    try:
        return min(max(float(headers.get("retry-after", "")), 0.05), LONGEST_PAUSE_SECONDS)
    except ValueError:
        return None


def _backoff(attempt: int) -> float:
    longest: float = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + secrets.randbelow(1000) / 2000)
