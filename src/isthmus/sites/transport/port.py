"""What a transport is, and how a command becomes an argument list for another account."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from isthmus.domain.errors import Invalid, Refused, Unavailable
from isthmus.sites.transport.turns import Carries

Command = Sequence[str] | str  # an argument list, or a script for `/bin/sh -c` (under 100 kB; long data goes to stdin)
Stdin = bytes | AsyncIterator[bytes] | None

DEFAULT_TIMEOUT_SECONDS: Final = 60.0
MAX_OUTPUT_BYTES: Final = 256 * 1024**2  # of `run`; larger answers are read by `stream`
STDERR_KEPT_BYTES: Final = 64 * 1024
SWITCHES: Final = ("none", "sudo", "runuser")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended; `exit_code` is negative for a signal; 127 also when there is no such program."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; undecodable bytes are replaced."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def complaint(self) -> str:
        """The last of standard error as one short line, for messages."""
        return " ".join(self.stderr[-2000:].decode("utf-8", "replace").split())[-500:]


class TimedOut(Unavailable):
    """A command took longer than it may; whether it had its effect is not known."""

    code = "timed_out"


class CommandFailed(Unavailable):
    """A streamed command ended with a failure after all; `result` holds its exit code and standard error."""

    code = "command_failed"

    def __init__(self, cause: str, result: CommandResult) -> None:
        super().__init__(cause)
        self.result = result


class Transport(Protocol):
    """Runs commands at one host. At most `max_commands` run at once, others wait their turn (which is not counted in
    their time-out); what `carries` content leaves room for the others (see `turns`). Every method raises Unavailable when the host cannot be reached, TimedOut (an Unavailable) when a
    command takes too long; a command that ran and failed is a plain result with its exit code. No error repeats the
    command's arguments or input."""

    @property
    def place(self) -> str:
        """Where commands run, for messages: `this host` or `user@host:port`."""
        ...

    @property
    def own_account(self) -> str:
        """The account that commands run as when `account` is empty."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether paths at the site are paths of this process's own file system."""
        ...

    async def run(
        self,
        command: Command,
        *,
        stdin: Stdin = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        account: str = "",
        carries: Carries = Carries.NOTHING,
    ) -> CommandResult:
        """Run to its end; its whole output is kept in memory (at most MAX_OUTPUT_BYTES, then Unavailable)."""
        ...

    def stream(
        self,
        command: Command,
        *,
        stdin: Stdin = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        account: str = "",
        carries: Carries = Carries.NOTHING,
    ) -> AsyncGenerator[bytes, None]:
        """Standard output as it comes; CommandFailed at the end when the exit code is not 0. `timeout_seconds` is the
        longest silence, not the whole time. Closing the iterator ends the command."""
        ...

    async def close(self) -> None:
        """Let go of connections; commands in flight are ended."""
        ...


def is_account(name: str) -> bool:
    """Whether the text may name a local account at a site."""
    return _ACCOUNT.fullmatch(name) is not None


def check_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The operator's extra environment of commands; Invalid for a name that is none."""
    for name, value in env.items():
        if _VARIABLE.fullmatch(name) is None or "\0" in value:
            raise Invalid(f"env.{name}", "is not a variable.", remedy="Use letters, digits and _, no digit first.")
    return dict(env)


def build_argv(command: Command, *, account: str, own: str, switch: str, env: Mapping[str, str]) -> list[str]:
    """The argument list that runs `command` as `account`; Refused when the site may not switch accounts."""
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    if env:
        argv = ["env", *(f"{name}={value}" for name, value in env.items()), *argv]
    if not account or account == own:
        return argv
    if not is_account(account):
        raise Invalid("account", f"{account!r} is not an account name.", remedy="Use letters, digits, . _ -.")
    if switch == "sudo":
        return ["sudo", "-n", "-H", "-u", account, "--", *argv]
    if switch == "runuser":
        return ["runuser", "-u", account, "--", *argv]
    raise Refused(
        f"This site runs everything as {own} and was asked to act as {account}.",
        remedy="Set switch_account to sudo or runuser at the site, or map its users to the empty account.",
        code="account_switch_off",
    )
