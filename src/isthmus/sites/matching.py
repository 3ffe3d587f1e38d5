"""Which files at a site a job's declared outputs mean; patterns are matched here and never reach a shell."""

from __future__ import annotations

import fnmatch
from pathlib import PurePosixPath

from isthmus.sites.port import JobOutput


def has_wildcard(part: str) -> bool:
    """Whether a part of a path is a pattern."""
    return any(mark in part for mark in "*?[")


def literal_start(path: str) -> str:
    """The part of a path before its first wildcard: where to look."""
    kept: list[str] = []
    for part in PurePosixPath(path).parts:
        if has_wildcard(part):
            break
        kept.append(part)
    return "/".join(kept)


def fits(pattern: str, place: str) -> bool:
    """Whether a place matches a pattern part by part; `**` stands for any number of parts."""
    return _fits(pattern.split("/"), place.split("/"))


def matches(output: JobOutput, pattern: str, place: str) -> bool:
    """Whether the file at `place` belongs to an output whose full pattern at the site is `pattern`."""
    if not output.directory:
        return place == pattern or fits(pattern, place)
    depth = len(pattern.split("/"))
    parts = place.split("/")
    return len(parts) > depth and fits(pattern, "/".join(parts[:depth]))


def _fits(pattern: list[str], place: list[str]) -> bool:
    if not pattern:
        return not place
    if pattern[0] == "**":
        return any(_fits(pattern[1:], place[start:]) for start in range(len(place) + 1))
    if not place:
        return False
    same = fnmatch.fnmatchcase(place[0], pattern[0]) if has_wildcard(pattern[0]) else place[0] == pattern[0]
    return same and _fits(pattern[1:], place[1:])
