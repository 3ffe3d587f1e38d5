"""Everything that travels between control plane and agent arrives as it was sent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data.port import DataKeeper
from isthmus.domain import errors
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import Pool, SiteDescription
from isthmus.domain.task import Accelerators, Demand, Executor
from isthmus.domain.usage import Usage
from isthmus.sites import wire
from isthmus.sites.port import (
    Collected,
    CollectedFile,
    Job,
    JobFile,
    JobOutput,
    JobRef,
    LogStream,
    Observation,
    Rejected,
    Sighting,
    Staged,
    Submitted,
    Uncertain,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
MAPS = st.dictionaries(TEXT, TEXT, max_size=3)
COUNT = st.integers(0, 2**53)
TIME = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
ENV = st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=3)
demands = st.builds(
    Demand,
    nodes=st.integers(1, 10**8),
    cpus=st.integers(1, 64),
    memory_bytes=st.integers(1024**2, 2**50),
    accelerators=st.builds(Accelerators, count=st.integers(0, 8), kind=st.sampled_from(["", "a100"])),
    licences=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,20}", fullmatch=True), st.integers(1, 9), max_size=2
    ),
)
executors = st.builds(Executor, command=st.tuples(LINE), env=ENV, ignore_error=st.booleans())
files = st.builds(JobFile, path=TEXT, blob=TEXT, url=TEXT, size_bytes=COUNT, headers=MAPS, executable=st.booleans())
jobs = st.builds(
    Job,
    key=TEXT,
    fence=COUNT,
    task_id=TEXT,
    name=TEXT,
    pool=TEXT,
    account=TEXT,
    demand=demands,
    steps=st.lists(executors, min_size=1, max_size=2).map(tuple),
    env=MAPS,
    secrets=MAPS,
    files=st.lists(files, max_size=2).map(tuple),
    outputs=st.lists(st.builds(JobOutput, path=TEXT, directory=st.booleans(), required=st.booleans())).map(tuple),
    volumes=st.lists(TEXT, max_size=2).map(tuple),
    native=MAPS,
    hold_seconds=COUNT,
)
refs = st.builds(JobRef, key=TEXT, account=TEXT, pool=TEXT, native_id=TEXT, submitted_at=TIME, fence=COUNT)
arguments = st.one_of(
    st.tuples(st.just("describe"), st.builds(wire.Nothing)),
    st.tuples(st.sampled_from(["stage", "submit", "collect"]), st.builds(wire.Jobs, jobs=st.lists(jobs).map(tuple))),
    st.tuples(
        st.sampled_from(["find", "observe", "cancel", "let_go", "usage", "clean"]),
        st.builds(wire.Refs, refs=st.lists(refs).map(tuple)),
    ),
    st.tuples(st.just("cancel_native"), st.builds(wire.NativeIds, native_ids=st.lists(TEXT).map(tuple))),
    st.tuples(
        st.just("logs"),
        st.builds(wire.LogPiece, ref=refs, stream=st.sampled_from(LogStream), offset=COUNT, limit=COUNT),
    ),
)
maybe_time = st.none() | TIME
observations = st.builds(
    Observation,
    sighting=st.sampled_from(Sighting),
    native_ids=st.lists(TEXT, max_size=2).map(tuple),
    reason=st.none() | st.sampled_from(EndReason),
    exit_code=st.none() | st.integers(-255, 255),
    message=TEXT,
    started_at=maybe_time,
    ended_at=maybe_time,
    claim_fence=st.none() | COUNT,
    nodes=st.lists(TEXT, max_size=2).map(tuple),
    queue_position=st.none() | COUNT,
)
collected_files = st.builds(CollectedFile, path=TEXT, sha256=TEXT, size_bytes=COUNT, executable=st.booleans())
collected = st.builds(
    Collected,
    files=st.lists(collected_files, max_size=2).map(tuple),
    missing=st.lists(TEXT, max_size=2).map(tuple),
    stdout=st.none() | collected_files,
    stderr=st.none() | collected_files,
)
rejected = st.builds(Rejected, reason=st.sampled_from(EndReason), message=TEXT)
uncertain = st.builds(Uncertain, message=TEXT)
pools = st.builds(
    Pool,
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
    nodes=COUNT,
    max_walltime_seconds=st.none() | COUNT,
    licences=st.dictionaries(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,20}", fullmatch=True), COUNT, max_size=2),
    queued_cpu_seconds=TIME,
    free_cpus=st.none() | COUNT,
    price_per_cpu_hour=st.decimals(0, 1000, places=4),
)
descriptions = st.builds(
    SiteDescription,
    kind=TEXT,
    version=TEXT,
    pools=st.lists(pools, max_size=2).map(tuple),
    features=st.frozensets(TEXT, max_size=3),
    notes=st.lists(TEXT, max_size=2).map(tuple),
)
usages = st.builds(
    Usage,
    source=TEXT,
    started_at=maybe_time,
    ended_at=maybe_time,
    elapsed_seconds=COUNT,
    cpus=COUNT,
    cpu_seconds=TIME,
    allocated_cpu_seconds=COUNT,
    max_rss_bytes=COUNT,
    native_state=TEXT,
)


def by_key(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Answers for up to three keys."""
    return st.dictionaries(TEXT, values, max_size=3)


