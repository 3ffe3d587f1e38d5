"""A decision in words: the chosen pool, every other with its figures and its reason, and what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.cli import screen
from isthmus.cli.messages import _
from isthmus.domain.dataset import WayTaken
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.placement import Candidate, Moved, Receipt, Together, Why
from isthmus.domain.roads import HOME, Carriage
from isthmus.domain.units import show_duration, show_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.client.records import Task

WORDS = {
    Why.SITE_DENIED: "the task does not allow this site",
    Why.REGION_DENIED: "the task does not allow this region",
    Why.POOL_DENIED: "the task does not allow this pool",
    Why.TRUST_TOO_LOW: "the site's trust is not what the task asks for",
    Why.SITE_DRAINING: "the site takes nothing new",
    Why.SITE_UNREACHABLE: "the site does not answer now",
    Why.POOL_DOWN: "the pool is down",
    Why.NO_ACCOUNT: "you have no account there",
    Why.DATA_ELSEWHERE: "the data it needs is at another site only",
    Why.DATA_MAY_NOT_LEAVE: "the data may not be there",
    Why.SITE_KEEPS_NO_DATA: "it keeps no data, and an output is to stay there",
    Why.NO_REPLICA: "no whole copy of the data is anywhere yet",
    Why.NO_PATH: "no path brings the data there",
    Why.PATH_FULL: "the path for the data is full",
    Why.TOO_FEW_NODES: "too few nodes",
    Why.TOO_FEW_CPUS: "too few processors on a node",
    Why.TOO_LITTLE_MEMORY: "too little memory on a node",
    Why.TOO_LITTLE_DISK: "too little disk on a node",
    Why.TOO_FEW_ACCELERATORS: "too few accelerators on a node",
    Why.WRONG_ACCELERATOR: "another kind of accelerator",
    Why.NO_LICENCE: "a licence is not there",
    Why.WALLTIME_TOO_LONG: "it does not allow so long a run",
    Why.NO_CONTAINERS: "it runs no containers",
    Why.OPTION_REFUSED: "it takes no such option from users",
    Why.FAILED_HERE: "it failed here before",
    Why.MISSES_DEADLINE: "it would miss the deadline",
    Why.OVER_BUDGET: "it would cost more than the budget",
    Why.FULL_NOW: "it is full now",
    Why.HOME_FIRST: "its own users come first",
    Why.LATER_FINISH: "it would be done later",
    Why.DEARER: "it would cost more",
    Why.PARTS_MISSING: "not all parts of its group wait for a place yet",
    Why.NO_PAIR_OF_SITES: "no two sites can have the group at once",
    Why.STARTS_TOO_FAR_APART: "its parts would start too far apart",
    Why.KEPT_APART: "another task of its group is there",
    Why.MORE_CARBON: "it would emit more",
    Why.WORSE_BY_WEIGHTS: "it is worse by the task's weights",
    Why.NEEDED_MORE: "others need it more",
    Why.CHOSEN: "chosen",
}
ENDS = {
    EndReason.EXIT_NONZERO: "the command itself failed",
    EndReason.WALLTIME: "it ran longer than it asked for; ask for more with --time",
    EndReason.OUT_OF_MEMORY: "it needed more memory than it asked for; ask for more with --memory",
    EndReason.SIGNALLED: "a signal ended it",
    EndReason.NODE_FAILED: "its node failed",
    EndReason.PREEMPTED: "it made room for others",
    EndReason.MOVED: "it would start sooner elsewhere",
    EndReason.PEERS_LATE: "the other parts of its group were not there in time; let it be held longer with --together-hold",
    EndReason.PEER_ENDED: "another part of its group ended",
    EndReason.REJECTED_BY_SITE: "the site refused it",
    EndReason.INPUT_MISSING: "an input could not be had",
    EndReason.OUTPUT_MISSING: "it did not leave an output that it declared",
    EndReason.OUTPUT_CORRUPT: "an output changed on its way back",
    EndReason.OUTPUT_UNDELIVERED: "an output could not be put where it belongs",
    EndReason.CANCELLED_BY_USER: "you (or a member of the project) cancelled it",
    EndReason.CANCELLED_AT_SITE: "somebody at the site cancelled it",
    EndReason.DEPENDENCY_FAILED: "a task that it waited for failed",
    EndReason.NEVER_ARRIVED: "the site never got it",
    EndReason.GIVEN_UP: "its site left by force",
    EndReason.INFEASIBLE: "its deadline passed before it found a place",
    EndReason.POISON: "handling it failed again and again",
}


def end_in_words(name: str) -> str:
    """Why a task ended, for people."""
    return _(ENDS.get(name, name.replace("_", " ")))  # type: ignore[call-overload]


def why_it_ended(task: Task) -> str:
    """Why a task did not end well, with its signal and what was found; empty for one that did."""
    if task.succeeded:
        return ""
    words = end_in_words(task.reason)
    if task.reason == EndReason.SIGNALLED and task.exit_code and task.exit_code > 128:
        words = _("signal {number} ({name}) ended it").format(
            number=task.exit_code - 128, name=_signal(task.exit_code - 128)
        )
    return ": ".join(text for text in (words, task.message) if text)


def _signal(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return "?"


def reason(candidate: Candidate) -> str:
    """Why a pool was refused, lost or won, with its figures."""
    words = _(WORDS.get(candidate.why, str(candidate.why).replace("_", " ")))
    if candidate.wanted and candidate.offered:
        return _("{words}: wants {wanted}, has {offered}").format(
            words=words, wanted=candidate.wanted, offered=candidate.offered
        )
    if candidate.wanted or candidate.offered:
        return f"{words}: {candidate.wanted or candidate.offered}"
    return words


def show_receipt(receipt: Receipt, *, wide: bool) -> None:
    """A decision as a table, the chosen one first, then those that lost by a little, then those that were refused."""
    if receipt.chosen_site:
        chosen = next((item for item in receipt.candidates if item.why is Why.CHOSEN), None)
        line = _("Chosen: {site}/{pool}").format(site=receipt.chosen_site, pool=receipt.chosen_pool)
        if chosen is not None and chosen.finish_seconds is not None:
            line += _within(chosen, chosen.finish_seconds)
        screen.put(screen.clean(line))
        if chosen is not None and chosen.energy_kwh is not None:
            line = _("Energy: at most {kwh} kWh").format(kwh=f"{chosen.energy_kwh:.3g}")
            if chosen.carbon_grams is not None:
                line += _(", {grams} g of CO2").format(grams=f"{chosen.carbon_grams:.3g}")
            screen.put(line)
        for one in chosen.transfers if chosen is not None else ():
            screen.put(screen.clean(_moves(one, receipt.decided_at)))
    else:
        screen.put(_("No place now."))
    if receipt.together is not None:
        _show_together(receipt.together)
    if receipt.plans:
        _show_plans(receipt)
    if receipt.candidates:
        headers = [_("SITE"), _("POOL"), _("WAIT"), _("TRANSFER"), _("RUN"), _("PRICE"), _("WHY")]
        rows = [_row(item, wide) for item in sorted(receipt.candidates, key=_order)]
        screen.table(headers, rows, right=(2, 3, 4, 5))
    elif receipt.together is None:
        screen.put(_("No site has joined."))
    actual = [
        (_("waited"), receipt.actual_wait_seconds),
        (_("moved data") if receipt.actual_transfers else _("was brought there"), receipt.actual_transfer_seconds),
        (_("was held"), receipt.actual_held_seconds),
        (_("ran"), receipt.actual_run_seconds),
    ]
    known = [f"{name} {show_duration(seconds)}" for name, seconds in actual if seconds is not None]
    if known:
        screen.put(_("Then in fact: {list}").format(list=", ".join(known)))
    for moved in receipt.actual_transfers:
        screen.put(screen.clean(moved_in_words(moved)))
    if receipt.binding:
        scarce = [
            f"{one.resource} {one.link or f'{one.site}/{one.pool}'} ({one.worth:.2f})" for one in receipt.binding[:5]
        ]
        screen.put(screen.clean(_("Scarce, and its worth to others: {list}").format(list=", ".join(scarce))))
    for line in _home_rows(receipt):
        screen.put(screen.clean(line))
    if receipt.after:
        screen.put(screen.clean(_("Before that: {note}").format(note=receipt.after)))
    if receipt.standing is not None and receipt.standing.of > 1:
        screen.put(
            _(
                "Its project {project} may have {part:.0%} beside {others} others, and has used {times:.2g} times its share."
            ).format(
                project=receipt.standing.project,
                part=receipt.standing.part,
                others=receipt.standing.of - 1,
                times=receipt.standing.of_share,
            )
        )
    if receipt.remedy:
        screen.put(screen.clean(_("What would help: {remedy}").format(remedy=receipt.remedy)))


def _home_rows(receipt: Receipt) -> list[str]:
    """What it costs the task that own users of home sites come first: how much sooner it would be done there."""
    chosen = next((one for one in receipt.candidates if one.why is Why.CHOSEN), None)
    done = chosen.finish_seconds if chosen is not None else None
    lines = []
    for one in receipt.candidates:
        there = one.finish_seconds if one.why is Why.HOME_FIRST else None
        if there is not None and done is not None and there < done:
            words = _("That {site}'s own users come first costs it {time}: it would be done so much sooner there.")
            lines.append(words.format(site=one.site, time=show_duration(done - there)))
    return lines


def _show_together(one: Together) -> None:
    """Where the parts of a group start together, or why they do not."""
    if one.why is not Why.CHOSEN:
        words = _(WORDS.get(one.why, str(one.why)))
        line = _("Together: {words}: wants {wanted}, has {offered}")
        screen.put(screen.clean(line.format(words=words, wanted=one.wanted, offered=one.offered)))
        return
    listed = []
    for plan in one.plans:
        text = f"{plan.part} {plan.site}/{plan.pool}"
        if plan.held_seconds >= 1:
            text += _(" (held {time})").format(time=show_duration(plan.held_seconds))
        listed.append(text)
    start = max((plan.start_seconds + plan.held_seconds for plan in one.plans), default=0.0)
    line = _("Together: {parts}, start in about {time}; the best of {pairs} pairs ({method}), {price} in all")
    screen.put(
        screen.clean(
            line.format(
                parts=", ".join(listed),
                time=show_duration(start),
                pairs=one.pairs,
                method=one.method,
                price=f"{one.price or 0:.4f}",
            )
        )
    )


def _show_plans(receipt: Receipt) -> None:
    """The best plans side by side: when each would be done, in the middle and at one in ten both ways, and what it costs."""
    screen.put(_("Best plans:"))
    rows = []
    for number, plan in enumerate(receipt.plans, 1):
        done = (plan.finish_p10_seconds, plan.finish_p50_seconds, plan.finish_p90_seconds)
        energy = "" if plan.energy_kwh is None else f"{plan.energy_kwh:.3g}"
        carbon = "" if plan.carbon_grams is None else f"{plan.carbon_grams:.3g}"
        price = "" if plan.price is None else f"{plan.price:.4f}"
        path = "; ".join(" ".join(one.links) or _("through the service") for one in plan.transfers if not one.shared)
        times = [show_duration(seconds) for seconds in done]
        rows.append([str(number), f"{plan.site}/{plan.pool}", *times, price, energy, carbon, screen.clean(path)])
    headers = [_("#"), _("WHERE"), _("P10"), _("P50"), _("P90"), _("PRICE"), _("KWH"), _("CO2 G"), _("PATH")]
    screen.table(headers, rows, right=(0, 2, 3, 4, 5, 6, 7))
    if any(plan.sources.get("finish") == "declared" for plan in receipt.plans):
        screen.put(_("P10 to P90 are wide where too few tasks have ended to know better."))


def _moves(one: Carriage, now: float) -> str:
    """What moves for the task, over which links and when."""
    begins, ends = (show_duration(max(0.0, at - now)) for at in (one.begins, one.ends))
    if one.shared:
        return _("Data: {name} comes for another task, there in {ends}").format(name=one.name, ends=ends)
    source = _("the service") if one.source == HOME else one.source
    way = " ".join(one.links) or _("through the service")
    line = _("Data: {name} ({size}) from {source}, path {way}, from {begins} to {ends} from now").format(
        name=one.name, size=show_size(one.size_bytes), source=source, way=way, begins=begins, ends=ends
    )
    if one.links:
        line += _(" at {rate}/s").format(rate=show_size(round(one.bytes_per_second)))
    return line


def moved_in_words(one: Moved) -> str:
    """How what moved for the task went in fact."""
    rate = show_size(round(one.size_bytes / max(one.seconds, 1e-3)))
    way = way_in_words(one.through, one.relay, one.multipath, one.ways)
    source, target = (_("the service") if place == HOME else place for place in (one.source, one.target))
    return _("Moved: {name} ({size}) from {source} to {target}, {way}, in {time}, {rate}/s").format(
        name=one.name,
        size=show_size(one.size_bytes),
        source=source,
        target=target,
        way=way,
        time=show_duration(one.seconds),
        rate=rate,
    )


def way_in_words(through: str, relay: str, multipath: bool, ways: Sequence[WayTaken]) -> str:
    """Which way a transfer took in fact: relay, routers, MPTCP; of several ways what each carried, and over how many streams."""
    if through == "service":
        return _("through the service")
    if not ways:  # nothing had to come
        ways = [WayTaken(relay=relay, bytes=1, multipath=multipath)]
    whole = sum(one.bytes for one in ways)
    parts = []
    for one in ways:
        part = _("through the relay of {site}").format(site=one.relay) if one.relay else _("directly")
        if between := one.path[1:-1]:
            part = _("over {routers}").format(routers=" ".join(between))
        said = [_("MPTCP")] if one.multipath else []
        if one.streams > 1:
            said.append(_("{count} streams").format(count=one.streams))
        if len(ways) > 1:
            said.insert(0, f"{one.bytes / whole:.0%}")
        parts.append(part + (f" ({', '.join(said)})" if said else ""))
    return _(" and ").join(parts)


def _within(chosen: Candidate, seconds: float) -> str:
    """When it will be done: about then where the run was learned; where --time is all that is known, a range."""
    if chosen.run is not None and chosen.run.source == "declared":
        wait = max(0.0, seconds - chosen.run.seconds)
        first = _("in about {time}").format(time=show_duration(wait)) if wait >= 1 else _("now")
        return _(", starts {first}, done within {last} (it runs at most {run}, by its --time)").format(
            first=first, last=show_duration(seconds), run=show_duration(chosen.run.seconds)
        )
    late = chosen.late_seconds
    if late is not None and late > seconds:
        return _(", done in about {time}, nine times out of ten within {late} (as alike tasks before it)").format(
            time=show_duration(seconds), late=show_duration(late)
        )
    return _(", done in about {time}").format(time=show_duration(seconds))


def _order(candidate: Candidate) -> tuple[bool, bool, float, str]:
    finish = candidate.finish_seconds
    return (candidate.why is not Why.CHOSEN, finish is None, finish or 0.0, candidate.site)


def _row(candidate: Candidate, wide: bool) -> list[Any]:
    figures = []
    for estimate in (candidate.wait, candidate.transfer, candidate.run):
        text = show_duration(estimate.seconds) if estimate else ""
        if estimate and estimate is candidate.run and estimate.source == "declared":
            text = f"≤ {text}"
        figures.append(f"{text} ({estimate.source})" if estimate and wide else text)
    price = "" if candidate.price is None else f"{candidate.price:.4f}"
    return [candidate.site, candidate.pool, *figures, price, reason(candidate)]
