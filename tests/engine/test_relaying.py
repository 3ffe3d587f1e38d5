"""Through a relay or not: by the promise, by what is down, by what was measured, and after a try that came to nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from isthmus.domain.network import Figure, NetworkView, PairView, Source
from isthmus.engine import leading
from isthmus.engine.leases import Lease, take
from isthmus.engine.relaying import choose, promised
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import join

NOW = 1_800_000_000.0
RELAYS = {"c": "c.example:7423"}


def row(links: tuple[str, ...] = (), tries: int = 0) -> Any:
    return SimpleNamespace(source="a" if links else "", target="b", links=orjson.dumps(links).decode(), tries=tries)


def seen(source: str, target: str, rate: float | None, *, up: bool = True, age: float = 0.0) -> PairView:
    figure = None
    if rate is not None:
        figure = Figure(value=rate, error=0.0, measured_at=NOW - age, source=Source.PROBE)
    return PairView(
        source=source,
        target=target,
        up=up,
        up_since=None,
        delay_seconds=None,
        two_way_delay_seconds=None,
        jitter_seconds=None,
        loss=None,
        available_bits_per_second=figure,
    )


def view(*pairs: PairView) -> NetworkView:
    return NetworkView(now=NOW, nodes=(), links=(), pairs=pairs)


LEGS = (seen("a", "c", 5e8), seen("c", "b", 4e8))


@pytest.mark.parametrize(
    ("pairs", "tries", "expected"),
    [
        ((), 0, ""),  # nobody knows anything: directly
        ((), 1, "c"),  # that came to nothing: through the relay
        ((), 2, ""),
        ((*LEGS, seen("a", "b", 1e8)), 0, "c"),
        ((*LEGS, seen("a", "b", 3.5e8)), 0, ""),  # not worth one more machine
        ((*LEGS, seen("a", "b", None)), 0, ""),  # never measured
        ((*LEGS, seen("a", "b", 1e8, age=1000)), 0, ""),  # too old to tell
        ((*LEGS, seen("a", "b", 1e9, up=False)), 0, "c"),
        ((LEGS[0], seen("c", "b", None, up=False), seen("a", "b", None, up=False)), 0, ""),  # nothing passes anywhere
    ],
)
def test_a_relay_is_chosen_where_it_is_worth_it(pairs: tuple[PairView, ...], tries: int, expected: str) -> None:
    """One relay at c; from a to b."""
    assert choose(view(*pairs), row(tries=tries), "a", RELAYS) == expected


def test_a_promised_path_over_a_relay_is_kept() -> None:
    """As long as the source is the planned one, and the site has its relay."""
    planned = row(("a>c", "c>b"))
    assert promised(planned, "a", RELAYS) == "c"
    assert promised(planned, "d", RELAYS) == ""
    assert promised(planned, "a", {}) == ""
    assert promised(row(("a>b",)), "a", RELAYS) == ""


def test_the_lead_names_the_relay_or_mptcp(store: Database) -> None:
    """A transfer that failed directly is led through the relay; without one it may use MPTCP when both ends have it and no rate is asked for."""
    for name in ("a", "b", "c"):
        join(store, name)
    lease = store.write_now(take, "transfers", "me", NOW, 1e6)
    assert lease is not None

    def fill(connection: sa.Connection) -> Any:
        connection.execute(tables.sites.update().values(last_seen_at=NOW))
        for name in ("a", "b", "c"):
            relay = RELAYS.get(name, "")
            values = {"site": name, "address": f"{name}:1", "relay": relay, "multipath": True, "seen_at": NOW}
            connection.execute(tables.data_servers.insert().values(**values))
        connection.execute(
            tables.transfers.insert().values(
                id="01aaaaaaaaaaaaaaaaaaaaaaaa",
                project="p",
                name="x",
                version=1,
                target="b",
                state="planned",
                size_bytes=1000,
                created_by="ada",
                created_at=NOW,
                updated_at=NOW,
            )
        )
        return connection.execute(tables.transfers.select()).one()

    made = SimpleNamespace(**store.write_now(fill)._mapping, regions="[]")
    first = _led(store, lease, made)
    assert (first.relay, first.multipath) == ("", True)
    again = _led(store, lease, SimpleNamespace(**{**vars(made), "tries": 1}))
    assert (again.relay, again.relay_address, again.multipath) == ("c", RELAYS["c"], False)
    bounded = _led(store, lease, SimpleNamespace(**{**vars(made), "most_bytes_per_second": 1e6}))
    assert bounded == replace(leading.BY_ITSELF)
    # Bound data goes through no relay outside of its regions, also where it was promised one or does not get through otherwise.
    for region, relay in (("", ""), ("south", ""), ("north", "c")):
        store.write_now(lambda c, region=region: c.execute(tables.sites.update().values(region=region)))
        for more in ({"tries": 1}, {"source": "a", "links": '["a>c","c>b"]'}):
            bound = SimpleNamespace(**{**vars(made), "regions": '["north"]', **more})
            assert _led(store, lease, bound).relay == relay


def _led(store: Database, lease: Lease, row: Any) -> leading.Lead:
    return store.write_now(leading.lead, NOW, lease, row, "a")
