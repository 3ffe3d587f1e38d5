"""Submits many jobs with one command over the transport, and knows for each whether an answer came back."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

from isthmus.domain.errors import IsthmusError
from isthmus.sites.port import SubmitOutcome, Uncertain
from isthmus.sites.transport import Transport

MAX_JOBS_PER_COMMAND = 100
_ANSWER = re.compile(r"^#isthmus-job (\S+) (\d+)\n(.*?)^#isthmus-done \1$", re.MULTILINE | re.DOTALL)

# A scheduler that does not answer is not asked again for the rest: those stay without an answer.
_PRELUDE = """\
limit() { if command -v timeout >/dev/null 2>&1; then timeout -k 5 "$@"; else shift; "$@"; fi; }
send() {
  key=$1; shift
  out=$(limit "$@" 2>&1 </dev/null); code=$?
  printf '#isthmus-job %s %s\\n%s\\n#isthmus-done %s\\n' "$key" "$code" "$out" "$key"
  case "$code:$out" in
    124:*|137:*|*[Uu]"nable to contact"*|*[Tt]"imed out"*|*"onnection refused"*) exit 0 ;;
  esac
}
"""


def send_script(commands: Mapping[str, Sequence[str]], env: Mapping[str, str], timeout_seconds: int) -> str:
    """A script that runs one submission command for each key, bounded in time, and prints its answer."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    lines.append(_PRELUDE)
    lines += [f"send {key} {timeout_seconds} {shlex.join(argv)}" for key, argv in commands.items()]
    return "\n".join(lines) + "\n"


def read_answers(text: str) -> dict[str, tuple[int, str]]:
    """Exit code and output of each submission whose answer is whole."""
    return {match[1]: (int(match[2]), match[3]) for match in _ANSWER.finditer(text)}


async def send(
    transport: Transport,
    commands: Mapping[str, Sequence[str]],
    parse: Callable[[int, str], SubmitOutcome],
    *,
    account: str,
    env: Mapping[str, str],
    timeout_seconds: int,
) -> dict[str, SubmitOutcome]:
    """Submit in portions; whatever breaks, each key gets its outcome: Uncertain where no whole answer came back."""
    outcomes: dict[str, SubmitOutcome] = {}
    keys = list(commands)
    for start in range(0, len(keys), MAX_JOBS_PER_COMMAND):
        portion = {key: commands[key] for key in keys[start : start + MAX_JOBS_PER_COMMAND]}
        text, trouble = await _run(transport, send_script(portion, env, timeout_seconds), account, timeout_seconds)
        answers = read_answers(text)
        for key in portion:
            if key in answers:
                outcomes[key] = parse(*answers[key])
            else:
                outcomes[key] = Uncertain(message=trouble or "The scheduler stopped answering before this job.")
        if len(answers) < len(portion):
            for key in keys[start + MAX_JOBS_PER_COMMAND :]:
                outcomes[key] = Uncertain(message="The scheduler stopped answering before this job.")
            break
    return outcomes


async def _run(transport: Transport, script: str, account: str, timeout_seconds: int) -> tuple[str, str]:
    chunks: list[bytes] = []
    trouble = ""
    try:
        stream = transport.stream(
            ["/bin/sh", "-s"], stdin=script.encode(), timeout_seconds=timeout_seconds + 15, account=account
        )
        async with aclosing(stream) as parts:
            async for chunk in parts:
                chunks.append(chunk)
    except IsthmusError as error:
        trouble = str(error)
    return b"".join(chunks).decode("utf-8", "replace"), trouble
