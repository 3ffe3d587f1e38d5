"""Reads an operator's settings of a site: every wrong or unknown key is an Invalid that names it and the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from isthmus.domain.errors import Invalid
from isthmus.domain.units import parse_size


class Settings:
    """Typed reading of one `config` mapping; `known` maps each key to one sentence about it."""

    def __init__(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        for key in config:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
                hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
                raise Invalid(str(key), "is not a setting of this kind of site.", remedy=hint)
        self._config = config

    def has(self, key: str) -> bool:
        """Whether the operator gave the key."""
        return self._config.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self._config.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or "\0" in value or "\n" in value:
            raise Invalid(key, f"{value!r} is not a line of text.", remedy="Give a string.")
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        """One of a few words."""
        value = self.text(key, default)
        if value not in choices:
            raise Invalid(key, f"{value!r} is not a choice.", remedy=f"Choose one of {', '.join(choices)}.")
        return value

    def integer(self, key: str, default: int, least: int = 0, most: int = 10**9) -> int:
        """A whole number within bounds."""
        value = self._config.get(key)
        if value is None:
            return default
        if isinstance(value, str) and value.strip().isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Invalid(key, f"{value!r} is not allowed.", remedy=f"Give a whole number from {least} to {most}.")
        return value

    def seconds(self, key: str, default: float, least: float = 0.1) -> float:
        """A duration in seconds."""
        value = self._config.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
            raise Invalid(key, f"{value!r} is not allowed.", remedy=f"Give seconds, {least} or more.")
        return float(value)

    def size(self, key: str, default: int) -> int:
        """A size in bytes, from a number or `8G`."""
        value = self._config.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Invalid(key, f"{value!r} is not a size.", remedy="Write a number of bytes or 512M, 8G.")
        return parse_size(value, key)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._config.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise Invalid(key, f"{value!r} is not true or false.", remedy="Give true or false.")
        return value

    def mapping(self, key: str) -> dict[str, str]:
        """Names to strings."""
        value = self._config.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(
            isinstance(k, str) and isinstance(v, str) for k, v in value.items()
        ):
            raise Invalid(key, "is not a map of strings.", remedy='Write {"name": "value"}.')
        return dict(value)


def option_features(user_options: Collection[str]) -> frozenset[str]:
    """How a description says that the site hands options to a scheduler, and which a task may bring."""
    return frozenset({"options", *(f"option:{name}" for name in user_options)})


def read_user_options(settings: Settings, known: Collection[str]) -> frozenset[str]:
    """The setting `user_options`: the scheduler's options that a task may bring; none unless the operator says so. Invalid
    for one that may never be set."""
    names = frozenset(name.strip() for name in settings.text("user_options").split(",") if name.strip())
    strange = sorted(names - set(known))
    if strange:
        raise Invalid("user_options", f"{strange[0]!r} cannot be set.", remedy=f"Known: {', '.join(sorted(known))}.")
    return names
