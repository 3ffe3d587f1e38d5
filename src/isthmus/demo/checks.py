"""What the demonstration checks: each check has a sentence, and the end is good only if every one held."""

from __future__ import annotations

from dataclasses import dataclass, field

from isthmus.domain.errors import IsthmusError


class DemoError(IsthmusError):
    """The demonstration cannot go on."""

    code = "demo"


@dataclass(slots=True)
class Checks:
    """The checks so far."""

    held: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def expect(self, condition: object, sentence: str, otherwise: object = "") -> bool:
        """Record whether a condition holds; `otherwise` is told when it does not."""
        if condition:
            self.held.append(sentence)
        else:
            self.broken.append(f"{sentence}: {otherwise}" if otherwise else sentence)
        return bool(condition)
