"""The test packets of STAMP, unauthenticated mode (RFC 8762, section 4.2.1 and 4.3.1), with the TLVs of RFC 8972 that are used.

Times are whole nanoseconds since 1970; on the wire they are 64-bit NTP time stamps (RFC 5905). Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from isthmus.domain.errors import Corrupt

PORT = 862
BASE_BYTES = 44
_NTP_TO_UNIX_SECONDS = 2_208_988_800
_ERA_SECONDS = 1 << 32
_SENDER = struct.Struct("!I8sHH28x")
_REFLECTOR = struct.Struct("!I8sHH8sI8sH2xB3x")
_TLV = struct.Struct("!BBH")
_FOLLOW_UP = struct.Struct("!I8sB3x")
_SOFTWARE_LOCAL = 2
"""Where a follow-up time comes from (RFC 8972, section 4.7): software, local."""
UNRECOGNISED, MALFORMED = 0x80, 0x40
"""The flags U and M of a TLV (RFC 8972, section 4)."""


class TlvType(IntEnum):
    """The extensions that are used."""

    EXTRA_PADDING = 1
    """Makes a packet as long as those of the traffic (section 4.1)."""
    FOLLOW_UP_TELEMETRY = 7
    """When the reflector's packet before really left (section 4.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEstimate:
    """How well a clock is set: `synchronised`, and the error in seconds (RFC 4656, section 4.1.2)."""

    synchronised: bool
    error_seconds: float

    def encode(self) -> int:
        """S bit, Z bit 0 for NTP time, 6 bits of scale, 8 bits of multiplier; the error is rounded up."""
        units = max(1, round(min(self.error_seconds, 1e6) * 2**32))
        scale = max(0, units.bit_length() - 8)
        multiplier = -(-units >> scale)
        if multiplier > 255:
            scale, multiplier = scale + 1, -(-units >> (scale + 1))
        return (int(self.synchronised) << 15) | (scale << 8) | multiplier

    @classmethod
    def decode(cls, word: int) -> ErrorEstimate:
        """From the wire."""
        return cls(synchronised=bool(word >> 15), error_seconds=(word & 0xFF) * 2.0 ** ((word >> 8 & 0x3F) - 32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tlv:
    """One extension: its flags, type and value."""

    kind: int
    value: bytes
    flags: int = UNRECOGNISED


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """The time at which the reflector's packet `sequence` left, by its kernel."""

    sequence: int
    sent_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderPacket:
    """What a sender sends."""

    sequence: int
    sent_ns: int
    error: ErrorEstimate
    session: int = 0
    tlvs: tuple[Tlv, ...] = ()

    def encode(self) -> bytes:
        """44 bytes and the extensions."""
        head = _SENDER.pack(self.sequence, ntp(self.sent_ns), self.error.encode(), self.session)
        return head + encode_tlvs(self.tlvs)

    @classmethod
    def decode(cls, data: bytes, near_ns: int) -> SenderPacket:
        """From the wire; `near_ns` says in which NTP era the time lies. Raises Corrupt for a packet that is too short."""
        if len(data) < BASE_BYTES:
            raise Corrupt(f"A STAMP packet of {len(data)} bytes is too short.")
        sequence, sent, error, session = _SENDER.unpack_from(data)
        return cls(
            sequence=sequence,
            sent_ns=from_ntp(sent, near_ns),
            error=ErrorEstimate.decode(error),
            session=session,
            tlvs=decode_tlvs(data[BASE_BYTES:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectorPacket:
    """What a reflector sends back: its own numbers and times, and those of the sender's packet."""

    sequence: int
    sent_ns: int
    error: ErrorEstimate
    session: int
    received_ns: int
    sender_sequence: int
    sender_sent_ns: int
    sender_error: ErrorEstimate
    sender_ttl: int
    tlvs: tuple[Tlv, ...] = ()

    def encode(self) -> bytes:
        """44 bytes and the extensions."""
        head = _REFLECTOR.pack(
            self.sequence,
            ntp(self.sent_ns),
            self.error.encode(),
            self.session,
            ntp(self.received_ns),
            self.sender_sequence,
            ntp(self.sender_sent_ns),
            self.sender_error.encode(),
            self.sender_ttl,
        )
        return head + encode_tlvs(self.tlvs)

    @classmethod
    def decode(cls, data: bytes, near_ns: int) -> ReflectorPacket:
        """From the wire. Raises Corrupt for a packet that is too short."""
        if len(data) < BASE_BYTES:
            raise Corrupt(f"A STAMP packet of {len(data)} bytes is too short.")
        sequence, sent, error, session, received, sender_sequence, sender_sent, sender_error, ttl = (
            _REFLECTOR.unpack_from(data)
        )
        return cls(
            sequence=sequence,
            sent_ns=from_ntp(sent, near_ns),
            error=ErrorEstimate.decode(error),
            session=session,
            received_ns=from_ntp(received, near_ns),
            sender_sequence=sender_sequence,
            sender_sent_ns=from_ntp(sender_sent, near_ns),
            sender_error=ErrorEstimate.decode(sender_error),
            sender_ttl=ttl,
            tlvs=decode_tlvs(data[BASE_BYTES:]),
        )

    @property
    def follow_up(self) -> FollowUp | None:
        """What the packet tells of the reflector's packet before, if it does."""
        for tlv in self.tlvs:
            if tlv.kind == TlvType.FOLLOW_UP_TELEMETRY and not tlv.flags and len(tlv.value) == _FOLLOW_UP.size:
                sequence, sent, method = _FOLLOW_UP.unpack(tlv.value)
                if method:
                    return FollowUp(sequence=sequence, sent_ns=from_ntp(sent, self.sent_ns))
        return None


def reflected(tlvs: tuple[Tlv, ...], follow_up: FollowUp | None) -> tuple[Tlv, ...]:
    """The extensions as a reflector sends them back: those it knows without flags, the others marked (RFC 8972, section 4)."""
    found = []
    for tlv in tlvs:
        if tlv.flags & MALFORMED:
            found.append(tlv)
        elif tlv.kind == TlvType.EXTRA_PADDING:
            found.append(replace(tlv, flags=0))
        elif tlv.kind == TlvType.FOLLOW_UP_TELEMETRY and len(tlv.value) == _FOLLOW_UP.size:
            value = bytes(_FOLLOW_UP.size)
            if follow_up is not None:
                value = _FOLLOW_UP.pack(follow_up.sequence, ntp(follow_up.sent_ns), _SOFTWARE_LOCAL)
            found.append(Tlv(kind=tlv.kind, value=value, flags=0))
        else:
            found.append(replace(tlv, flags=UNRECOGNISED))
    return tuple(found)


def ask_follow_up() -> Tlv:
    """The extension by which a sender asks when the packets before really left."""
    return Tlv(kind=TlvType.FOLLOW_UP_TELEMETRY, value=bytes(_FOLLOW_UP.size))


def padding(size: int, tlvs: tuple[Tlv, ...]) -> tuple[Tlv, ...]:
    """The extension that makes a packet with these others `size` bytes long; none where it is as long already."""
    left = size - BASE_BYTES - len(encode_tlvs(tlvs))
    return () if left < _TLV.size else (Tlv(kind=TlvType.EXTRA_PADDING, value=bytes(left - _TLV.size)),)


def encode_tlvs(tlvs: tuple[Tlv, ...]) -> bytes:
    """To the wire."""
    return b"".join(_TLV.pack(tlv.flags, tlv.kind, len(tlv.value)) + tlv.value for tlv in tlvs)


def decode_tlvs(data: bytes) -> tuple[Tlv, ...]:
    """From the wire; one that is longer than the packet is the last, and marked as malformed."""
    found = []
    while len(data) >= _TLV.size:
        flags, kind, length = _TLV.unpack_from(data)
        value, data = data[_TLV.size : _TLV.size + length], data[_TLV.size + length :]
        if len(value) < length:
            found.append(Tlv(kind=kind, value=value, flags=flags | MALFORMED))
            break
        found.append(Tlv(kind=kind, value=value, flags=flags & ~MALFORMED))
    return tuple(found)


def ntp(time_ns: int) -> bytes:
    """A 64-bit NTP time stamp, rounded to the nearest 2^-32 s."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    units = ((seconds + _NTP_TO_UNIX_SECONDS) << 32) + ((rest << 32) + 500_000_000) // 1_000_000_000
    return (units & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "big")


def from_ntp(stamp: bytes, near_ns: int) -> int:
    """Nanoseconds since 1970 from a time stamp, in the era (of 136 years) that is nearest to `near_ns`."""
    seconds, fraction = int.from_bytes(stamp[:4], "big"), int.from_bytes(stamp[4:], "big")
    seconds -= _NTP_TO_UNIX_SECONDS
    era = round((near_ns / 1e9 - seconds) / _ERA_SECONDS)
    return (seconds + era * _ERA_SECONDS) * 1_000_000_000 + (fraction * 1_000_000_000 + (1 << 31) >> 32)
