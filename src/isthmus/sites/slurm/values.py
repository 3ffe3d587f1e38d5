"""Values as Slurm's commands print them: times, durations, sizes, exit codes, TRES lists."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_CLOCK = re.compile(r"(?:(\d{1,6})-)?(?:(\d{1,6}):)?(\d{1,6}):(\d{1,2})(?:\.(\d{1,9}))?")
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGTPE]?)")
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_DIGITS = re.compile(r"\d{1,18}")

# What makes Slurm print times as seconds since 1970, and in UTC where it is too old for that.
TIME_ENVIRONMENT = {"SLURM_TIME_FORMAT": "%s", "TZ": "UTC0", "LC_ALL": "C"}


def whole(text: str) -> int | None:
    """A whole number, or None for `N/A`, `UNLIMITED` and the like."""
    return int(text) if _DIGITS.fullmatch(text.strip()) else None


def moment(text: str) -> float | None:
    """Seconds since 1970 from `1795702400` or (as UTC) `2026-11-26T14:13:20`; None for `Unknown`, `N/A`, 0."""
    text = text.strip()
    number = whole(text)
    if number is not None:
        return float(number) or None
    if _ISO.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def clock_seconds(text: str) -> float | None:
    """Seconds from `[D-][HH:]MM:SS[.mmm]`; None for `UNLIMITED`, `INVALID`, `NOT_SET`."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()[:4])
    return days * 86400 + hours * 3600 + minutes * 60 + seconds + float(f"0.{match[5] or 0}")


def size_bytes(text: str, unit: int = 1) -> int:
    """Bytes from `3072000`, `1234K`, `0.01M` (powers of 1024); a number without a letter counts `unit` bytes each."""
    match = _SIZE.fullmatch(text.strip().rstrip("nc"))
    if match is None:
        return 0
    factor = 1024 ** (" KMGTPE".index(match[2])) if match[2] else unit
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def exit_status(text: str) -> tuple[int | None, int]:
    """Exit code and signal from `3:0` or `0:15`."""
    code, _, signal = text.strip().partition(":")
    return whole(code), whole(signal) or 0


def tres(text: str) -> dict[str, str]:
    """The parts of `billing=1,cpu=1,gres/gpu=2,mem=500M,node=1`."""
    return {name: value for name, equals, value in (part.partition("=") for part in text.split(",")) if equals}


def gpus(text: str) -> int:
    """How many accelerators a TRES list holds: `gres/gpu`, or the sum of its kinds where only those are given."""
    parts = tres(text)
    if "gres/gpu" in parts:
        return whole(parts["gres/gpu"]) or 0
    return sum(whole(value) or 0 for name, value in parts.items() if name.startswith("gres/gpu:"))
