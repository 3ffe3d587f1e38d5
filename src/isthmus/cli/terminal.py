"""What a task writes, made safe for a terminal: text, colours and progress bars pass, all else that steers a terminal
(title, clipboard, cursor, answers typed back) becomes a visible mark. What is piped is not touched."""

from __future__ import annotations

import re

_MARK = "\N{REPLACEMENT CHARACTER}".encode()
_STEERING = re.compile(rb"(\x1b\[[0-9;:]*m)|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]")
_BEGUN = re.compile(rb"(?:\x1b(?:\[[0-9;:]{0,64})?|\xc2)\Z")


class TerminalFilter:
    """Filters one stream that comes in pieces; a sequence that a piece breaks off is judged with the next piece."""

    def __init__(self) -> None:
        self._held = b""

    def pass_on(self, data: bytes) -> bytes:
        """What of the stream may go to the terminal now."""
        data = self._held + data
        begun = _BEGUN.search(data)
        self._held = begun[0] if begun else b""
        whole = data[: len(data) - len(self._held)]
        return _STEERING.sub(lambda match: match[1] or _MARK, whole)
