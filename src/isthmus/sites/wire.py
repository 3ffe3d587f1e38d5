"""The port of a site as JSON: what travels between an `AgentSite` at the control plane and the agent at the site.

Both ends import this one module. Arguments and answers are domain and port types only; bytes are base64; a failure
travels as its class, cause and remedy, and a failure that is not ours as the name of its type alone, because its text
may hold a secret. What cannot be read raises Unreadable, which names places, never values.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from isthmus.domain import errors
from isthmus.domain.dataset import InPlace, Reading, TransferOrder, TransferProgress
from isthmus.domain.errors import Corrupt, IsthmusError, Unavailable
from isthmus.domain.site import SiteDescription
from isthmus.domain.usage import Usage
from isthmus.network.measurement.probing import Probes, Told
from isthmus.sites.port import (
    Collected,
    Full,
    Job,
    JobRef,
    LogStream,
    Observation,
    Rejected,
    Staged,
    Submitted,
    Uncertain,
)

MAX_ARGUMENT_BYTES = 64 * 1024**2
MAX_ANSWER_BYTES = 32 * 1024**2
MAX_LOG_PIECE_BYTES = 4 * 1024**2  # of one `logs` call; its caller asks again


class Unreadable(Corrupt):
    """A message is not of the form that this version writes."""

    code = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The arguments of a method that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """The arguments of stage, submit and collect."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refs:
    """The arguments of find, observe, cancel, let_go, usage and clean."""

    refs: tuple[JobRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeIds:
    """The arguments of cancel_native."""

    native_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """The arguments of logs."""

    ref: JobRef
    stream: LogStream
    offset: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterAsked:
    """The arguments of ask_router: the socket of a router's daemon, and the request as the daemon takes it."""

    socket: str
    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The arguments of data_pull and data_send."""

    orders: tuple[TransferOrder, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """The arguments of data_status."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """The arguments of data_drop, data_chill and data_verify."""

    manifests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesInPlace:
    """The arguments of data_register."""

    asked: tuple[InPlace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The arguments of data_limit: by manifest the only regions that a version may lie in (empty: anywhere)."""

    limits: dict[str, tuple[str, ...]]


Arguments = (
    Nothing
    | Jobs
    | Refs
    | NativeIds
    | LogPiece
    | Orders
    | Ids
    | Manifests
    | FilesInPlace
    | Limits
    | Probes
    | RouterAsked
)
Outcome = Staged | Submitted | Rejected | Full | Uncertain | Collected


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tagged:
    """One outcome under its name, because several kinds of outcome have the same fields."""

    staged: Staged | None = None
    submitted: Submitted | None = None
    rejected: Rejected | None = None
    full: Full | None = None
    uncertain: Uncertain | None = None
    collected: Collected | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How one method of the port travels. `outcomes` are the kinds of outcome it may answer with, if it answers with any;
    `result` is the type of its answer otherwise, None when there is none. A method that is not `repeatable` must not be
    run again when nobody knows whether it ran."""

    arguments: type[Arguments]
    result: Any = None
    outcomes: frozenset[str] = frozenset()
    mutating: bool = False
    repeatable: bool = True


METHODS: Final[Mapping[str, Method]] = {
    "describe": Method(arguments=Nothing, result=SiteDescription),
    "stage": Method(arguments=Jobs, outcomes=frozenset({"staged", "rejected", "uncertain"}), mutating=True),
    "submit": Method(
        arguments=Jobs,
        outcomes=frozenset({"submitted", "rejected", "full", "uncertain"}),
        mutating=True,
        repeatable=False,
    ),
    "find": Method(arguments=Refs, result=dict[str, tuple[str, ...]]),
    "observe": Method(arguments=Refs, result=dict[str, Observation]),
    "cancel": Method(arguments=Refs, mutating=True),
    "let_go": Method(arguments=Refs, mutating=True),
    "cancel_native": Method(arguments=NativeIds, mutating=True),
    "logs": Method(arguments=LogPiece, result=bytes),
    "collect": Method(arguments=Jobs, outcomes=frozenset({"collected", "rejected", "uncertain"}), mutating=True),
    "usage": Method(arguments=Refs, result=dict[str, Usage]),
    "clean": Method(arguments=Refs, mutating=True),
    "measure": Method(arguments=Probes, result=tuple[Told, ...]),
    "ask_router": Method(arguments=RouterAsked, result=dict[str, Any]),
    "data_pull": Method(arguments=Orders, result=dict[str, TransferProgress]),
    "data_send": Method(arguments=Orders, result=dict[str, TransferProgress]),
    "data_status": Method(arguments=Ids, result=dict[str, TransferProgress]),
    "data_drop": Method(arguments=Manifests),
    "data_chill": Method(arguments=Manifests),
    "data_warm": Method(arguments=Manifests),
    "data_verify": Method(arguments=Manifests, result=dict[str, Reading]),
    "data_limit": Method(arguments=Limits),
    "data_register": Method(arguments=FilesInPlace, result=dict[str, Reading]),
}
"""The methods of a site's port, and the two of the network, which an agent serves where its operator lets it."""

_FAILURES: Final[Mapping[str, type[IsthmusError]]] = {
    kind.__name__: kind
    for kind in (
        errors.Refused,
        errors.Invalid,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.Busy,
        errors.Unavailable,
        errors.Corrupt,
    )
}
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def method(name: str) -> Method:
    """The method of this name; Unreadable when the port has none."""
    found = METHODS.get(name)
    if found is None:
        raise Unreadable("The call names no method of a site.", remedy="Are both ends of the same version?")
    return found


def keys_of(arguments: Arguments) -> tuple[str, ...]:
    """The attempts' keys that a call is about."""
    match arguments:
        case Jobs(jobs=jobs):
            return tuple(job.key for job in jobs)
        case Refs(refs=refs):
            return tuple(ref.key for ref in refs)
        case LogPiece(ref=ref):
            return (ref.key,)
        case (
            Nothing()
            | NativeIds()
            | Probes()
            | RouterAsked()
            | Orders()
            | Ids()
            | Manifests()
            | FilesInPlace()
            | Limits()
        ):
            return ()


def encode_arguments(arguments: Arguments) -> bytes:
    """JSON of a call's arguments."""
    return _dump(_to_json(type(arguments), arguments))


def decode_arguments(name: str, text: bytes | str) -> Arguments:
    """The arguments of a call to the method `name`; Unreadable when they are not."""
    return cast("Arguments", _from_json(method(name).arguments, _load(text)))


def encode_result(name: str, result: Any) -> bytes:
    """JSON of what the method `name` answered."""
    spec = method(name)
    if spec.outcomes:
        tagged = {key: _tag(outcome) for key, outcome in result.items()}
        return _dump({"result": _to_json(dict[str, _Tagged], tagged)})
    if spec.result is bytes:
        return _dump({"result": base64.b64encode(result).decode()})
    if spec.result is None:
        return _dump({"result": None})
    if isinstance(result, Mapping):
        result = dict(result)
    return _dump({"result": _to_json(spec.result, result)})


def encode_failure(error: BaseException) -> bytes:
    """JSON of an error that a method raised; of a foreign error only the name of its type."""
    if not isinstance(error, IsthmusError):
        kind = type(error).__name__
        error = Unavailable(f"The adapter at the site failed ({kind}).", remedy="See the agent's log.")
    failed: dict[str, Any] = {
        "class": next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _FAILURES), "Unavailable"),
        "code": error.code,
        "cause": error.cause,
        "remedy": error.remedy,
    }
    if isinstance(error, errors.Invalid):
        failed["field"] = error.field
    if isinstance(error, errors.Busy):
        failed["retry_after_seconds"] = error.retry_after_seconds
    return _dump({"failed": failed})


