"""What every command needs: the client, the project, and how to answer (table, wide table, JSON)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isthmus.cli.messages import _
from isthmus.cli.screen import put_json, say

if TYPE_CHECKING:
    from isthmus.client.sync import Client
    from isthmus.client.wire import Steps

T = TypeVar("T")


def make_client(project: str) -> Client:
    """The client of this command; tests put another here."""
    import sys

    if (
        "httpx" not in sys.modules
    ):  # httpx loads its own command line with it, half of its time; without, it does not mind
        sys.modules["httpx._main"] = None  # type: ignore[assignment]
    from isthmus.client.sync import Client

    return Client(project=project or None)


@dataclass
class Session:
    """One command's connection and its way to answer."""

    project_given: str = ""
    as_json: bool = False
    wide: bool = False
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        """The client, connected when first asked for."""
        if self._client is None:
            self._client = make_client(self.project_given)
            if self._client.profile.in_the_clear:
                say(
                    _("warning: your token crosses the network unencrypted to {url}; use https.").format(
                        url=self._client.profile.url
                    )
                )
        return self._client

    @property
    def project(self) -> str:
        """The project that is meant."""
        return self.project_given or self.client.profile.project

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        return self.client.run(steps)

    def task_id(self, text: str) -> str:
        """The identifier of the task that is meant by an identifier, its beginning, or a name."""
        from isthmus.client import operations

        return self.run(operations.find_task(text, project=self.project_given))

    def answer(self, document: Any, text: str) -> None:
        """What was done: a document for programs, a sentence on stderr for people."""
        if self.as_json:
            put_json(document)
        else:
            say(text)

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


def answers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --json, -o and --project, and a Session as its first argument that is closed at the end."""

    @click.option("--json", "as_json", is_flag=True, help=_("Answer JSON, for programs."))
    @click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "wide", "json"]),
        default="table",
        help=_("How to answer."),
    )
    @click.option("--project", default="", metavar="NAME", help=_("The project that is meant (else ISTHMUS_PROJECT)."))
    @functools.wraps(function)
    def wrapped(*arguments: Any, as_json: bool, form: str, project: str, **keywords: Any) -> Any:
        session = Session(project_given=project, as_json=as_json or form == "json", wide=form == "wide")
        try:
            return function(session, *arguments, **keywords)
        finally:
            session.close()

    return wrapped


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something dangerous; without a terminal the answer is no."""
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(question + " " + _("Say --yes to confirm where nobody can be asked."))
    if not click.confirm(question, err=True):
        say(_("Nothing was changed."))
        raise click.exceptions.Exit(130)
