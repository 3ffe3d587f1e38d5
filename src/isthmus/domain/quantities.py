"""Rates, times and shares as people write them: `500 Mbit/s`, `20 ms`, `0.1 %`."""

from __future__ import annotations

import re

from isthmus.domain.errors import Invalid

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z/%µ]*)\s*")
_RATES = {"bit/s": 1.0, "kbit/s": 1e3, "mbit/s": 1e6, "gbit/s": 1e9, "bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def read_rate(value: object, field: str) -> float:
    """Bits per second, above 8 kbit/s; raises Invalid."""
    found = _with_unit(value, _RATES)
    if found is None or not 8e3 <= found <= 100e9:
        raise Invalid(field, f"{value!r} is not a rate.", remedy="Write it as 500 Mbit/s or 10 Gbit/s.")
    return found


def read_time(value: object, field: str) -> float:
    """Seconds, at most 10; raises Invalid."""
    found = 0.0 if value == 0 and not isinstance(value, bool) else _with_unit(value, _TIMES)
    if found is None or found > 10:
        raise Invalid(field, f"{value!r} is not a time of a link.", remedy="Write it as 20 ms, 300 us or 0.1 s.")
    return found


def read_share(value: object, field: str) -> float:
    """A share between 0 and 1, as a number or as per cent; raises Invalid."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        found: float | None = float(value)
    else:
        found = _with_unit(value, {"%": 0.01, "": 1.0})
    if found is None or not 0 <= found < 1:
        raise Invalid(field, f"{value!r} is not a share.", remedy="Write it as 0.1 % or 0.001.")
    return found


def show_rate(bits_per_second: float | None) -> str:
    """`500 Mbit/s`; an empty text for no limit."""
    if bits_per_second is None:
        return ""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits_per_second >= size:
            return f"{bits_per_second / size:g} {unit}"
    return f"{bits_per_second:g} bit/s"


def show_time(seconds: float) -> str:
    """`20 ms`."""
    return f"{seconds * 1e3:g} ms"


def _with_unit(value: object, units: dict[str, float]) -> float | None:
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()]
