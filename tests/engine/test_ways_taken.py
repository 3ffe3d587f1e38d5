"""Which ways bytes took is told from what the receiving site counted, over all orders of a transfer, and not from what was planned."""

from __future__ import annotations

from isthmus.domain.dataset import WayCarried, WayTaken
from isthmus.engine import waystaken

PATHS = (("a", "r1", "b"), ("a", "r2", "b"))


def test_what_carried_nothing_is_not_told() -> None:
    """Nothing is told before the site has counted, nor of a way that was planned and brought nothing."""
    text = waystaken.ordered("[]", PATHS, "")
    assert waystaken.read(text) == ()
    text = waystaken.carried(text, [WayCarried(bytes=70, streams=6), WayCarried(bytes=0, streams=2)])
    assert waystaken.read(text) == (WayTaken(path=PATHS[0], bytes=70, streams=6),)


def test_orders_add_up() -> None:
    """The first went over two paths and broke, the second through a relay, the third over a path of the first again, over MPTCP."""
    text = waystaken.carried(
        waystaken.ordered("[]", PATHS, ""), [WayCarried(bytes=70, streams=6), WayCarried(bytes=20, streams=2)]
    )
    text = waystaken.carried(waystaken.ordered(text, (), "hub"), [WayCarried(bytes=5, streams=8)])
    text = waystaken.carried(waystaken.ordered(text, PATHS[:1], ""), [WayCarried(bytes=5, streams=8, multipath=True)])
    assert waystaken.read(text) == (
        WayTaken(path=PATHS[0], bytes=75, streams=8, multipath=True),
        WayTaken(path=PATHS[1], bytes=20, streams=2),
        WayTaken(relay="hub", bytes=5, streams=8),
    )


def test_a_policy_that_moved_takes_its_way_along() -> None:
    """That of the order under way, by its number; a report of a site that says less changes nothing."""
    text = waystaken.carried(waystaken.ordered("[]", PATHS, ""), [WayCarried(bytes=1, streams=1)] * 2)
    text = waystaken.moved(waystaken.ordered(text, PATHS, ""), 1, ("a", "r3", "b"))
    assert waystaken.carried(text, ()) == text
    text = waystaken.carried(text, [WayCarried(bytes=2, streams=1), WayCarried(bytes=3, streams=1)])
    assert [(one.path[1], one.bytes) for one in waystaken.read(text)] == [("r1", 3), ("r2", 1), ("r3", 3)]
