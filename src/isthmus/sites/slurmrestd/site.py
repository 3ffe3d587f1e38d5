"""The kind of site `slurmrestd`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid
from isthmus.sites.batch.pace import QUERY_HELP
from isthmus.sites.batch.site import BatchSite
from isthmus.sites.settings import Settings, read_user_options
from isthmus.sites.slurm.site import SUBMISSION_HELP, read_options
from isthmus.sites.slurm.submission import NATIVE
from isthmus.sites.slurmrestd.client import NEWEST, OLDEST, RestClient
from isthmus.sites.slurmrestd.scheduler import SlurmRest
from isthmus.sites.slurmrestd.token import TokenSource
from isthmus.sites.transport import TRANSPORT_HELP, open_transport
from isthmus.sites.workspace import WORKSPACE_HELP, Workspace


class SlurmRestSite(BatchSite):
    """A Slurm cluster behind slurmrestd; directories and files go over the transport."""

    CONFIG_HELP: ClassVar[dict[str, str]] = {
        **TRANSPORT_HELP,
        **WORKSPACE_HELP,
        **SUBMISSION_HELP,
        "url": "Base URL of slurmrestd, e.g. https://slurm.example.org:6820.",
        "api_version": f"Interface to use, v0.0.{OLDEST} to v0.0.{NEWEST} (the newest that both speak).",
        "api_user": "Account that asks about queue and load (the transport's own account).",
        "token_file": "Path here of a file of mode 0600 with the token.",
        "token_command": "Words of a command here that prints a token for {account}, instead of token_file.",
        "token_seconds": "Seconds for which a token from token_command is used again (300).",
        "query_seconds": QUERY_HELP,
        "request_timeout_seconds": "Seconds that one request may take (60).",
    }

    def __init__(self, name: str, config: Mapping[str, Any], blobs: BlobStore) -> None:
        """Read the operator's settings; Invalid names the wrong one. Nothing is contacted yet."""
        command = config.get("token_command")
        settings = Settings({key: value for key, value in config.items() if key != "token_command"}, self.CONFIG_HELP)
        url = settings.text("url")
        if not url.startswith(("http://", "https://")):
            raise Invalid("url", f"{url!r} is not a base URL.", remedy="Write it like https://host:6820.")
        transport = open_transport(settings)
        client = RestClient(
            url,
            _tokens(settings, command),
            user=settings.text("api_user", transport.own_account),
            version=_version(settings),
            max_requests=settings.integer("max_commands", 8, least=1, most=1000),
            timeout_seconds=settings.seconds("request_timeout_seconds", 60.0),
            query_seconds=settings.seconds("query_seconds", 2.0, least=0.0),
        )
        scheduler = SlurmRest(
            client,
            own_account=transport.own_account,
            accounting=settings.choice("accounting", ("auto", "sacct", "none"), "auto") != "none",
            defaults=read_options(settings),
            user_options=read_user_options(settings, NATIVE),
            gpu_gres=settings.text("gpu_gres", "gpu"),
        )
        super().__init__(
            name,
            transport=transport,
            workspace=Workspace(transport, blobs, settings, site=name),
            scheduler=scheduler,
            describe_seconds=settings.seconds("describe_seconds", 5.0),
        )


def _tokens(settings: Settings, command: Any) -> TokenSource:
    path = settings.text("token_file")
    words = command or []
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise Invalid("token_command", "is not a list of words.", remedy='Write ["scontrol-token", "{account}"].')
    if bool(path) == bool(words):
        raise Invalid("token_file", "one of token_file and token_command must be given.", remedy="Give exactly one.")
    return TokenSource(path=path, command=words, keep_seconds=settings.seconds("token_seconds", 300.0))


def _version(settings: Settings) -> int:
    text = settings.text("api_version")
    if not text:
        return 0
    number = text.removeprefix("v0.0.")
    if not number.isdigit() or not OLDEST <= int(number) <= NEWEST:
        raise Invalid("api_version", f"{text!r} is not known.", remedy=f"Use v0.0.{OLDEST} to v0.0.{NEWEST}.")
    return int(number)
