"""The words keep their invariants, and say which field broke one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from isthmus.domain import ids, lifecycle, units
from isthmus.domain.errors import Invalid
from isthmus.domain.task import Input, TaskSpec
from isthmus.store.documents import dump, load


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "command"),
        ({"command": ["a"], "demand": {"cpus": 0}}, "cpus"),
        ({"command": ["a"], "demand": {"memory_bytes": 1}}, "memory_bytes"),
        ({"command": ["a"], "env": {"1X": "y"}}, "env.1X"),
        ({"command": ["a"], "env": {"X": "y"}, "secrets": {"X": "s"}}, "secrets"),
        ({"command": ["a"], "inputs": [{"path": "../x", "content": ""}]}, "path"),
        ({"command": ["a"], "inputs": [{"path": "x"}]}, "blob"),
        ({"command": ["a"], "inputs": [{"path": "x", "blob": "a" * 64, "content": ""}]}, "blob"),
        ({"command": ["a"], "inputs": [{"path": "x", "url": "ftp://h/x"}]}, "url"),
        ({"command": ["a"], "inputs": [{"path": "x", "site_path": "/no/site"}]}, "site_path"),
        ({"command": ["a"], "outputs": [{"path": "x", "url": "gopher://h"}]}, "url"),
        ({"command": ["a"], "array": {"size": 10001}}, "size"),
        ({"command": ["a"], "array": {"size": 2, "values": {"X": ["1"]}}}, "values.X"),
        ({"command": ["a"], "objective": {"budget": "-1"}}, "budget"),
        ({"command": ["a"], "objective": {"deadline": "2026-11-26T18:00:00"}}, "deadline"),
        ({"command": ["a"], "priority": 1001}, "priority"),
        ({"command": ["a\u0000b"]}, "command.0"),
        ({"command": ["a"], "image": "x", "executors": [{"command": ["b"]}]}, "executors"),
    ],
)
def test_a_broken_invariant_names_its_field(document: dict[str, Any], field: str) -> None:
    """Each bad document is refused with the field that is wrong and what would be right."""
    with pytest.raises(ValidationError) as caught:
        load(TaskSpec, __import__("json").dumps(document))
    [error] = caught.value.errors()
    cause = error["ctx"]["error"]
    assert isinstance(cause, Invalid)
    assert cause.field == field
    assert cause.remedy


def test_an_unknown_field_is_refused() -> None:
    """A misspelt field is never ignored."""
    with pytest.raises(ValidationError, match="comand"):
        load(TaskSpec, '{"comand": ["a"]}')


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(suppress_health_check=[HealthCheck.too_slow])  # how busy the machine is decides no test
@given(
    st.lists(text, min_size=1, max_size=4),
    st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), text, max_size=3),
    st.lists(st.builds(Input, path=st.uuids().map(str), content=text), max_size=3),
)
def test_a_task_survives_storage(command: list[str], env: dict[str, str], inputs: list[Input]) -> None:
    """A task read back from its JSON is the same task."""
    spec = TaskSpec(command=tuple(command), env=env, inputs=tuple(inputs))
    assert load(TaskSpec, dump(spec)) == spec


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_identifiers_sort_by_time(one: int, other: int, entropy: bytes) -> None:
    """Identifiers have 26 characters and the order of their times."""
    first, second = ids.make_id(one, entropy), ids.make_id(other, entropy)
    assert ids.is_id(first)
    assert (first < second) == (one < other)


@pytest.mark.parametrize(
    ("written", "size"),
    [("512M", 512 * 1024**2), ("8G", 8 * 1024**3), ("1.5k", 1536), ("17", 17), ("2GiB", 2 * 1024**3)],
)
def test_sizes_as_people_write_them(written: str, size: int) -> None:
    """Sizes are powers of 1024, as batch systems count."""
    assert units.parse_size(written) == size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", 90),
        ("15m", 900),
        ("2h30m", 9000),
        ("01:00:00", 3600),
        ("1-12:00:00", 129600),
        ("10:30", 630),
        ("1-02:00", 93600),
    ],
)
def test_durations_as_people_write_them(written: str, seconds: int) -> None:
    """Durations are read as people and as Slurm write them."""
    assert units.parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "abc", "5 parsecs", "1:2:3:4", "-", "8GG"])
def test_nonsense_is_refused(written: str) -> None:
    """What is neither is an error that says what would be right."""
    with pytest.raises(Invalid):
        units.parse_duration(written)
    with pytest.raises(Invalid):
        units.parse_size(written)


def test_an_ended_attempt_never_moves() -> None:
    """No state follows an end; every live state can end."""
    for state in lifecycle.ATTEMPT_ENDED:
        assert not lifecycle.ATTEMPT_MOVES[state]
    for state in lifecycle.ATTEMPT_LIVE:
        assert lifecycle.ATTEMPT_MOVES[state] & lifecycle.ATTEMPT_ENDED
    assert set(lifecycle.ATTEMPT_MOVES) == set(lifecycle.AttemptState)
