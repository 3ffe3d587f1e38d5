"""A relay passes on what a ticket names, and no more than its limits."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from isthmus.data.transfer.port import End, Endpoint, Order, Way
from isthmus.data.transfer.relay import Limits, Relay, ask
from isthmus.domain.errors import Forbidden, Unavailable
from isthmus.trust.authority import read_ticket_key
from tests.data.transfer.conftest import MIB, World


@pytest.fixture
def north(world: World) -> str:
    """The address of a site that serves, as tickets have it."""
    world.serve("north")
    return f"127.0.0.1:{world.servers['north'].port}"


@contextlib.contextmanager
def relaying(world: World, **limits: float) -> Iterator[Relay]:
    """A relay with limits."""
    key = read_ticket_key(world.authority.ticket_public_key)
    with Relay(ticket_keys=[key], host="127.0.0.1", limits=Limits(**limits)) as relay:  # type: ignore[arg-type]
        yield relay


def order_through(world: World, relay: Relay, address: str, size: int = 2 * MIB, **fields: object) -> Order:
    """An order of one content, through a relay that may pass on to an address."""
    way = Way(relay=Endpoint(host="127.0.0.1", port=relay.port))
    contents = [world.put_random("north", size)]
    return world.order(contents, world.source("north", way), ticket={"relayed": (address,)}, **fields)


def asked(relay: Relay, ticket: str, address: str) -> socket.socket:
    """A connection that the relay passes on."""
    host, _, port = address.rpartition(":")
    made = socket.create_connection(("127.0.0.1", relay.port), timeout=5)
    try:
        ask(made, ticket, Endpoint(host=host, port=int(port)))
    except BaseException:
        made.close()
        raise
    return made


def test_it_passes_on_what_the_ticket_names(world: World, north: str) -> None:
    """And nothing else."""
    with relaying(world) as relay:
        refused = world.pull(order_through(world, relay, "127.0.0.1:9"))
        assert refused.end is End.REFUSED
        assert {failure.code for failure in refused.failures} == {"ticket_of_another"}
        outcome = world.pull(order_through(world, relay, north))
        assert outcome.end is End.DONE
        assert relay.passed_bytes > 2 * MIB


def test_an_order_has_no_more_than_its_bytes(world: World, north: str) -> None:
    """The connections end, and fresh ones are refused; another order has its own."""
    with relaying(world, order_bytes=MIB) as relay:
        outcome = world.pull(order_through(world, relay, north))
        assert outcome.end is End.REFUSED
        assert {failure.code for failure in outcome.failures} == {"relay_spent"}
        assert MIB <= relay.passed_bytes < 4 * MIB
        content = world.put_random("north", 1000)
        way = Way(relay=Endpoint(host="127.0.0.1", port=relay.port))
        ticket = {"relayed": (north,), "order": "two"}
        assert world.pull(world.order([content], world.source("north", way), ticket=ticket)).end is End.DONE


def test_it_passes_on_so_many_connections_and_no_more(world: World, north: str) -> None:
    """Of one order, and in all."""
    with relaying(world, order_connections=2, connections=3) as relay:
        ticket = order_through(world, relay, north).ticket
        held = [asked(relay, ticket, north) for _ in range(2)]
        with pytest.raises(Unavailable, match="2 connections"):
            asked(relay, ticket, north)
        assert relay.connections == 2
        for connection in held:
            connection.close()


def test_a_silent_connection_ends(world: World, north: str) -> None:
    """One in which bytes pass, though one way only, does not."""
    with relaying(world, idle_seconds=1.0) as relay:
        ticket = order_through(world, relay, north).ticket
        begun = time.monotonic()
        with asked(relay, ticket, north) as connection:
            assert connection.recv(1) == b""
        assert time.monotonic() - begun >= 1.0
        # One question, and an answer that takes two seconds.
        slow = order_through(world, relay, north, size=MIB, streams=1, bytes_per_second=MIB / 2)
        outcome = world.pull(slow)
        assert outcome.end is End.DONE
        assert not outcome.failures


def test_it_holds_to_the_rate_of_the_ticket(world: World, north: str) -> None:
    """Though the sender has another word for it."""
    with relaying(world) as relay:
        way = Way(relay=Endpoint(host="127.0.0.1", port=relay.port))
        content = world.put_random("north", 3 * MIB)
        ticket = {"relayed": (north,), "bytes_per_second": 3.0 * MIB}
        outcome = world.pull(world.order([content], world.source("north", way), ticket=ticket))
        assert outcome.end is End.DONE
        assert outcome.seconds > 0.6


def test_who_does_not_greet_is_told_nothing(world: World, north: str) -> None:
    """And a forged ticket is named."""
    with relaying(world) as relay:
        with pytest.raises(Forbidden) as error:
            asked(relay, "a" + order_through(world, relay, north).ticket, north)
        assert error.value.code == "ticket_forged"
        with socket.create_connection(("127.0.0.1", relay.port), timeout=5) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(100) == b""
