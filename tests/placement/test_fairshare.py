"""Fair share between projects: equal shares get equal time, nothing starves, what was used is forgotten."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.placement.fairshare import Account, Leads, decayed, in_turn

HALF_LIFE = 86400.0
Task = tuple[str, float, float]  # project, rank, processor-seconds


def _line(queues: dict[str, list[Task]], accounts: dict[str, Account], processors: float = 100.0) -> Iterator[Task]:
    leads = Leads(accounts, processors)
    return in_turn(
        {name: iter(rows) for name, rows in queues.items()},
        leads,
        rank=lambda task: task[1],
        cost=lambda task: task[2],
        weight=1.0,
    )


@given(
    costs=st.lists(st.floats(1.0, 5000.0), min_size=2, max_size=5),
    shares=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=5, max_size=5),
)
def test_backlogs_are_served_by_share(costs: list[float], shares: list[float]) -> None:
    """However unlike their tasks are, no project is further from its part than one task of its own and one of another."""
    queues = {f"p{i}": [(f"p{i}", 0.0, cost)] * 3000 for i, cost in enumerate(costs)}
    accounts = {name: Account(share=share) for name, share in zip(queues, shares, strict=False)}
    served: Counter[str] = Counter()
    left = {name: len(rows) for name, rows in queues.items()}
    for project, _, cost in _line(queues, accounts):
        served[project] += cost
        left[project] -= 1
        if not left[project]:
            break
    per_share = {name: served[name] / accounts[name].share for name in queues}
    step = max(cost / account.share for cost, account in zip(costs, accounts.values(), strict=True))
    assert max(per_share.values()) - min(per_share.values()) <= 2 * step


@given(st.floats(0.0, 1e9), st.floats(0.0, 1e9))
def test_who_used_more_comes_later(one: float, other: float) -> None:
    """Of two tasks of the same age the one whose project used less is first."""
    queues = {"a": [("a", 0.0, 1.0)], "b": [("b", 0.0, 1.0)]}
    first = next(_line(queues, {"a": Account(used=one), "b": Account(used=other)}))
    assert first[0] == ("a" if one <= other else "b")


@given(share=st.floats(0.01, 1.0), age=st.floats(0.0, 1e6))
def test_nothing_starves(share: float, age: float) -> None:
    """A project that used all processors for ever is behind others only by so many seconds as its share sets."""
    processors = 100.0
    most = processors * HALF_LIFE / math.log(2)  # all that use can come to, decaying
    accounts = {"greedy": Account(share=share, used=most), "new": Account(share=1.0)}
    bound = HALF_LIFE * (1.0 + share) / share / math.log(2)
    queues = {"greedy": [("greedy", -bound - age - 1.0, 1.0)], "new": [("new", 0.0, 1.0)] * 10}
    assert next(_line(queues, accounts, processors))[0] == "greedy"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1e6, 1e6)), max_size=40))
def test_a_project_keeps_its_own_order(tasks: list[tuple[str, float]]) -> None:
    """Every task has its turn once, and within a project age and priority decide."""
    queues = {name: sorted((p, rank, 1.0) for p, rank in tasks if p == name) for name in "abc"}
    served = list(_line(queues, {name: Account() for name in "abc"}))
    for name in "abc":
        assert [task for task in served if task[0] == name] == queues[name]
    assert len(served) == len(tasks)


def test_priority_and_age_are_of_the_same_kind() -> None:
    """A thousand points of priority (60000 s) beat a lead of 40000 s, and lose against one of 80000 s."""
    queues = {"a": [("a", -60000.0, 1.0)], "b": [("b", 0.0, 1.0)]}
    for lead, first in ((40000.0, "a"), (80000.0, "b")):
        accounts = {"a": Account(used=lead * 50.0), "b": Account()}
        assert next(_line(queues, accounts))[0] == first


def test_half_is_forgotten_in_a_half_life() -> None:
    """And a clock that was set back makes nothing grow."""
    assert decayed(100.0, HALF_LIFE, HALF_LIFE) == pytest.approx(50.0)
    assert decayed(100.0, -5.0, HALF_LIFE) == 100.0


def test_a_standing_says_how_many_times_its_share_a_project_used() -> None:
    """Of two with equal shares, one that used three times what the other used has 1.5 times its share."""
    accounts = {"a": Account(used=300.0), "b": Account(used=60.0, promised=40.0), "c": Account(share=2.0)}
    leads = Leads({name: accounts[name] for name in "ab"}, 10.0)
    standing = leads.standing("a")
    assert standing is not None
    assert (standing.part, standing.of_share, standing.of) == (0.5, pytest.approx(1.5), 2)
    assert Leads({"a": Account()}, 10.0).standing("a") is None
    assert Leads(accounts, 10.0).standing("nobody") is None


def test_a_long_queue_is_read_only_as_far_as_needed() -> None:
    """Merging asks each queue for one task more than it serves."""
    asked: Counter[str] = Counter()

    def endless(name: str) -> Iterator[Task]:
        while True:
            asked[name] += 1
            yield (name, 0.0, 10.0)

    leads = Leads({"a": Account(), "b": Account()}, 1.0)
    line = in_turn({"a": endless("a"), "b": endless("b")}, leads, rank=lambda t: t[1], cost=lambda t: t[2], weight=1.0)
    assert len(list(islice(line, 100))) == 100
    assert sum(asked.values()) <= 102
