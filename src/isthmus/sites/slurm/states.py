"""Slurm's job states in the words of the port.

Source: slurm.schedmd.com, "Job State Codes". A word that is not listed says nothing: UNSEEN, never a guess. REVOKED too:
in a federation it means that another cluster runs the job.
"""

from __future__ import annotations

from typing import Final

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.port import Sighting

QUEUED: Final = frozenset(
    {
        "PENDING",
        "CONFIGURING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "SPECIAL_EXIT",
        "RESV_DEL_HOLD",
        "POWER_UP_NODE",
    }
)
RUNNING: Final = frozenset(
    {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "UPDATE_DB", "EXPEDITING"}
)
ENDED: Final[dict[str, EndReason | None]] = {
    "COMPLETED": EndReason.EXIT_ZERO,
    "FAILED": None,  # the exit code or signal says which
    "TIMEOUT": EndReason.WALLTIME,
    "DEADLINE": EndReason.WALLTIME,
    "OUT_OF_MEMORY": EndReason.OUT_OF_MEMORY,
    "NODE_FAIL": EndReason.NODE_FAILED,
    "BOOT_FAIL": EndReason.NODE_FAILED,
    "LAUNCH_FAILED": EndReason.NODE_FAILED,
    "RECONFIG_FAIL": EndReason.NODE_FAILED,
    "PREEMPTED": EndReason.PREEMPTED,
    "CANCELLED": EndReason.CANCELLED_AT_SITE,
}
# Flags that may stand beside a base state and decide over it, strongest first.
_FLAGS: Final = (
    "REVOKED",
    "LAUNCH_FAILED",
    "RECONFIG_FAIL",
    "COMPLETING",
    "STAGE_OUT",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "REQUEUED",
    "SPECIAL_EXIT",
    "CONFIGURING",
    "POWER_UP_NODE",
)


def state_word(words: str | list[str]) -> str:
    """The one word that counts: the first of `CANCELLED by 1000`, or of a list of base state and flags."""
    if isinstance(words, str):
        return words.split(" ")[0].rstrip("+").upper() if words.strip() else ""
    known = [str(word).upper() for word in words]
    for flag in _FLAGS:
        if flag in known:
            return flag
    for word in known:
        if word in ENDED or word in RUNNING or word in QUEUED:
            return word
    return known[0] if known else ""


def sighting_of(state: str, exit_code: int | None, signal: int) -> tuple[Sighting, EndReason | None]:
    """What a state means, with the exit code or signal that decides about FAILED."""
    if state in QUEUED:
        return Sighting.QUEUED, None
    if state in RUNNING:
        return Sighting.RUNNING, None
    if state not in ENDED:
        return Sighting.UNSEEN, None
    reason = ENDED[state]
    if reason is None:
        reason = EndReason.SIGNALLED if signal and not exit_code else EndReason.EXIT_NONZERO
    return Sighting.ENDED, reason
