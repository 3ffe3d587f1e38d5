"""What others wrote does not steer the terminal."""

from __future__ import annotations

import json

import pytest

from isthmus.cli import screen
from isthmus.cli.terminal import TerminalFilter


def test_colours_pass_and_steering_does_not() -> None:
    """Colours, tabs and progress bars pass; titles, clipboard, cursor and C1 controls become marks."""
    given = b"\x1b[31mred\x1b[0m\t10%\r20%\n\x1b]0;title\x07\x1b[2J\x1bPq\xc2\x9b5n \xc2\xa9"

    shown = TerminalFilter().pass_on(given).decode()

    assert shown == "\x1b[31mred\x1b[0m\t10%\r20%\n�]0;title��[2J�Pq�5n ©"


def test_a_sequence_in_two_pieces() -> None:
    """A piece that ends within a sequence is judged with the next."""
    stream = TerminalFilter()
    pieces = [stream.pass_on(piece) for piece in (b"a\x1b", b"[3", b"1mb\xc2", b"\x9bc")]
    assert b"".join(pieces).decode() == "a\x1b[31mb�c"


def test_tables_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A name with a line break forges no row, and JSON escapes every sign that a terminal would obey."""
    name = "x\nFAKE \x1b[2J\x9b5n\u202e"
    screen.table(["A", "B"], [[name, "b"]])
    screen.pairs([("name", name)])
    screen.put_json({"name": name})

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert json.loads(lines[3]) == {"name": name}
