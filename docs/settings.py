"""Writes the settings of every kind of site into docs/joining-a-site.md, from the sentences that the adapters carry.

Run it from the repository: PYTHONPATH=src python docs/settings.py
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

BEGIN = "<!-- settings: written by `python docs/settings.py`; do not change by hand -->"
END = "<!-- end of settings -->"
PAGE = Path(__file__).parent / "joining-a-site.md"
SHARED_BY = 3  # a setting of so many kinds is told once
KINDS = {
    "local": "this machine, without a batch system",
    "ssh": "one host over SSH, without a batch system",
    "slurm": "Slurm by its commands, here or over SSH",
    "slurmrestd": "Slurm by its REST daemon",
    "gridengine": "Grid Engine by its commands, here or over SSH",
    "null": "a site that runs nothing, for measuring Isthmus itself",
}


def settings() -> dict[str, dict[str, str]]:
    """Kind -> setting -> sentence."""
    found = {}
    for entry in entry_points(group="isthmus.sites"):
        if entry.name in KINDS:
            found[entry.name] = dict(entry.load().CONFIG_HELP)
    return {kind: found[kind] for kind in KINDS if kind in found}


def tables() -> str:
    """A table for each kind."""
    found = settings()
    shared = {
        key: sentence
        for help_texts in found.values()
        for key, sentence in help_texts.items()
        if sum(other.get(key) == sentence for other in found.values()) >= SHARED_BY
    }
    lines = ["### Several kinds", "", "| setting | kinds | meaning (default) |", "|---|---|---|"]
    for key, sentence in shared.items():
        kinds = ", ".join(kind for kind, help_texts in found.items() if help_texts.get(key) == sentence)
        lines.append(f"| `{key}` | {kinds} | {sentence.replace('|', '&#124;')} |")
    lines.append("")
    for kind, every in found.items():
        help_texts = {key: sentence for key, sentence in every.items() if key not in shared}
        lines += [
            f"### {kind}",
            "",
            f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}.",
            "",
            "| setting | meaning (default) |",
            "|---|---|",
        ]
        lines += [f"| `{key}` | {sentence.replace('|', '&#124;')} |" for key, sentence in help_texts.items()]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Rewrite the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
