"""What one look means: not seeing is never taken for being dead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.lifecycle import ATTEMPT_ENDED, AttemptState, EndReason, may_follow
from isthmus.engine.judgement import judge
from isthmus.engine.settings import EngineSettings
from isthmus.sites.port import Observation, Sighting

SETTINGS = EngineSettings(negative_gap=15.0, unseen_grace=30.0)
_A = AttemptState


def row(state: AttemptState, **fields: Any) -> Any:
    plain: dict[str, Any] = {
        "key": "k",
        "state": state.value,
        "native_id": "7",
        "negatives": 0,
        "last_negative_at": None,
        "unseen_since": None,
        "submitted_at": 1.0,
        "started_at": None,
        "updated_at": 1.0,
        "cancel_requested": False,
        "ending": "",
        "observed": "{}",
        "gang": "",
    }
    return SimpleNamespace(**{**plain, **fields})


def look(sighting: Sighting, **fields: Any) -> Observation:
    return Observation(sighting=sighting, **fields)


@pytest.mark.parametrize("state", [_A.SUBMITTING, _A.QUEUED, _A.RUNNING, _A.UNKNOWN])
def test_unseen_never_ends_an_attempt(state: AttemptState) -> None:
    """However long nothing is seen, the attempt is UNKNOWN at worst."""
    move = judge(row(state, unseen_since=0.0), look(Sighting.UNSEEN), 1e9, SETTINGS)
    assert move is None or move.to is _A.UNKNOWN


def test_one_negative_is_not_enough() -> None:
    """The first authoritative negative only makes the attempt UNKNOWN."""
    move = judge(row(_A.QUEUED), look(Sighting.ABSENT), 100.0, SETTINGS)
    assert move is not None
    assert move.to is _A.UNKNOWN
    assert move.fields["negatives"] == 1


def test_two_negatives_too_close_count_once() -> None:
    """A second negative within the message time-out says nothing new."""
    assert judge(row(_A.UNKNOWN, negatives=1, last_negative_at=95.0), look(Sighting.ABSENT), 100.0, SETTINGS) is None


def test_two_negatives_of_a_confirmed_job_lose_it() -> None:
    """A job the site once had and twice does not know at all is LOST."""
    move = judge(row(_A.UNKNOWN, negatives=1, last_negative_at=80.0), look(Sighting.ABSENT), 100.0, SETTINGS)
    assert move is not None
    assert (move.to, move.reason) == (_A.LOST, EndReason.NEVER_ARRIVED)


def test_two_negatives_of_an_unconfirmed_job_send_it_again_under_the_same_key() -> None:
    """A submission whose answer was lost, and that twice is not there, is sent again."""
    seen = row(_A.UNKNOWN, native_id="", negatives=1, last_negative_at=80.0)
    move = judge(seen, look(Sighting.ABSENT), 100.0, SETTINGS)
    assert move is not None
    assert (move.key, move.to) == ("k", _A.SUBMITTING)


def test_a_sighting_forgets_negatives() -> None:
    """Once seen again, the count starts anew."""
    move = judge(row(_A.UNKNOWN, negatives=1, last_negative_at=80.0), look(Sighting.RUNNING), 100.0, SETTINGS)
    assert move is not None
    assert (move.to, move.fields["negatives"]) == (_A.RUNNING, 0)


def test_a_lost_answer_is_adopted() -> None:
    """A job found under the key gives its native id to an attempt that had none."""
    move = judge(row(_A.UNKNOWN, native_id=""), look(Sighting.QUEUED, native_ids=("12", "13")), 5.0, SETTINGS)
    assert move is not None
    assert move.fields["native_id"] == "12"


@pytest.mark.parametrize(
    ("fields", "goes_on"),
    [({}, True), ({"cancel_sent_at": 5.0}, False), ({"cancel_requested": True}, False), ({"ending": "preempt"}, False)],
)
def test_a_job_that_started_is_not_moved_any_more(fields: dict[str, Any], goes_on: bool) -> None:
    """Unless it was told to end already, or its user wants it, or it is to make room."""
    waiting = {"ending": "move", "cancel_sent_at": None, **fields}
    move = judge(row(_A.QUEUED, **waiting), look(Sighting.RUNNING), 9.0, SETTINGS)
    assert move is not None
    assert (move.fields.get("ending") == "") == goes_on
    still = judge(row(_A.QUEUED, **waiting), look(Sighting.QUEUED, message="Priority"), 9.0, SETTINGS)
    assert still is not None
    assert "ending" not in still.fields


@given(
    state=st.sampled_from([_A.SUBMITTING, _A.QUEUED, _A.RUNNING, _A.UNKNOWN]),
    sighting=st.sampled_from(list(Sighting)),
    negatives=st.integers(0, 3),
    last=st.none() | st.floats(0, 200),
    unseen=st.none() | st.floats(0, 200),
    native=st.sampled_from(["", "7"]),
    cancel=st.booleans(),
)
def test_every_move_is_allowed_and_only_proof_ends(
    state: AttemptState,
    sighting: Sighting,
    negatives: int,
    last: float | None,
    unseen: float | None,
    native: str,
    cancel: bool,
) -> None:
    """Whatever is seen, the move is one the life cycle allows, and only ABSENT twice ends an attempt."""
    seen = row(
        state,
        negatives=negatives,
        last_negative_at=last,
        unseen_since=unseen,
        native_id=native,
        cancel_requested=cancel,
    )
    move = judge(seen, look(sighting), 100.0, SETTINGS)
    if move is not None:
        assert move.to is state or may_follow(state, move.to)
        if move.to in ATTEMPT_ENDED:
            assert sighting is Sighting.ABSENT
            assert negatives >= 1
