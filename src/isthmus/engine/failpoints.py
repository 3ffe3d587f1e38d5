"""Named places where a test may stop, kill or fail the process; in production they cost one look at a dict.

`ISTHMUS_FAILPOINTS="dispatch.intended=kill:3;collect.verified=raise"`: at the third passage the process kills itself
with SIGKILL; `raise` raises OSError; `sleep:SECONDS` sleeps; `stop` sends SIGSTOP to itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

NAMES = (
    "place.decided",
    "place.written",
    "dispatch.staged",
    "dispatch.intended",
    "dispatch.submitted",
    "dispatch.recorded",
    "observe.seen",
    "observe.written",
    "collect.taken",
    "collect.collected",
    "collect.verified",
    "collect.written",
    "account.asked",
    "account.written",
    "clean.done",
    "submit.stored",
    "cancel.sent",
    "gang.let_go",
    "gang.told",
)


def _parse(text: str) -> dict[str, Callable[[], None]]:
    points: dict[str, Callable[[], None]] = {}
    for part in filter(None, text.split(";")):
        name, _, action = part.partition("=")
        if name not in NAMES:
            raise ValueError(f"{name!r} is not a failpoint; there are {', '.join(NAMES)}")
        points[name] = _action(name, action)
    return points


def _action(name: str, action: str) -> Callable[[], None]:
    verb, _, argument = action.partition(":")
    passages = 0

    def act() -> None:
        nonlocal passages
        passages += 1
        if verb == "sleep":
            time.sleep(float(argument or 1))
            return
        if passages != int(argument or 1):
            return
        if verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif verb == "raise":
            raise OSError(f"failpoint {name}")
        else:
            raise ValueError(f"failpoint {name}: {action!r} is not kill, stop, raise or sleep")

    return act


_POINTS = _parse(os.environ.get("ISTHMUS_FAILPOINTS", ""))


def failpoint(name: str) -> None:
    """Pass a named place; nothing happens unless the environment said so when the process started."""
    if _POINTS and name in _POINTS:
        _POINTS[name]()
