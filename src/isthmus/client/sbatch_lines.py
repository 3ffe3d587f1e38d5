"""The #SBATCH lines of a script as options by their long names; what they mean is in `sbatch`.

Source: sbatch(1) of Slurm 23.11, option names and short forms.
"""

from __future__ import annotations

import re
import shlex

_SHORT = {
    "A": "account", "a": "array", "C": "constraint", "c": "cpus-per-task", "D": "chdir", "d": "dependency",
    "e": "error", "F": "nodefile", "G": "gpus", "H": "hold", "I": "immediate", "i": "input", "J": "job-name",
    "L": "licenses", "k": "no-kill", "M": "clusters", "m": "distribution", "N": "nodes", "n": "ntasks",
    "O": "overcommit", "o": "output", "p": "partition", "Q": "quiet", "q": "qos", "S": "core-spec",
    "s": "oversubscribe", "t": "time", "v": "verbose", "W": "wait", "w": "nodelist", "x": "exclude",
}  # fmt: skip
_ALIAS = {"workdir": "chdir", "tasks-per-node": "ntasks-per-node", "licences": "licenses", "gid-name": "gid"}
_FLAGS = frozenset(
    [
        "contiguous",
        "exclusive",
        "hold",
        "get-user-env",
        "kill-on-invalid-dep",
        "no-kill",
        "no-requeue",
        "requeue",
        "overcommit",
        "oversubscribe",
        "parsable",
        "quiet",
        "reboot",
        "spread-job",
        "test-only",
        "verbose",
        "wait",
        "use-min-nodes",
        "immediate",
    ]
)


def options(text: str) -> list[tuple[str, str]]:
    """The options of the #SBATCH lines that stand before the first command, by long name, in order."""
    words: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            words += [*shlex.split(line.removeprefix("#SBATCH"), comments=True), "\n"]
    found: list[tuple[str, str]] = []
    index = 0
    while index < len(words):
        word = words[index]
        following = words[index + 1] if index + 1 < len(words) else "\n"
        index += 1
        if word == "\n":
            continue
        if word.startswith("--"):
            option, separator, value = word[2:].partition("=")
        elif word.startswith("-") and len(word) > 1:
            option, value = _SHORT.get(word[1], word[1]), word[2:]
            separator = "=" if value else ""
            value = value.removeprefix("=")
        elif word in ("hetjob", "packjob"):
            option, separator, value = word, "=", ""
        else:
            found.append((word, ""))
            continue
        option = _ALIAS.get(option, option)
        if not separator and option not in _FLAGS and following != "\n" and not _is_option(following):
            value = following
            index += 1
        found.append((option, value))
    return found


def _is_option(word: str) -> bool:
    return re.fullmatch(r"--[a-z].*|-[A-Za-z].*", word) is not None
