"""`--over 2` and `--together`: refused, planned, waiting with a reason, and run at two sites of this host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.client.service import RunningService


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service of its own, since these tests join sites."""
    running = RunningService(tmp_path_factory.mktemp("together") / "state")
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_more_parts_than_are_supported_are_refused(ask: Ask) -> None:
    """With the number that is, before anything is sent."""
    told = ask("submit", "--over", "3", "--", "true", code=None)
    assert told.code != 0
    assert "is 3" in told.err
    assert "2 sites" in told.err


@pytest.mark.timeout(240)
def test_a_pair_is_asked_for_from_the_plan_to_the_end(ask: Ask, tmp_path: Path) -> None:
    """With one site: no pair, in the dry run and in `why`. With a second, the waiting group goes, each part at a site of its own; the
    dry run shows the pair; two tasks of one name are a group too."""
    told = ask("run", "--dry-run", "--over", "2", "--memory", "64M", "--", "true", code=75)
    assert "Together: no two sites can have the group at once: wants 2 sites at once, has only" in told.out
    flags = ["--over", "2", "--memory", "64M", "--time", "1m", "--together-hold", "2m"]
    first, second = ask("submit", *flags, "--", "sh", "-c", "sleep 1; echo $ISTHMUS_PART $ISTHMUS_PEERS").out.split()
    said = ""
    for _ in range(50):
        said = ask("why", second).out
        if "Together" in said:
            break
    assert "no two sites can have the group at once" in said
    assert "What would help: It goes when two sites have room at once" in said
    ask("site", "join", "local", "second", "--set", f"root={tmp_path / 'second'}", "--account", "*=")
    ask("wait", first, second)
    shown = [ask("show", one, "--json").document for one in (first, second)]
    assert len({task["site"] for task in shown}) == 2
    assert [task["gang"] for task in shown] == [first, first]
    peers = ",".join(task["site"] for task in shown)
    assert [ask("logs", one).out for one in (first, second)] == [f"0 {peers}\n", f"1 {peers}\n"]
    why = ask("why", second).out
    assert "Together: 0 " in why
    assert "was held" in why
    told = ask("run", "--dry-run", "--over", "2", "--memory", "64M", "--", "true")
    assert "Together: 0 " in told.out
    (tmp_path / "both.yaml").write_text(
        "defaults: {together: coupled, memory: 64M, time: 1m}\n"
        "tasks:\n  - {name: ocean, command: sleep 1}\n  - {name: air, command: sleep 1}\n"
    )
    assert "Together: 0 " in ask("submit", "--dry-run", "both.yaml").out
    ids = ask("submit", "both.yaml").out.split()
    ask("wait", *ids)


@pytest.mark.timeout(120)
def test_a_part_alone_is_counted_among_what_holds_tasks(ask: Ask) -> None:
    """`why --waiting` knows the reason, though no pool was looked at."""
    alone = ask("submit", "--together", "alone", "--memory", "64M", "--", "true").out.strip()
    said = ""
    for _ in range(100):
        said = ask("why", "--waiting").out
        if "not all parts of its group wait for a place yet" in said:
            break
    assert "not all parts of its group wait for a place yet" in said
    assert "1 of 2 not handed in" in ask("why", alone).out
    ask("cancel", alone)
