"""Contents come from site to site whole and verified, and only to whom they may."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.agent.carrying import pull_directly
from isthmus.data.transfer import stream
from isthmus.data.transfer.port import Content, Credentials, End, Endpoint, Progress, Way, Window
from isthmus.domain.dataset import DatasetFile, DatasetManifest, TransferOrder, TransferProgress
from isthmus.domain.errors import Refused, Unavailable
from isthmus.trust.authority import Authority
from tests.data.transfer.conftest import MIB, World, write_credentials


def test_contents_of_all_sizes_arrive(world: World) -> None:
    """Empty, small, of one piece and a bit, and of many pieces; what was there is not fetched."""
    world.serve("north")
    sizes = [0, 1, 4000, MIB, MIB + 1, 9 * MIB + 17, *range(2, 40)]
    contents = [world.put_random("north", size) for size in sizes]
    there = contents[2]
    world.keep("south").put_file(world.keep("north").path_of(there.blake3))
    told: list[Progress] = []
    outcome = world.pull(world.order(contents, world.source("north")), on_progress=told.append)
    assert outcome.end is End.DONE
    assert world.whole("south", contents)
    assert outcome.received_bytes - outcome.resent_bytes == sum(sizes) - 4000
    assert told[-1].done_bytes == told[-1].total_bytes == sum(sizes)
    assert outcome.contents_done == len(contents)
    assert {use.congestion_control for use in outcome.ways} <= {"bbr", "cubic", "reno"}
    assert not list(world.keep("south").incoming.iterdir())
    # And once more: nothing is left to do.
    assert world.pull(world.order(contents, world.source("north"))).received_bytes == 0


def test_many_small_contents_travel_in_bundles(world: World) -> None:
    """More than a bundle holds, and a list that is shown on demand; holes where some are here already."""
    world.serve("north")
    contents = world.put_many("north", [f"content {number}".encode() for number in range(2000)])
    for content in contents[::97]:
        world.keep("south").put_file(world.keep("north").path_of(content.blake3))
    outcome = world.pull(world.order(contents, world.source("north")))
    assert outcome.end is End.DONE
    assert world.whole("south", contents)


def test_the_last_bytes_are_not_waited_for_until_a_stream_counts_as_silent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that wakes for many bytes at once wakes for the last ones too."""
    monkeypatch.setattr(stream, "STALL_SECONDS", 300.0)
    world.serve("north")
    contents = world.put_many("north", [f"{number}".encode() * 900 for number in range(1000, 1250)])
    limits = {"streams": 1, "bytes_per_second": 2.0 * MIB, "patience_seconds": 60.0}
    outcome = world.pull(world.order(contents, world.source("north"), **limits))
    assert outcome.end is End.DONE
    assert outcome.seconds < 60, "it was woken by the end of its patience"


def test_what_is_here_is_found_however_many_are_asked_for(world: World) -> None:
    """One by one, by directory, and in a directory that holds far more than is asked for."""
    keep = world.keep("north")
    contents = [content.blake3 for content in world.put_many("north", [b"%d" % number for number in range(3000)])]
    absent = {blake3[:2] + blake3[2:][::-1] for blake3 in contents} - set(contents)
    assert keep.present(contents[:5]) == set(contents[:5])
    assert keep.present([*contents, *absent]) == set(contents)
    assert keep.missing([*contents, *absent]) == absent
    crowded = keep.path_of(contents[0]).parent
    for number in range(300):
        (crowded / f"{contents[0][:2]}{number:062}").touch()
    one = {f"{contents[0][:2]}{number:062}" for number in range(8)} | {contents[0]}
    assert keep.present([*one, contents[0][:2] + "f" * 62]) == one


def test_a_stranger_gets_nothing(world: World, tmp_path: Path) -> None:
    """A reader with a certificate of another authority, and a server with one."""
    world.serve("north")
    contents = [world.put_random("north", 5000)]
    other = Authority.open(tmp_path / "other")
    stranger = write_credentials(other, "south", tmp_path / "stranger")
    fooled = replace(stranger, authority=world.credentials("south").authority)
    trusting: list[Credentials] = [fooled, stranger]
    for credentials in trusting:
        world._credentials["south"] = credentials
        outcome = world.pull(world.order(contents, world.source("north")))
        assert outcome.end is End.REFUSED
        assert {failure.code for failure in outcome.failures} == {"certificate"}
    assert not world.keep("south").has(contents[0].blake3)


