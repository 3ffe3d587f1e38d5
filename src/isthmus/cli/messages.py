"""The one door for words that people read: translated when a catalogue for their language is installed."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gettext import NullTranslations

_LOCALES = Path(__file__).parent / "locale"


@cache
def _catalogue() -> NullTranslations | None:
    if not _LOCALES.is_dir():
        return None
    import gettext

    languages = [os.environ.get(name, "") for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")]
    wanted = [language.split(".")[0] for given in languages for language in given.split(":") if language]
    return gettext.translation("isthmus", _LOCALES, languages=wanted, fallback=True)


def _(text: str) -> str:
    """The text in the user's language; placeholders are filled after it, with `.format`."""
    catalogue = _catalogue()
    return text if catalogue is None else catalogue.gettext(text)


def _n(one: str, many: str, count: int) -> str:
    """The text for so many things: `one` for a single one, else `many`; in languages with other forms, or with one only, theirs."""
    catalogue = _catalogue()
    if catalogue is None:
        return one if count == 1 else many
    return catalogue.ngettext(one, many, count)
