"""The desired state of a router: wrong fields are named, the more special policy comes first, plans lead where they say."""

from __future__ import annotations

import ipaddress
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from isthmus.domain.errors import Forbidden, Invalid
from isthmus.network.control import desired, marks
from isthmus.network.control.desired import Behaviour, DesiredState, LocalSegment, Match, Policy, WeightedPath
from isthmus.network.control.failover import Candidate, Failover, ProtectedPolicy
from isthmus.network.control.linux_srv6 import _numbered
from isthmus.network.control.permit import Permit, read_permit
from isthmus.network.control.plan import Attachment, Fabric, Router, Steering, Way
from isthmus.network.control.port import Changes

RAW: dict[str, Any] = {
    "segments": [
        {"sid": "fc00:1::1", "behaviour": "End"},
        {"sid": "fc00:1::d4", "behaviour": "End.DX4", "neighbour": "10.64.5.1"},
    ],
    "policies": [
        {
            "name": "bulk",
            "destination": "fd10:6::/64",
            "paths": [
                {"segments": ["fc00:3::1", "fc00:4::d6"], "weight": 2},
                {"segments": ["fc00:2::1", "fc00:4::d6"], "weight": 1},
            ],
            "match": {"dscp": 10, "flow_label": 5, "application_id": 7, "source": "fd10:5::/64"},
            "dscp": 10,
        }
    ],
    "interfaces": [
        {
            "name": "to-r3",
            "rate_bits_per_second": 1e8,
            "slices": [{"name": "gold", "dscp": 46, "rate_bits_per_second": 6e7, "priority": 0}],
        }
    ],
    "repairs": [{"destination": "fc00:9::/32", "segments": ["fc00:3::1", "fc00:4::d6"]}],
}


def test_what_is_written_is_read_again() -> None:
    """JSON and back."""
    state = desired.read(RAW)
    assert state.policies[0].match.application_id == 7
    assert desired.read(json.loads(json.dumps(desired.as_json(state)))) == state


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("polices",), [], "polices"),
        (("segments",), {}, "segments"),
        (("segments", 0, "behaviour"), "End.Dance", "segments.0.behaviour"),
        (("segments", 0, "neighbour"), "10.0.0.1", "segments.0.neighbour"),
        (("segments", 1, "neighbour"), None, "segments.1.neighbour"),
        (("segments", 1, "sid"), "10.0.0.1", "segments.1.sid"),
        (("segments", 1, "sid"), "fc00:1::1", "segments.1"),
        (("policies", 0, "destination"), "fd10:6::1/64", "policies.0.destination"),
        (("policies", 0, "destination"), "::/0", "policies.0.paths"),
        (("policies", 0, "destination"), "10.0.0.0/8", "policies.0.match.source"),
        (("policies", 0, "paths"), [], "policies.0.paths"),
        (("policies", 0, "paths", 0, "segments"), [], "policies.0.paths.0.segments"),
        (("policies", 0, "paths", 0, "segments"), ["fc00::1"] * 9, "policies.0.paths.0.segments"),
        (("policies", 0, "paths", 1, "segments"), ["fc00:3::1", "fc00:4::d6"], "policies.0.paths.1"),
        (("policies", 0, "paths", 0, "weight"), 0, "policies.0.paths.0.weight"),
        (("policies", 0, "name"), "a\nb", "policies.0.name"),
        (("policies", 0, "match", "dscp"), 64, "policies.0.match.dscp"),
        (("policies", 0, "match", "flow_label"), True, "policies.0.match.flow_label"),
        (("interfaces", 0, "slices", 0, "rate_bits_per_second"), 1e8, "interfaces.0.slices"),
        (("interfaces", 0, "slices", 0, "dscp"), None, "interfaces.0.slices.0.dscp"),
        (("interfaces", 0, "rate_bits_per_second"), "fast", "interfaces.0.rate_bits_per_second"),
        (("repairs", 0, "destination"), "10.0.0.0/8", "repairs.0.destination"),
        (("repairs", 0, "destination"), "fc00:4::/32", "repairs.0.segments"),
        (("repairs", 0, "segments"), [], "repairs.0.segments"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[str | int, ...], value: object, field: str) -> None:
    """Nothing that the kernel or nftables would misread gets through."""
    raw = json.loads(json.dumps(RAW))
    place = raw
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(Invalid) as error:
        desired.read(raw)
    assert error.value.field == field


