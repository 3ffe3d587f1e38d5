"""What goes wrong in a lab: one error with a code, a cause and a remedy."""

from __future__ import annotations

from isthmus.domain.errors import IsthmusError


class LabError(IsthmusError):
    """A daemon of the lab is missing, did not start or did not do what it was asked."""

    code = "lab"

    def __init__(self, cause: str, remedy: str = "") -> None:
        """Keep the cause, and the remedy that a person can act on."""
        super().__init__(cause if cause.endswith(".") else f"{cause}.", remedy=remedy)