def decode_answer(name: str, text: bytes | str) -> Any:
    """What the method `name` answered, or raises what it raised; Unreadable when the text is neither."""
    document = _load(text)
    if not isinstance(document, dict):
        raise _unreadable("answer")
    if "failed" in document:
        raise _failure(document["failed"])
    if "result" not in document:
        raise _unreadable("answer")
    return _result(method(name), document["result"])


def _result(spec: Method, value: Any) -> Any:
    if spec.outcomes:
        return {key: _untag(spec, item) for key, item in _from_json(dict[str, _Tagged], value).items()}
    if spec.result is bytes:
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise _unreadable("answer") from None
    if spec.result is None:
        return None
    return _from_json(spec.result, value)


def _tag(outcome: Outcome) -> _Tagged:
    match outcome:
        case Staged():
            return _Tagged(staged=outcome)
        case Submitted():
            return _Tagged(submitted=outcome)
        case Rejected():
            return _Tagged(rejected=outcome)
        case Full():
            return _Tagged(full=outcome)
        case Uncertain():
            return _Tagged(uncertain=outcome)
        case Collected():
            return _Tagged(collected=outcome)


def _untag(spec: Method, tagged: _Tagged) -> Outcome:
    given = {
        "staged": tagged.staged,
        "submitted": tagged.submitted,
        "rejected": tagged.rejected,
        "full": tagged.full,
        "uncertain": tagged.uncertain,
        "collected": tagged.collected,
    }
    found = [(tag, outcome) for tag, outcome in given.items() if outcome is not None]
    if len(found) != 1 or found[0][0] not in spec.outcomes:
        raise _unreadable("outcome")
    return found[0][1]


def _failure(failed: Any) -> IsthmusError:
    if not isinstance(failed, dict) or not all(
        isinstance(failed.get(name), str) for name in ("class", "code", "cause", "remedy")
    ):
        return _unreadable("failure")
    kind = _FAILURES.get(failed["class"], Unavailable)
    cause, remedy = failed["cause"], failed["remedy"]
    error: IsthmusError
    if issubclass(kind, errors.Invalid):
        error = kind(str(failed.get("field", "")), cause, remedy=remedy)
    elif issubclass(kind, errors.Busy):
        wait = failed.get("retry_after_seconds", 1.0)
        error = kind(cause, remedy=remedy, retry_after_seconds=float(wait) if isinstance(wait, int | float) else 1.0)
    else:
        error = kind(cause, remedy=remedy)
    if failed["code"] != error.code:
        error.code = failed["code"]
    return error


def _adapter(kind: Any) -> TypeAdapter[Any]:
    found = _ADAPTERS.get(kind)
    if found is None:
        found = _ADAPTERS[kind] = TypeAdapter(kind)
    return found


def _to_json(kind: Any, value: Any) -> Any:
    return _adapter(kind).dump_python(value, mode="json", exclude_defaults=True, warnings="error")


def _from_json(kind: Any, value: Any) -> Any:
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        # The text of the error holds the values, so only the first place is told.
        place = ".".join(str(part) for part in error.errors(include_input=False, include_context=False)[0]["loc"])
    raise _unreadable(place or "value")


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (TypeError, UnicodeEncodeError, ValueError):
        pass
    raise Unreadable("A value cannot be sent: it holds a number or a text that JSON has no form for.")


def _load(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    raise _unreadable("JSON")


def _unreadable(place: str) -> Unreadable:
    return Unreadable(
        f"A message between control plane and agent cannot be read, at {place[:200]}.",
        remedy="Are both ends of the same version?",
    )
