"""Server-sent events: lines to events (the HTML standard, section 9.2); the reading of the network is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from isthmus.client.operations import read_event
from isthmus.client.records import Event
from isthmus.domain.errors import Unavailable

CUT = "cut"  # the kind of the last event of a stream that the server ends


@dataclass(slots=True)
class EventReader:
    """Takes lines, gives events, and remembers the id to resume after."""

    last_id: str = ""
    _kind: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, line: str) -> Event | None:
        """One line without its end; an event when the line completes one."""
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self.last_id = value
        return None

    def _complete(self) -> Event | None:
        text, kind = "\n".join(self._data), self._kind
        self._data, self._kind = [], ""
        if not text or kind == CUT:
            return None
        try:
            document = json.loads(text)
        except ValueError as error:
            raise Unavailable("An event is not JSON.", remedy="Check what stands between you and Isthmus.") from error
        return read_event({"seq": self.last_id, "kind": kind, **document})

    def headers(self) -> dict[str, str]:
        """The headers of a (re)connection."""
        return {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last_id} if self.last_id else {})

    def read(self, lines: Iterable[str]) -> Iterator[Event]:
        """All events of some lines."""
        for line in lines:
            event = self.feed(line)
            if event is not None:
                yield event
