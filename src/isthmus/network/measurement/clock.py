"""How well this machine's clock is set, as the kernel knows it from whoever disciplines it (adjtimex)."""

from __future__ import annotations

import ctypes
import struct

from isthmus.network.measurement.packet import ErrorEstimate

_STATUS_UNSYNCHRONISED = 0x0040
_TIMEX_BYTES = 512
_MAXIMUM_ERROR_OFFSET, _STATUS_OFFSET = 24, 40


def error_estimate() -> ErrorEstimate:
    """The greatest error that the kernel reckons with."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: ask, change nothing
    if ctypes.CDLL(None).adjtimex(timex) < 0:
        return ErrorEstimate(synchronised=False, error_seconds=1.0)
    (microseconds,) = struct.unpack_from("l", timex, _MAXIMUM_ERROR_OFFSET)
    (status,) = struct.unpack_from("i", timex, _STATUS_OFFSET)
    return ErrorEstimate(
        synchronised=not status & _STATUS_UNSYNCHRONISED, error_seconds=max(microseconds, 1) / 1_000_000
    )
