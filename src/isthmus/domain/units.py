"""Sizes and durations as people write them: `8G`, `512MiB`, `90`, `2h30m`, `1-12:00:00`."""

from __future__ import annotations

import re

from isthmus.domain.errors import Invalid

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|m|s)", re.IGNORECASE)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_size(value: str | int, field: str = "size") -> int:
    """Bytes from `8G` (powers of 1024, as batch systems count) or from a plain number of bytes."""
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise Invalid(field, f"{value!r} is not a size.", remedy="Write a number of bytes or 512M, 8G, 1.5T.")
    return int(float(match[1]) * 1024 ** _POWER[match[2].lower()])


def parse_duration(value: str | float, field: str = "duration") -> int:
    """Seconds from `90`, `15m`, `2h30m`, `HH:MM:SS` or Slurm's `D-HH:MM:SS`."""
    if isinstance(value, int | float):
        return int(value)
    text = value.strip()
    if text.replace(".", "", 1).isdigit():
        return int(float(text))
    if ":" in text:
        return _clock(text, field)
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise Invalid(field, f"{value!r} is not a duration.", remedy="Write seconds, 15m, 2h30m or 1-12:00:00.")
    return int(sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts))


def _clock(text: str, field: str) -> int:
    days, _, clock = text.rpartition("-")
    fields = clock.split(":")
    if not all(part.isdigit() for part in fields) or len(fields) > 3 or (days and not days.isdigit()):
        raise Invalid(field, f"{text!r} is not a duration.", remedy="Write HH:MM:SS or D-HH:MM:SS.")
    if len(fields) == 2:  # Slurm: D-HH:MM with days, MM:SS without
        fields = [*fields, "0"] if days else ["0", *fields]
    hours, minutes, seconds = (int(part) for part in fields)
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def show_size(size_bytes: float) -> str:
    """`1.5 GiB` for people."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size_bytes) < 1024 or unit == "TiB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError("unreachable")


def show_duration(seconds: float) -> str:
    """`2h 05m` for people; one decimal under ten seconds."""
    if seconds < 0:
        return "-" + show_duration(-seconds)
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"
