"""A transport with prepared answers, for tests of what adapters ask and how they read answers."""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from isthmus.sites.transport.port import DEFAULT_TIMEOUT_SECONDS, Command, CommandFailed, CommandResult, Stdin
from isthmus.sites.transport.turns import Carries

Answer = CommandResult | Exception | str | bytes | Callable[[str, bytes], CommandResult]


@dataclass(slots=True)
class ScriptedTransport:
    """Answers the first entry of `answers` whose text is part of the command line (an argument list is joined as a
    shell would read it); an answer may be text (exit 0), a result, an exception to raise, or a function of command
    line and stdin. `asked` keeps (command line, account, stdin). No entry: exit code 127."""

    answers: list[tuple[str, Answer]] = field(default_factory=list)
    place: str = "the script"
    own_account: str = "operator"
    is_local: bool = False
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)

    async def run(
        self,
        command: Command,
        *,
        stdin: Stdin = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,  # noqa: ARG002
        account: str = "",
        carries: Carries = Carries.NOTHING,  # noqa: ARG002
    ) -> CommandResult:
        """Give the prepared answer."""
        line = command if isinstance(command, str) else shlex.join(command)
        given = stdin if isinstance(stdin, bytes) else b"" if stdin is None else b"".join([c async for c in stdin])
        self.asked.append((line, account, given))
        for part, answer in self.answers:
            if part in line:
                match answer:
                    case Exception():
                        raise answer
                    case str():
                        return CommandResult(exit_code=0, stdout=answer.encode(), stderr=b"")
                    case bytes():
                        return CommandResult(exit_code=0, stdout=answer, stderr=b"")
                    case CommandResult():
                        return answer
                    case _:
                        return answer(line, given)
        return CommandResult(exit_code=127, stdout=b"", stderr=b"not in the script")

    async def stream(
        self,
        command: Command,
        *,
        stdin: Stdin = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        account: str = "",
        carries: Carries = Carries.NOTHING,  # noqa: ARG002
    ) -> AsyncGenerator[bytes, None]:
        """Give the prepared answer in one chunk."""
        result = await self.run(command, stdin=stdin, timeout_seconds=timeout_seconds, account=account)
        if result.stdout:
            yield result.stdout
        if result.exit_code != 0:
            raise CommandFailed("A scripted command failed.", result)

    async def close(self) -> None:
        """Nothing is held."""