results = st.one_of(
    st.tuples(st.just("describe"), descriptions),
    st.tuples(st.just("stage"), by_key(st.builds(Staged) | rejected | uncertain)),
    st.tuples(st.just("submit"), by_key(st.builds(Submitted, native_id=TEXT) | rejected | uncertain)),
    st.tuples(st.just("collect"), by_key(collected | rejected | uncertain)),
    st.tuples(st.just("find"), by_key(st.lists(TEXT, max_size=2).map(tuple))),
    st.tuples(st.just("observe"), by_key(observations)),
    st.tuples(st.just("usage"), by_key(usages)),
    st.tuples(st.just("logs"), st.binary(max_size=300)),
    st.tuples(st.sampled_from(["cancel", "let_go", "cancel_native", "clean"]), st.none()),
)


@given(arguments)
def test_arguments_arrive_as_they_were_sent(call: tuple[str, wire.Arguments]) -> None:
    """Decoding what was encoded gives the same arguments."""
    method, sent = call
    assert wire.decode_arguments(method, wire.encode_arguments(sent)) == sent


@given(results)
def test_results_arrive_as_they_were_sent(answer: tuple[str, Any]) -> None:
    """Decoding what was encoded gives the same result, each outcome of its own kind."""
    method, sent = answer
    got = wire.decode_answer(method, wire.encode_result(method, sent))
    assert got == sent
    if isinstance(sent, dict):
        assert {key: type(value) for key, value in got.items()} == {key: type(value) for key, value in sent.items()}


def test_every_method_of_the_port_travels() -> None:
    """The table of methods is the port's and the network's two, but for close, which stays at each end."""
    from isthmus.sites.port import Site

    port = {name for name in vars(Site) if not name.startswith("_")}
    data = {name for name in vars(DataKeeper) if name.startswith("data_")}
    assert set(wire.METHODS) == (port - {"close"}) | data | {"measure", "ask_router"}


@pytest.mark.parametrize(
    "error",
    [
        errors.Unavailable("down", remedy="wait"),
        errors.Invalid("pool", "is none", remedy="name one"),
        errors.Refused("no", code="special"),
        errors.Corrupt("broken"),
        errors.Busy("full", retry_after_seconds=7.0),
        errors.NotFound("none"),
    ],
)
def test_errors_keep_their_class(error: errors.IsthmusError) -> None:
    """An error of ours is raised as the same class with the same words."""
    with pytest.raises(type(error)) as caught:
        wire.decode_answer("observe", wire.encode_failure(error))
    assert vars(caught.value) == vars(error)


def test_a_foreign_error_travels_without_its_text() -> None:
    """What an adapter's bug says may hold a secret and stays at the site."""
    text = wire.encode_failure(ValueError("password=hunter2"))
    assert b"hunter2" not in text
    with pytest.raises(errors.Unavailable, match="ValueError"):
        wire.decode_answer("submit", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"result": 3}',
        '{"result": {"k": {}}}',
        '{"result": {"k": {"submitted": {"native_id": "1"}, "rejected": {"reason": "poison", "message": ""}}}}',
        '{"result": {"k": {"staged": {}}}}',
        '{"failed": {}}',
        '{"failed": 1}',
    ],
)
def test_garbage_is_unreadable(text: str) -> None:
    """An answer that is not of the form is never taken for one."""
    with pytest.raises(wire.Unreadable):
        wire.decode_answer("submit", text)


def test_an_unreadable_job_does_not_show_its_secrets() -> None:
    """The error names a place, not the value there."""
    job = Job(key="k", fence=1, task_id="t", name="n", pool="p", demand=Demand(), steps=(), secrets={"A": "hunter2"})
    text = wire.encode_arguments(wire.Jobs(jobs=(job,))).replace(b'"fence":1', b'"fence":"hunter2"')
    with pytest.raises(wire.Unreadable) as caught:
        wire.decode_arguments("stage", text)
    assert "hunter2" not in str(caught.value)
    assert "fence" in str(caught.value)


def test_money_stays_exact() -> None:
    """A price travels as a decimal, never as a float."""
    pool = Pool(name="p", price_per_cpu_hour=Decimal("0.1000000000000000001"))
    sent = SiteDescription(kind="k", pools=(pool,))
    assert wire.decode_answer("describe", wire.encode_result("describe", sent)) == sent