def test_a_site_that_answers_in_the_place_of_another_is_refused(world: World) -> None:
    """The certificate has to name the site that was ordered from."""
    world.serve("east")
    contents = [world.put_random("east", 5000)]
    outcome = world.pull(world.order(contents, replace(world.source("east"), site="north")))
    assert outcome.end is End.REFUSED
    assert "is east, not north" in outcome.cause


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"reader": "east"}, "ticket_of_another"),
        ({"sources": ("west",)}, "ticket_of_another"),
        ({"contents": "0" * 64}, "ticket_of_another"),
        ({"expires": time.time() - 3600}, "ticket_expired"),
    ],
)
def test_a_ticket_that_does_not_fit_is_refused(world: World, fields: dict[str, object], code: str) -> None:
    """Another reader, another source, other contents, too late."""
    world.serve("north")
    outcome = world.pull(world.order([world.put_random("north", 5000)], world.source("north"), ticket=fields))
    assert outcome.end is End.REFUSED
    assert {failure.code for failure in outcome.failures} == {code}


@pytest.mark.parametrize("late", [True, False])
async def test_a_transfer_whose_ticket_is_over_waits_for_the_next_order(world: World, late: bool) -> None:
    """It is no refusal, which would end it for good: the control plane orders it anew, with a ticket that holds."""
    world.serve("north")
    content = world.put_random("north", 5000)
    file = DatasetFile(path="a", size_bytes=content.size_bytes, blake3=content.blake3)
    wanted = world.order([content], world.source("north"), ticket={"expires": time.time() + (-3600 if late else 600)})
    order = TransferOrder(
        id=wanted.id,
        fence=1,
        dataset="p/d@1",
        manifest="0" * 64,
        manifest_sha256="0" * 64,
        size_bytes=content.size_bytes,
        source="north",
        address=f"127.0.0.1:{world.servers['north'].port}",
        ticket=wanted.ticket,
    )
    ends = [world.keep("south"), world.credentials("south")]
    told: list[TransferProgress] = []
    moving = pull_directly(order, DatasetManifest(files=(file,)), *ends, stop=threading.Event(), tell=told.append)
    if late:
        with pytest.raises(Unavailable) as over:
            await moving
        assert over.value.code == "ticket_expired"
        assert not world.whole("south", [content])
        return
    await moving
    assert world.whole("south", [content])
    (way,) = told[-1].ways
    assert way.bytes >= content.size_bytes
    assert way.streams >= 1


def test_a_ticket_signed_by_nobody_is_refused(world: World) -> None:
    """Garbage, too."""
    world.serve("north")
    order = world.order([world.put_random("north", 5000)], world.source("north"))
    outcome = world.pull(replace(order, ticket="a" + order.ticket))
    assert outcome.end is End.REFUSED
    assert {failure.code for failure in outcome.failures} == {"ticket_forged"}


@pytest.mark.parametrize("size", [4000, 3 * MIB])
def test_a_limit_beside_the_replica_holds_whatever_the_ticket_says(world: World, size: int) -> None:
    """The reader's region is that of its certificate. Nothing of the content leaves."""
    world.serve("north")
    content = world.put("north", bytes([7]) * size, regions=["cn-east", "cn-north"])
    world.credentials("south", "cn-west")
    free = replace(content, regions=())
    outcome = world.pull(world.order([free], world.source("north")))
    assert outcome.end is End.REFUSED
    assert {failure.code for failure in outcome.failures} == {"region_limit"}
    assert outcome.received_bytes == 0
    # Without a region in its certificate it is in none.
    outcome = world.pull(world.order([free], world.source("north"), reader="nowhere"), site="nowhere")
    assert outcome.end is End.REFUSED


@pytest.mark.parametrize("size", [4000, 3 * MIB])
def test_a_limit_travels_with_the_content(world: World, size: int) -> None:
    """Whoever may have it keeps to the limit in turn, also when the order does not speak of it."""
    world.serve("north")
    content = world.put("north", bytes([7]) * size, regions=["cn-east"])
    world.credentials("south", "cn-east")
    outcome = world.pull(world.order([replace(content, regions=())], world.source("north")))
    assert outcome.end is End.DONE
    assert world.keep("south").regions_of(content.blake3) == ("cn-east",)


