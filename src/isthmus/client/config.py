"""Where the service is and who asks: from arguments, the environment, the profile file, or the service of this machine.

A token is only ever sent to the address it was given for: the local administrator's token goes to the local service alone.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from isthmus.domain.errors import Refused

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One service: address, token, the project that is meant when none is named, and the authorities trusted for TLS."""

    url: str
    token: str = field(repr=False, default="")
    project: str = DEFAULT_PROJECT
    ca_file: str = ""
    source: str = ""

    @property
    def in_the_clear(self) -> bool:
        """Whether the token would cross a network unencrypted."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        return parts.scheme == "http" and host not in ("localhost", "::1") and not host.startswith("127.")


class NotConfigured(Refused):
    """Nobody said where the service is, or how to prove who asks."""

    code = "not_configured"


def state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The directory of the service of this machine."""
    if given := environment.get("ISTHMUS_STATE"):
        return Path(given)
    base = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".local/state")
    return Path(base) / "isthmus"


def config_file(environment: Mapping[str, str] = os.environ) -> Path:
    """The profile file."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".config")
    return Path(base) / "isthmus" / "config.toml"


def find_profile(
    url: str | None = None,
    token: str | None = None,
    project: str | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> Profile:
    """The profile to use; NotConfigured says what is missing, Refused that a token file is readable by others."""
    settings = _read_settings(environment)
    wanted_project = project or environment.get("ISTHMUS_PROJECT") or str(settings.get("project") or "")
    ca_file = environment.get("ISTHMUS_CA_FILE") or str(settings.get("ca_file") or "")
    own_token = token or environment.get("ISTHMUS_TOKEN") or ""
    if not own_token and (file := environment.get("ISTHMUS_TOKEN_FILE")):
        own_token = read_token(Path(file).expanduser())

    if address := url or environment.get("ISTHMUS_URL"):
        source = "the arguments" if url else "ISTHMUS_URL"
        if not own_token and str(settings.get("url") or "").rstrip("/") == address.rstrip("/"):
            own_token = _settings_token(settings)
        if not own_token:
            own_token = _local_token_for(address, environment)
    elif settings.get("url"):
        address, source = str(settings["url"]), str(config_file(environment))
        own_token = own_token or _settings_token(settings)
    else:
        address, source = _local_service(environment)
        own_token = own_token or read_token(state_directory(environment) / "admin-token")
    if not own_token:
        raise NotConfigured(
            f"There is no token for {address}.",
            remedy="Set ISTHMUS_TOKEN_FILE to a file that holds one (`isthmus token create` makes it).",
        )
    if urlsplit(address).scheme not in ("http", "https"):
        raise NotConfigured(f"{address!r} is not an address.", remedy="Write it like https://isthmus.example:8443.")
    return Profile(
        url=address.rstrip("/"),
        token=own_token,
        project=wanted_project or DEFAULT_PROJECT,
        ca_file=ca_file,
        source=source,
    )


def read_token(path: Path) -> str:
    """The token in a file; Refused when others may read it."""
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise Refused(
                f"The token file {str(path)!r} can be read by others.",
                remedy=f"Make it yours alone: chmod 600 {path}",
                code="token_file_open",
            )
        return path.read_text().strip()
    except OSError as error:
        raise NotConfigured(
            f"The token file {str(path)!r} cannot be read: {error.strerror}.",
            remedy="Check ISTHMUS_TOKEN_FILE, or start the service here with `isthmus up`.",
        ) from error


def _read_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    path = config_file(environment)
    try:
        text = path.read_text()
    except OSError:
        return {}
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotConfigured(f"{path} is not TOML: {error}.", remedy="Correct the file.") from error
    if name := environment.get("ISTHMUS_PROFILE"):
        profiles = settings.get("profiles", {})
        if name not in profiles:
            known = ", ".join(sorted(profiles)) or "none"
            raise NotConfigured(f"{path} has no profile {name!r}.", remedy=f"It has: {known}.")
        settings = profiles[name]
    if "token" in settings and path.stat().st_mode & 0o077:
        raise Refused(
            f"{path} holds a token and can be read by others.", remedy=f"chmod 600 {path}", code="token_file_open"
        )
    return settings


def _settings_token(settings: Mapping[str, Any]) -> str:
    if file := settings.get("token_file"):
        return read_token(Path(str(file)).expanduser())
    return str(settings.get("token") or "")


def read_service_file(state: Path) -> dict[str, Any]:
    """What the service of this machine wrote about itself (`url`, `pid`); empty when there is none."""
    try:
        document = json.loads((state / "service.json").read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _local_service(environment: Mapping[str, str]) -> tuple[str, str]:
    state = state_directory(environment)
    url = str(read_service_file(state).get("url") or "")
    if not url:
        raise NotConfigured(
            "No service is known.",
            remedy="Set ISTHMUS_URL and ISTHMUS_TOKEN_FILE, or start one here with `isthmus up --detach`.",
        )
    return url, str(state / "service.json")


def _local_token_for(address: str, environment: Mapping[str, str]) -> str:
    state = state_directory(environment)
    local = str(read_service_file(state).get("url") or "")
    if local and local.rstrip("/") == address.rstrip("/"):
        return read_token(state / "admin-token")
    return ""
