"""Following a task across its tries: none is left out, however quickly it came and went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest

from isthmus.client.waiting import follow
from isthmus.client.wire import Answer, Request

LOGS = {"one": b"first\n", "two": b"second\n", "three": b"third\n"}


def _told(looks: Sequence[tuple[str, str, int]], *, from_first: bool) -> str:
    """What is written when the task is seen in these states (state, attempt, how many attempts), one after the other."""
    written: list[bytes] = []
    steps = follow("t", streams=["stdout"], write=lambda _name, data: written.append(data), from_first=from_first)
    seen: Iterator[tuple[str, str, int]] = iter(looks)
    outcome: Any = None
    try:
        effect = next(steps)
        while True:
            if isinstance(effect, Request):
                params = dict(effect.params)
                if effect.path.endswith("/logs"):
                    data = LOGS[str(params["attempt"])][int(params["offset"]) :]
                    headers = {"x-next-offset": str(int(params["offset"]) + len(data)), "x-log-complete": "true"}
                    outcome = Answer(200, headers, data)
                elif effect.path.endswith("/attempts"):
                    items = [{"key": key} for key in LOGS]
                    outcome = Answer(200, {}, orjson.dumps({"items": items, "next_cursor": None}))
                else:
                    state, attempt, count = next(seen)
                    document = {"id": "t", "state": state, "attempt": attempt, "attempts": count}
                    outcome = Answer(200, {}, orjson.dumps(document))
            else:
                outcome = None
            effect = steps.send(outcome)
    except StopIteration:
        return b"".join(written).decode()


@pytest.mark.parametrize(
    ("looks", "from_first", "told"),
    [
        ([("running", "one", 1), ("running", "two", 2), ("failed", "three", 3)], True, "first\nsecond\nthird\n"),
        ([("running", "one", 1), ("failed", "three", 3)], True, "first\nsecond\nthird\n"),
        ([("waiting", "", 0), ("failed", "three", 3)], True, "first\nsecond\nthird\n"),
        ([("running", "two", 2), ("failed", "three", 3)], False, "second\nthird\n"),
        ([("succeeded", "one", 1)], True, "first\n"),
    ],
)
def test_every_try_is_told_once(looks: list[tuple[str, str, int]], from_first: bool, told: str) -> None:
    """Seen one by one, or with some missed between two looks, or all before the first one."""
    assert _told(looks, from_first=from_first) == told
