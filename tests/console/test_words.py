"""The page has words, in both languages, for all that the service may answer: states, reasons, what would help."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from pathlib import Path

import pytest

from isthmus.domain.dataset import ReplicaState, Tier, TransferState
from isthmus.domain.lifecycle import AttemptState, EndReason, TaskState
from isthmus.domain.network import Source
from isthmus.domain.placement import Why
from isthmus.domain.site import SiteState
from isthmus.placement import gangs
from isthmus.placement.feasibility import _REMEDIES

SOURCES = Path(__file__).parents[2] / "frontend" / "src"


@cache
def catalogue(language: str) -> dict[str, str]:
    """The words of one language."""
    text = (SOURCES / "words" / f"{language}.ts").read_text()
    return dict(re.findall(r"^  '([^']+)': '((?:[^'\\]|\\.)*)',$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("group", "kinds"),
    [
        ("state", (TaskState, AttemptState, SiteState, ReplicaState, TransferState)),
        ("end", (EndReason,)),
        ("why", (Why,)),
        ("tier", (Tier,)),
        ("origin", (Source,)),
    ],
)
def test_every_value_that_is_shown_has_its_word(group: str, kinds: tuple[type[StrEnum], ...]) -> None:
    """In English and in Chinese."""
    for kind in kinds:
        for value in kind:
            for language in ("en", "zh"):
                assert f"{group}.{value.value}" in catalogue(language), (language, value)


def test_what_would_help_is_told_in_chinese() -> None:
    """Each sentence that a decision may say of a change that would help is known to the page."""
    text = (SOURCES / "lib" / "told.ts").read_text()
    known = [re.compile(found) for found in re.findall(r"\[/(\^.*?\$)/, ", text)]
    assert len(known) > 30
    for why, sentence in {**_REMEDIES, **gangs._REMEDIES}.items():
        said = sentence.format(wanted="a", offered="b")
        assert any(pattern.match(said) for pattern in known), why
