"""STAMP packets are those of the RFCs to the byte, and figures say what happened on the way."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.errors import Corrupt, Invalid
from isthmus.network.measurement.clock import error_estimate
from isthmus.network.measurement.figures import Sample, figures
from isthmus.network.measurement.packet import (
    MALFORMED,
    UNRECOGNISED,
    ErrorEstimate,
    FollowUp,
    ReflectorPacket,
    SenderPacket,
    Tlv,
    ask_follow_up,
    decode_tlvs,
    encode_tlvs,
    from_ntp,
    ntp,
    padding,
    reflected,
)
from isthmus.network.measurement.sender import Session

NOW = 1_764_536_400_000_000_000
SYNCHRONISED = ErrorEstimate(synchronised=True, error_seconds=2.0**-32)


def test_a_sender_packet_has_the_layout_of_rfc_8762() -> None:
    """Sequence, NTP time, error estimate, session (RFC 8972), 28 octets of zero: 44 in all."""
    packet = SenderPacket(sequence=0x01020304, sent_ns=1_500_000_000, error=SYNCHRONISED, session=0xABCD)
    assert packet.encode().hex() == "01020304" + "83aa7e81" + "80000000" + "8001" + "abcd" + "00" * 28
    assert SenderPacket.decode(packet.encode(), 0) == packet


def test_a_reflector_packet_has_the_layout_of_rfc_8762() -> None:
    """The reflector's sequence, time, error and session, its time of receiving, then the sender's three, and the TTL."""
    packet = ReflectorPacket(
        sequence=1,
        sent_ns=2_000_000_000,
        error=ErrorEstimate(synchronised=False, error_seconds=1.0),
        session=2,
        received_ns=1_750_000_000,
        sender_sequence=3,
        sender_sent_ns=1_500_000_000,
        sender_error=SYNCHRONISED,
        sender_ttl=63,
    )
    assert packet.encode().hex() == (
        "00000001" + "83aa7e8200000000" + "1980" + "0002" + "83aa7e81c0000000"
        "00000003" + "83aa7e8180000000" + "8001" + "0000" + "3f" + "000000"
    )
    assert ReflectorPacket.decode(packet.encode(), 0) == packet


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_a_time_survives_the_wire_in_every_era(time_ns: int) -> None:
    """NTP seconds overflow in 2036; what is near is what is meant."""
    assert abs(from_ntp(ntp(time_ns), time_ns + 86_400_000_000_000) - time_ns) <= 1


@given(st.floats(0, 1e6), st.booleans())
def test_an_error_estimate_is_never_told_too_small(seconds: float, synchronised: bool) -> None:
    """It is rounded up, by less than one part in a hundred."""
    told = ErrorEstimate.decode(ErrorEstimate(synchronised=synchronised, error_seconds=seconds).encode())
    assert told.synchronised is synchronised
    assert seconds - 2**-33 <= told.error_seconds <= max(seconds * 1.01, 2**-32)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=5))
def test_extensions_survive_the_wire_and_the_unknown_are_marked(items: list[tuple[int, bytes]]) -> None:
    """Padding and follow-up come back without flags, the others with U (RFC 8972, section 4)."""
    tlvs = tuple(Tlv(kind=kind, value=value) for kind, value in items)
    assert decode_tlvs(encode_tlvs(tlvs)) == tlvs
    for one, back in zip(tlvs, reflected(tlvs, None), strict=True):
        known = one.kind == 1 or (one.kind == 7 and len(one.value) == 16)
        assert back.flags == (0 if known else UNRECOGNISED)
        assert len(back.value) == len(one.value)


def test_a_truncated_extension_is_marked_as_malformed() -> None:
    """The M flag, and no reading beyond the packet."""
    (tlv,) = decode_tlvs(bytes([UNRECOGNISED, 1, 0, 200]) + b"abc")
    assert tlv.flags & MALFORMED
    assert tlv.value == b"abc"
    with pytest.raises(Corrupt):
        SenderPacket.decode(bytes(43), 0)


def test_a_follow_up_tells_when_the_packet_before_left() -> None:
    """Only when the reflector knows it."""
    base = ReflectorPacket(
        sequence=5,
        sent_ns=NOW,
        error=SYNCHRONISED,
        session=1,
        received_ns=NOW,
        sender_sequence=5,
        sender_sent_ns=NOW,
        sender_error=SYNCHRONISED,
        sender_ttl=64,
    )
    for follow_up in (None, FollowUp(sequence=4, sent_ns=NOW - 7)):
        tlvs = reflected((ask_follow_up(),), follow_up)
        packet = ReflectorPacket.decode(base.encode() + encode_tlvs(tlvs), NOW)
        assert packet.follow_up == follow_up


@given(st.integers(64, 8000))
def test_padding_makes_a_packet_as_long_as_the_traffic(size: int) -> None:
    """To the byte, but for the four that an extension takes at least."""
    asked = (ask_follow_up(),)
    packet = SenderPacket(sequence=0, sent_ns=NOW, error=SYNCHRONISED, tlvs=(*asked, *padding(size, asked)))
    assert len(packet.encode()) == (size if size >= 68 else 64)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 10**7), st.integers(0, 10**7)), max_size=60))
def test_losses_and_delays_are_told_apart_by_direction(way: list[tuple[bool, bool, int, int]]) -> None:
    """A path that loses packets there and back, with clocks a second apart: counts add up, two-way delay ignores the offset."""
    samples, reflected_count = [], 0
    last_answered_reflections = 0
    for number, (lost_there, lost_back, there, back) in enumerate(way):
        if lost_there:
            continue
        sequence, reflected_count = reflected_count, reflected_count + 1
        if lost_back:
            continue
        last_answered_reflections = reflected_count
        sent = NOW + number * 10**7
        came = sent + there + 10**9
        samples.append(
            Sample(
                sequence=number,
                reflector_sequence=sequence,
                sent_ns=sent,
                reflected_in_ns=came,
                reflected_out_ns=came + 5000,
                received_ns=came + 5000 + back - 10**9,
                exact=True,
            )
        )
    found = figures(len(way), samples, math.inf)
    assert found.lost_forward + found.lost_backward + found.received == len(way)
    if samples:
        assert found.lost_backward == last_answered_reflections - len(samples)
        assert found.two_way is not None
        answered = [there + back for lost_there, lost_back, there, back in way if not lost_there and not lost_back]
        assert found.two_way.least == min(answered) / 1e9
        assert found.two_way.greatest == max(answered) / 1e9


def test_the_variation_is_that_of_consecutive_packets() -> None:
    """A lost packet between two makes no pair (RFC 3393)."""

    def sample(number: int, there: int) -> Sample:
        return Sample(
            sequence=number,
            reflector_sequence=number,
            sent_ns=0,
            reflected_in_ns=there,
            reflected_out_ns=there,
            received_ns=there,
            exact=True,
        )

    found = figures(4, [sample(0, 100), sample(1, 300), sample(3, 900)], 0.0)
    assert found.forward_variation_seconds == pytest.approx(200e-9)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"target": "north"}, "target"),
        ({"count": 0}, "count"),
        ({"interval_seconds": 0.0}, "interval_seconds"),
        ({"size_bytes": 43}, "size_bytes"),
        ({"dscp": 64}, "dscp"),
    ],
)
def test_a_session_that_would_be_no_measurement_is_refused(wrong: dict[str, object], field: str) -> None:
    """The field is named."""
    with pytest.raises(Invalid) as error:
        Session(**({"target": "::1"} | wrong))  # type: ignore[arg-type]
    assert error.value.field == field


def test_the_clock_tells_its_error() -> None:
    """Whatever the machine: a positive number."""
    assert error_estimate().error_seconds > 0
