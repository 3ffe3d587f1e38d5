"""What is believed of a job that outlives its prediction.

Tsafrir, Etsion, Feitelson, "Backfilling using system-generated predictions rather than user runtime estimates", IEEE
TPDS 2007, section 4: the prediction grows by fixed steps, never past the user's request.
"""

from __future__ import annotations

# Minutes 1, 5, 15, 30 and hours 1, 2, 5, 10, 20, 50, 100: the steps of their table, in seconds.
STEPS = (60, 300, 900, 1800, 3600, 7200, 18000, 36000, 72000, 180000, 360000)


def corrected_seconds(predicted: float, elapsed: float, requested: float) -> float:
    """The run time now believed of a job that has run for `elapsed` seconds; all in seconds.

    The prediction itself while it can still be true; then the prediction plus the first step that lies beyond
    `elapsed`, at most the request; past the request, one minute more than it has run.
    """
    if elapsed < predicted:
        return predicted
    if elapsed >= requested:
        return elapsed + STEPS[0]
    return min(requested, next((predicted + step for step in STEPS if predicted + step > elapsed), requested))
