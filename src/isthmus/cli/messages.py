"""The one door for words that people read: translated when a catalogue for their language is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_LOCALES = Path(__file__).parent / "locale"


@cache
def _translate() -> Callable[[str], str]:
    if not _LOCALES.is_dir():
        return str
    import gettext

    languages = [os.environ.get(name, "") for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")]
    wanted = [language.split(".")[0] for given in languages for language in given.split(":") if language]
    return gettext.translation("isthmus", _LOCALES, languages=wanted, fallback=True).gettext


def _(text: str) -> str:
    """The text in the user's language; placeholders are filled after it, with `.format`."""
    return _translate()(text)
