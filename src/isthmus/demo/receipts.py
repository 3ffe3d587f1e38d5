"""The decision about a task in one sentence."""

from __future__ import annotations

from isthmus.domain.placement import Candidate, Receipt, Why
from isthmus.domain.roads import Carriage
from isthmus.domain.units import show_duration, show_size

WORDS = {  # of one place, of several
    Why.SITE_DENIED: ("is not allowed by the task", "are not allowed by the task"),
    Why.DATA_ELSEWHERE: ("does not hold the data", "do not hold the data"),
    Why.TOO_FEW_NODES: ("has too few nodes", "have too few nodes"),
    Why.TOO_FEW_ACCELERATORS: ("has too few accelerators", "have too few accelerators"),
    Why.WRONG_ACCELERATOR: ("has other accelerators", "have other accelerators"),
    Why.FAILED_HERE: ("was left because it failed there", "were left because it failed there"),
    Why.LATER_FINISH: ("would be later", "would be later"),
    Why.DEARER: ("would cost more", "would cost more"),
    Why.KEPT_APART: ("has another of its group", "have others of its group"),
    Why.MORE_CARBON: ("would emit more", "would emit more"),
    Why.WORSE_BY_WEIGHTS: ("is worse by the weights", "are worse by the weights"),
    Why.NEEDED_MORE: ("is needed more by others", "are needed more by others"),
    Why.FULL_NOW: ("was full", "were full"),
    Why.HOME_FIRST: ("has own users who wait", "have own users who wait"),
    Why.NO_ACCOUNT: ("has no account for the user", "have no account for the user"),
}


def sentence(receipt: Receipt) -> str:
    """Where it went and why, and why nowhere else."""
    chosen = f"{receipt.chosen_site}/{receipt.chosen_pool}"
    for candidate in receipt.candidates:
        if candidate.why is Why.CHOSEN:
            chosen += _figures(candidate)
    losers = lost(receipt)
    return f"to {chosen}; {losers}" if losers else f"to {chosen}"


def way(one: Carriage, now: float) -> str:
    """What moves over which links in which window, counted from a moment."""
    begins, ends = (show_duration(max(0.0, at - now)) for at in (one.begins, one.ends))
    links = ", ".join(one.links) or "through the service"
    return f"{one.name}, {show_size(one.size_bytes)}, from {one.source} over {links}, from {begins} to {ends} after the decision"


def _figures(candidate: Candidate) -> str:
    parts = []
    if candidate.wait is not None:
        parts.append(f"starts in {show_duration(candidate.wait.seconds)}")
    if candidate.transfer is not None and candidate.transfer.seconds >= 1:
        parts.append(f"data in {show_duration(candidate.transfer.seconds)}")
    if candidate.price:
        parts.append(f"at most {candidate.price:.4f}")
    return f" ({', '.join(parts)})" if parts else ""


def lost(receipt: Receipt) -> str:
    """Why the other places lost, each reason once."""
    others: dict[tuple[str, str], list[str]] = {}
    for candidate in receipt.candidates:
        if candidate.why is not Why.CHOSEN:
            words = WORDS.get(candidate.why, (str(candidate.why).replace("_", " "),) * 2)
            others.setdefault(words, []).append(f"{candidate.site}/{candidate.pool}")
    return "; ".join(f"{_listed(names)} {words[len(names) > 1]}" for words, names in others.items())


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