def test_policies_are_asked_from_the_special_to_the_general() -> None:
    """A longer destination before a shorter one, more marks before fewer."""
    paths = (WeightedPath(segments=("fc00:3::1",)),)
    state = DesiredState(
        policies=(
            Policy(name="all", destination="fd10::/16", paths=paths),
            Policy(name="plain", destination="fd10:6::/64", paths=paths),
            Policy(name="marked", destination="fd10:6::/64", paths=paths, match=Match(dscp=46)),
            Policy(name="more", destination="fd10:6::/64", paths=paths, match=Match(dscp=46, flow_label=1)),
        )
    )
    text = marks.ruleset(state, {"all": 1, "plain": 2, "marked": 3, "more": 4})
    order = [text.index(f"| {marks.mark_of(number):#x} ") for number in (4, 3, 2, 1)]
    assert order == sorted(order)
    assert marks.ruleset(DesiredState(), {}).count("table") == 2


def test_a_policy_keeps_its_number_while_others_come_and_go() -> None:
    """So that a change of one policy touches no other's routes."""

    def state(*names: str) -> DesiredState:
        return DesiredState(
            policies=tuple(
                Policy(name=name, destination="fd10::/16", paths=(WeightedPath(segments=("fc00::1",)),))
                for name in names
            )
        )

    first = _numbered(state("a", "b", "c"), {})
    assert first == {"a": 1, "b": 2, "c": 3}
    assert _numbered(state("d", "c", "e"), first) == {"c": 3, "d": 1, "e": 2}


def test_a_plan_makes_each_router_do_its_part() -> None:
    """Ingress has the policies, egress the segments that take the outer header off, all the plain segment."""
    fabric = Fabric(
        [Router(name=f"r{number}", locator=f"fc00:{number}::/32") for number in (1, 2, 3)],
        [
            Attachment(site="a", router="r1", prefixes=("fd10:5::/64", "10.64.5.0/24"), neighbour4="10.64.5.1"),
            Attachment(site="b", router="r3", prefixes=("fd10:6::/64", "10.64.6.0/24"), neighbour4="10.64.6.1"),
        ],
    )
    states = fabric.states(
        [
            Steering(name="plain", source="a", target="b", ways=(Way(via=("r2",), weight=3), Way())),
            Steering(name="label", source="a", target="b", match=Match(flow_label=9)),
        ]
    )
    found = [
        (item.destination, [(path.weight, path.segments) for path in item.paths]) for item in states["r1"].policies
    ]
    assert found == [
        ("fd10:6::/64", [(3, ("fc00:2::1", "fc00:3::d6")), (1, ("fc00:3::d6",))]),
        ("10.64.6.0/24", [(3, ("fc00:2::1", "fc00:3::d4:1")), (1, ("fc00:3::d4:1",))]),
        ("fd10:6::/64", [(1, ("fc00:3::d6",))]),
    ]
    assert states["r3"].segments == (
        LocalSegment(sid="fc00:3::1", behaviour=Behaviour.END),
        LocalSegment(sid="fc00:3::d6", behaviour=Behaviour.END_DT6),
        LocalSegment(sid="fc00:3::d4:1", behaviour=Behaviour.END_DX4, neighbour="10.64.6.1"),
    )
    assert states["r2"].segments == (
        LocalSegment(sid="fc00:2::1", behaviour=Behaviour.END),
        LocalSegment(sid="fc00:2::d6", behaviour=Behaviour.END_DT6),
    )
    for state in states.values():
        assert desired.read(desired.as_json(state)) == state


