"""The part of `isthmus site show` that tells how good the forecasts at a site's pools were."""

from __future__ import annotations

from typing import Any

from isthmus.cli import screen
from isthmus.cli.messages import _
from isthmus.domain.units import show_duration


def show_forecasts(found: list[dict[str, Any]]) -> None:
    """One line for each kind of forecast, pool and source; nothing where none was scored yet."""
    if not found:
        return
    screen.put("")
    kinds = {"wait": _("wait"), "runtime": _("run time"), "finish": _("end")}
    headers = [_("FORECAST OF"), _("POOL"), _("SOURCE"), _("SCORED"), _("ACCURACY"), _("OFF BY"), _("80 % HELD"), _("90 % HELD"), _("95 % HELD")]  # fmt: skip
    rows = [
        [
            kinds.get(one["kind"], one["kind"]),
            one["pool"],
            one["source"],
            str(one["outcomes"]),
            _share(one["accuracy"]),
            show_duration(one["error_seconds"]),
            *(_share(one[f"coverage_{bound}"]) for bound in (80, 90, 95)),
        ]
        for one in found
    ]
    screen.table(headers, rows, right=(3, 4, 5, 6, 7, 8))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
