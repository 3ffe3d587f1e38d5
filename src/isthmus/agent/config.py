"""The operator's file for an agent's site: which adapter with which settings, and for whom. It never leaves the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isthmus.domain.errors import Invalid

_KNOWN = ("kind", "settings", "accounts_allowed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig:
    """`kind` names the adapter, `settings` are its own, `accounts_allowed` the local accounts jobs may run as (None: any
    that the adapter can act for; the empty name is the agent's own)."""

    kind: str
    settings: Mapping[str, Any]
    accounts_allowed: frozenset[str] | None


def read_site_config(path: Path) -> SiteConfig:
    """Read the file, YAML or JSON; Invalid names what is wrong with it."""
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Invalid("site-config", f"cannot be read ({error.strerror}).", remedy="Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Invalid("site-config", "is neither YAML nor JSON.", remedy="Write kind: local and so on.") from None
    if not isinstance(document, dict):
        raise Invalid("site-config", "is not a map.", remedy=f"Give {', '.join(_KNOWN)}.")
    for key in document:
        if key not in _KNOWN:
            raise Invalid(f"site-config.{key}", "is not known.", remedy=f"Known: {', '.join(_KNOWN)}.")
    kind, settings, allowed = document.get("kind"), document.get("settings") or {}, document.get("accounts_allowed")
    if not isinstance(kind, str) or not kind:
        raise Invalid("site-config.kind", "is missing.", remedy="Name the kind of site: local, slurm, ...")
    if not isinstance(settings, dict):
        raise Invalid("site-config.settings", "is not a map.", remedy="Give the adapter's settings by name.")
    if allowed is not None and not (isinstance(allowed, list) and all(isinstance(name, str) for name in allowed)):
        raise Invalid("site-config.accounts_allowed", "is not a list of names.", remedy="Write [alice, bob].")
    return SiteConfig(kind=kind, settings=settings, accounts_allowed=None if allowed is None else frozenset(allowed))