@pytest.mark.parametrize("what", ["locators", "segments", "destinations", "interfaces"])
def test_nothing_is_permitted_that_is_not_named(what: str) -> None:
    """With one list empty the state is refused, with all of them it passes."""
    spaces = {
        "locators": (ipaddress.ip_network("fc00:1::/32"),),
        "segments": (ipaddress.ip_network("fc00::/16"),),
        "destinations": (ipaddress.ip_network("fd10::/16"), ipaddress.ip_network("10.64.0.0/10")),
        "interfaces": ("to-r3",),
    }
    state = desired.read(RAW)
    Permit(socket=Path("s"), state=Path("d"), **spaces).check(state)  # type: ignore[arg-type]
    with pytest.raises(Forbidden, match=what):
        Permit(socket=Path("s"), state=Path("d"), **(spaces | {what: ()})).check(state)  # type: ignore[arg-type]


def test_a_configuration_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Who can write it would rule the router."""
    file = tmp_path / "config.json"
    file.write_text('{"socket": "/s", "state": "/d", "user": [0]}')
    file.chmod(0o600)
    with pytest.raises(Invalid, match="no such field"):
        read_permit(file)
    file.chmod(0o666)
    with pytest.raises(Forbidden, match="changed by others"):
        read_permit(file)


class _Recorder:
    """A router that notes what it is told; the port's other calls are not used here."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[WeightedPath, ...]]] = []

    def set_paths(self, policy: str, paths: tuple[WeightedPath, ...]) -> Changes:
        self.told.append((policy, paths))
        return Changes(made=1)


def test_a_policy_moves_to_its_best_whole_path_at_once_and_back_after_a_while() -> None:
    """One end of a link is enough to be down; without a whole path nothing is touched."""
    router = _Recorder()
    fast, slow = (
        Candidate(paths=(WeightedPath(segments=("fc00:2::1",)),), links=frozenset({"a-b"})),
        Candidate(paths=(WeightedPath(segments=("fc00:3::1",)),), links=frozenset({"a-c"})),
    )
    policy = ProtectedPolicy(router="a", policy="p", candidates=(fast, slow))
    ends = {("a", "to-b"): "a-b", ("b", "to-a"): "a-b", ("a", "to-c"): "a-c"}
    moved = threading.Semaphore(0)
    failover = Failover(
        {"a": router},  # type: ignore[dict-item]
        ends,
        [policy],
        told=lambda _policy, _path: moved.release(),
        wait_to_restore_seconds=0.05,
    )
    failover.take("b", {"to-a": False, "to-x": False})
    assert router.told == [("p", slow.paths)]
    failover.take("a", {"to-b": True, "to-c": False})
    assert len(router.told) == 1
    failover.take("b", {"to-a": True})
    failover.take("b", {"to-a": False})  # it flaps: the wait begins anew
    failover.take("b", {"to-a": True})
    assert len(router.told) == 1
    assert moved.acquire(timeout=10)
    assert moved.acquire(timeout=10)
    assert router.told[1:] == [("p", fast.paths)]


def test_a_link_that_is_up_may_be_reported_as_dead() -> None:
    """What a measurement says counts as much as an interface; both must be well."""
    router = _Recorder()
    first, second = (
        Candidate(paths=(WeightedPath(segments=(f"fc00:{number}::1",)),), links=frozenset({f"a-{number}"}))
        for number in (2, 3)
    )
    policy = ProtectedPolicy(router="a", policy="p", candidates=(first, second))
    failover = Failover({"a": router}, {("a", "to-2"): "a-2"}, [policy])  # type: ignore[dict-item]
    failover.take("a", {"to-2": True})
    failover.report("a-2", is_whole=False)
    failover.report("a-2", is_whole=False)
    assert router.told == [("p", second.paths)]
    failover.report("a-2", is_whole=True)
    assert router.told[1:] == [("p", first.paths)]
