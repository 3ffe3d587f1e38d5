"""Runs scheduler commands over a transport so that a cut-off answer cannot pass for a whole one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.domain.errors import Unavailable
from isthmus.sites.transport import Transport

_MARK = "#isthmus-end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One command's answer: exit code, standard output, and the site's clock when it ended."""

    code: int
    text: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Answers of several commands, and the last of what all printed as errors."""

    answers: tuple[Asked, ...]
    complaint: str


def script_of(commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> str:
    """A script that runs the commands one after another and marks the end of each with exit code and time."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    lines += [f'{shlex.join(argv)} </dev/null; printf "\\n{_MARK} %s %s\\n" "$?" "$(date +%s)"' for argv in commands]
    return "\n".join(lines) + "\n"


def read_talk(text: str, count: int) -> list[Asked]:
    """The answers in a script's output; Unavailable when fewer than `count` are whole."""
    answers: list[Asked] = []
    rest = text
    while len(answers) < count:
        body, mark, rest = rest.partition(f"\n{_MARK} ")
        line, newline, rest = rest.partition("\n")
        words = line.split()
        if not mark or not newline or len(words) != 2 or not all(word.isdigit() for word in words):
            raise Unavailable("A scheduler's answer was cut off.")
        answers.append(Asked(code=int(words[0]), text=body, at=float(words[1])))
    return answers


async def ask(
    transport: Transport,
    commands: Sequence[Sequence[str]],
    *,
    env: Mapping[str, str],
    timeout_seconds: float,
    account: str = "",
) -> Talk:
    """Run commands in one go; Unavailable when any answer is missing or cut off."""
    script = script_of(commands, env)
    result = await transport.run(
        ["/bin/sh", "-s"], stdin=script.encode(), timeout_seconds=timeout_seconds, account=account
    )
    answers = read_talk(result.stdout.decode("utf-8", "replace"), len(commands))
    return Talk(answers=tuple(answers), complaint=result.complaint)