def test_a_limit_in_the_order_is_kept_beside_the_replica(world: World) -> None:
    """It holds from the moment in which the content is visible."""
    world.serve("north")
    contents = [world.put_random("north", size) for size in (4000, 3 * MIB)]
    limited = [replace(content, regions=("cn-east",)) for content in contents]
    assert world.pull(world.order(limited, world.source("north"))).end is End.DONE
    assert {world.keep("south").regions_of(content.blake3) for content in contents} == {("cn-east",)}


def flip(world: World, site: str, content: Content, at: int) -> None:
    """A byte of a content is another one on the disk of a site."""
    path = world.keep(site).path_of(content.blake3)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("size", [4000, 5 * MIB])
def test_what_is_corrupt_at_the_sender_is_never_visible(world: World, size: int) -> None:
    """It is told of whom; another site that has it whole gives it."""
    world.serve("north")
    world.serve("east")
    content = world.put_random("north", size)
    other = world.put_random("north", 100_000)
    flip(world, "north", content, size // 2)
    alone = world.pull(world.order([content, other], world.source("north")))
    assert alone.end is End.CORRUPT
    assert [(failure.site, failure.blake3) for failure in alone.failures] == [("north", content.blake3)]
    assert not world.keep("south").has(content.blake3)
    assert world.whole("south", [other])
    good = world.directory / "good"
    good.write_bytes(world.keep("north").path_of(content.blake3).read_bytes())
    flip(world, "north", content, size // 2)
    world.keep("east").put_file(world.keep("north").path_of(content.blake3), expected=content.blake3)
    flip(world, "north", content, size // 2)
    both = world.pull(world.order([content], world.source("north"), world.source("east")))
    assert both.end is End.DONE
    assert world.whole("south", [content])


def test_a_list_that_fits_a_wrong_content_does_not_make_it_right(world: World) -> None:
    """The hash over the whole decides: nothing is kept, and another source is taken from the start."""
    world.serve("north")
    world.serve("east")
    right, wrong = bytes(3 * MIB), bytes(3 * MIB - 1) + b"x"
    content, lie = world.put("east", right), world.put("north", wrong)
    north = world.keep("north")
    north.write_pieces(content.blake3, north.pieces_of(lie.blake3))
    north.admit(str(north.path_of(lie.blake3)), content.blake3)
    alone = world.pull(world.order([content], world.source("north")))
    assert alone.end is End.CORRUPT
    assert not world.keep("south").has(content.blake3)
    assert [failure.site for failure in alone.failures] == ["north"]
    assert world.pull(world.order([content], world.source("east"))).end is End.DONE


def test_what_no_site_has_is_told(world: World) -> None:
    """The others of the order arrive."""
    world.serve("north")
    here = [world.put_random("north", size) for size in (100, 2 * MIB)]
    gone = [world.put_random("nobody", size) for size in (200, 2 * MIB)]
    outcome = world.pull(world.order([here[0], gone[0], here[1], gone[1]], world.source("north")))
    assert outcome.end is End.NOT_FOUND
    assert {failure.blake3 for failure in outcome.failures} == {content.blake3 for content in gone}
    assert world.whole("south", here)


def test_a_site_that_does_not_answer_is_waited_for_as_long_as_patience_lasts(world: World) -> None:
    """And then the pull ends."""
    world.serve("north")
    contents = [world.put_random("north", 5000)]
    source = replace(world.source("north"), endpoint=Endpoint(host="127.0.0.1", port=1))
    outcome = world.pull(world.order(contents, source, patience_seconds=0.5))
    assert outcome.end is End.UNAVAILABLE
    assert "does not answer" in outcome.cause


def test_two_sites_share_a_transfer(world: World) -> None:
    """Each brings a part, in one go."""
    for site in ("north", "east"):
        world.serve(site)
    data = bytes(range(256)) * (32 * MIB // 256)
    content = world.put("north", data)
    world.put("east", data)
    limit = {"bytes_per_second": 16.0 * MIB}
    outcome = world.pull(world.order([content], world.source("north"), world.source("east"), ticket=limit))
    assert outcome.end is End.DONE
    assert all(use.bytes > 2 * MIB for use in outcome.ways)


def test_a_receiver_serves_what_it_has_verified_while_it_still_receives(world: World) -> None:
    """Point to multipoint: the leaf takes from the middle; the source sends once."""
    world.serve("north")
    world.serve("middle")
    contents = [world.put_random("north", 12 * MIB), *(world.put_random("north", 100) for _ in range(20))]
    slow = {"bytes_per_second": 8.0 * MIB}
    first = world.order(contents, world.source("north"), reader="middle", ticket=slow)
    second = world.order(contents, world.source("middle", is_receiving=True), reader="leaf")
    thread = threading.Thread(target=lambda: world.pull(first, site="middle"))
    thread.start()
    had: list[int] = []

    def watch(progress: Progress) -> None:
        if not world.keep("middle").has(contents[0].blake3):
            had.append(progress.done_bytes)

    outcome = world.pull(second, site="leaf", on_progress=watch)
    thread.join()
    assert outcome.end is End.DONE
    assert world.whole("leaf", contents)
    assert max(had) > 0, "the leaf had nothing before the middle had all"
    world.servers["north"].stop()
    deadline = time.monotonic() + 5
    while sum(item.reader == "middle" for item in world.served) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {item.reader for item in world.served if item.reader != "leaf"} == {"middle"}


def test_nothing_moves_outside_the_promised_windows(world: World) -> None:
    """What did not come within them comes with the next order."""
    world.serve("north")
    content = world.put_random("north", 8 * MIB)
    now = time.time()
    window = Window(start=now + 0.3, end=now + 1.3, bytes_per_second=4.0 * MIB)
    outcome = world.pull(world.order([content], world.source("north", Way(windows=(window,)))))
    assert outcome.end is End.WINDOW_OVER
    assert 0 < outcome.received_bytes < 5.5 * MIB
    rest = world.pull(world.order([content], world.source("north")))
    assert rest.end is End.DONE
    assert rest.resumed_bytes > 0
    assert rest.received_bytes - rest.resent_bytes == 8 * MIB - rest.resumed_bytes


def test_the_sender_holds_to_the_rate_of_the_ticket(world: World) -> None:
    """All streams together, whatever the reader asks for."""
    world.serve("north")
    content = world.put_random("north", 6 * MIB)
    outcome = world.pull(world.order([content], world.source("north"), ticket={"bytes_per_second": 4.0 * MIB}))
    assert outcome.end is End.DONE
    assert outcome.seconds > 1.0


def test_the_caller_may_stop_it(world: World) -> None:
    """What is verified stays."""
    world.serve("north")
    content = world.put_random("north", 16 * MIB)
    stop = threading.Event()

    def after_a_while(progress: Progress) -> None:
        if progress.done_bytes > MIB:
            stop.set()

    order = world.order([content], world.source("north"), bytes_per_second=8.0 * MIB)
    outcome = world.pull(order, on_progress=after_a_while, stop=stop)
    assert outcome.end is End.STOPPED
    again = world.pull(world.order([content], world.source("north")))
    assert again.end is End.DONE
    assert again.resumed_bytes >= MIB


def test_one_content_is_fetched_by_one_pull_at_a_time(world: World) -> None:
    """The second is told so, and harms nothing."""
    world.serve("north")
    content = world.put_random("north", 8 * MIB)
    order = world.order([content], world.source("north"), bytes_per_second=6.0 * MIB)
    outcomes = []
    first = threading.Thread(target=lambda: outcomes.append(world.pull(order)))
    first.start()
    part = world.keep("south").incoming / f"{content.blake3}.have"
    while not part.exists():
        time.sleep(0.01)
    second = world.pull(order)
    first.join()
    assert second.end is End.UNAVAILABLE
    assert "Another pull" in second.cause
    assert outcomes[0].end is End.DONE


def test_an_apn_identifier_takes_a_right(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the way is refused with the reason."""

    def refuse(*_arguments: object, **_named: object) -> None:
        raise Refused("Packets with an APN identifier take the right CAP_NET_RAW.", code="marks")

    world.serve("north")
    monkeypatch.setattr(stream.sockets, "mark", refuse)
    outcome = world.pull(world.order([world.put_random("north", 10)], world.source("north", Way(apn=7))))
    assert outcome.end is End.REFUSED
    assert "CAP_NET_RAW" in outcome.cause


def test_limits_that_shut_one_another_out_are_refused(world: World) -> None:
    """A limit only ever gets narrower."""
    keep = world.keep("north")
    content = world.put("north", b"x", regions=["a", "b"])
    keep.limit(content.blake3, ["b", "c"])
    assert keep.regions_of(content.blake3) == ("b",)
    with pytest.raises(Refused, match="No region"):
        keep.limit(content.blake3, ["c"])
