"""The tree of errors that a person or a program meets.

IsthmusError
├── Refused        the request can never work as it stands; change it
│   └── Invalid    a named field is wrong
├── Forbidden      the caller may not do this
├── NotFound       no such thing, or not for the caller's eyes
├── Conflict       the thing changed, or exists already
├── Busy           too much at once; come back after `retry_after_seconds`
├── Unavailable    a part that is needed does not answer now; nothing is known of the outcome
└── Corrupt        stored content does not match its hash or its invariant
"""

from __future__ import annotations


class IsthmusError(Exception):
    """An error with a code for programs, a cause and a remedy for people."""

    code = "error"
    status = 500

    def __init__(self, cause: str, *, remedy: str = "", code: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}".strip()


class Refused(IsthmusError):
    """The request can never work as it stands."""

    code = "refused"
    status = 422


class Invalid(Refused, ValueError):
    """A named field is wrong: `field` is a dotted path, `cause` what was wrong, `remedy` what would be right."""

    code = "invalid"

    def __init__(self, field: str, cause: str, *, remedy: str = "") -> None:
        super().__init__(cause, remedy=remedy)
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.cause} {self.remedy}".strip()


class Forbidden(IsthmusError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403


class Unauthenticated(IsthmusError):
    """The caller is not known."""

    code = "unauthenticated"
    status = 401


class NotFound(IsthmusError):
    """No such thing, or not for the caller's eyes."""

    code = "not_found"
    status = 404


class Conflict(IsthmusError):
    """The thing changed meanwhile, exists already, or is in a state that does not allow this."""

    code = "conflict"
    status = 409


class Busy(IsthmusError):
    """Too much at once: nothing was stored; try again after `retry_after_seconds`."""

    code = "busy"
    status = 429

    def __init__(self, cause: str, *, remedy: str = "", retry_after_seconds: float = 1.0) -> None:
        super().__init__(cause, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(IsthmusError):
    """A part that is needed does not answer now; the outcome of what was asked is not known."""

    code = "unavailable"
    status = 503


class Corrupt(IsthmusError):
    """Stored content does not match its hash, or a stored row breaks an invariant."""

    code = "corrupt"
    status = 500
