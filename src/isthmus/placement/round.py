"""One round: all waiting tasks, in order of service, against one snapshot; each takes the plan that it prefers.

Each placement counts at once as a promise, so that tasks of the same round see each other. What fits nowhere now
stays in the queue with a receipt that says why. When many tasks want the same pools, the round is priced jointly
(`pricing`) and placed again: a task then also pays for what others would lose by what it holds, and the receipt names
that. Of the two placings the better is kept. Prices last from round to round until nothing is contested any more; a few
tasks that come meanwhile are placed at the standing prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from isthmus.domain.placement import (
    Binding,
    Candidate,
    Placement,
    PoolView,
    Receipt,
    ScarcePrice,
    Snapshot,
    Together,
    WaitingTask,
    Why,
)
from isthmus.placement import estimates
from isthmus.placement.candidates import avoid, estimated, refused_at, shape_of, wish_of, wishes
from isthmus.placement.carrying import Preference, Traffic
from isthmus.placement.feasibility import Failure, failures
from isthmus.placement.gangs import JOINTLY, Pair, Refusal, as_held, jointly, pairs_of, record
from isthmus.placement.homerow import HomeRows
from isthmus.placement.ledger import ledgers
from isthmus.placement.nowhere import again, going_nowhere, no_pair, parts_missing
from isthmus.placement.preference import Yardstick, lost, order, way_preference, yardstick
from isthmus.placement.scarcity import Scarce, Scarcity, held

PRICED_FROM = 50  # a contested round of fewer tasks is placed at the standing prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a round decided: placements, and a receipt for every task looked at, in the order given; prices for the next.

    `contested`: so many tasks want the same pools that the round is worth pricing.
    """

    placements: tuple[Placement, ...]
    receipts: tuple[Receipt, ...]
    prices: tuple[ScarcePrice, ...] = ()
    contested: bool = False


def decide(snapshot: Snapshot, tasks: Sequence[WaitingTask], *, pricing: bool = True) -> Decision:
    """Place what can be placed now. Deterministic for a given snapshot and order of tasks.

    Without `pricing` a contested round finds no prices of its own: the answer is that of the plain order, at once.
    """
    plain = _Pass(snapshot, Scarcity(()))
    plain.place(tasks)
    if not plain.contested:
        return plain.decision(())
    whole = len(tasks) >= PRICED_FROM and len(snapshot.pools) > 1
    prices = _priced(snapshot, tasks) if whole and pricing else snapshot.prices
    scarcity = Scarcity(prices, snapshot.now)
    if not scarcity:
        return plain.decision((), contested=whole)
    priced = _Pass(snapshot, scarcity)
    priced.place(tasks)
    worse = (-len(priced.placements), priced.score) >= (-len(plain.placements), plain.score)
    return (plain if whole and worse else priced).decision(prices, contested=whole)


def _priced(snapshot: Snapshot, tasks: Sequence[WaitingTask]) -> tuple[ScarcePrice, ...]:
    """Prices of the round."""
    from isthmus.placement.pricing import price

    return price(snapshot, tasks, *wishes(snapshot, tasks))


class _Pass:
    """One placing of the round's tasks in order of service, at given prices of what is scarce."""

    def __init__(self, snapshot: Snapshot, scarcity: Scarcity) -> None:
        self.placements: list[Placement] = []
        self.score = 0.0  # of the placed, their sum
        self.contested = False  # a task could not have, or must wait longer for, a pool because of others of the round
        self._snapshot = snapshot
        self._scarcity = scarcity
        self._ledgers = ledgers(snapshot)
        self._traffic = Traffic(snapshot.roads, snapshot.now)
        self._rows = HomeRows(snapshot)
        self._receipts: list[Receipt | None] = []  # of each task in the order given
        self._wanted: set[tuple[str, str]] = set()  # pools that ordinary tasks of the round wait for
        self._apart = {(view.site, *group) for view in snapshot.pools for group in view.apart}
        self._checked: dict[object, list[Failure | None]] = {}
        self._yardsticks: dict[object, Yardstick] = {}
        # Promises only grow in a round: what did not fit once does not fit later.
        self._turned_away: dict[object, Receipt] = {}
        self._gangs_turned_away: dict[object, list[Receipt]] = {}

    def decision(self, prices: tuple[ScarcePrice, ...], *, contested: bool = False) -> Decision:
        """What the pass came to."""
        receipts = [receipt for receipt in self._receipts if receipt is not None]
        if self._scarcity and self._snapshot.gap is not None:
            receipts = [replace(receipt, round_gap=self._snapshot.gap) for receipt in receipts]
        return Decision(placements=tuple(self.placements), receipts=tuple(receipts), prices=prices, contested=contested)

    def place(self, tasks: Sequence[WaitingTask]) -> None:
        """Place the gangs, then each task in turn."""
        self._receipts = [None] * len(tasks)
        self._place_gangs(tasks)
        for number, task in enumerate(tasks):
            if task.gang is not None:
                continue
            wish = wish_of(task)
            if wish in self._turned_away:
                self._receipts[number] = replace(self._turned_away[wish], task_id=task.id, standing=task.standing)
                continue
            candidates = avoid(task, self._candidates(task))
            if task.preemptible:
                candidates = [self._unless_wanted(c) for c in candidates]
            by = self._yardsticks.get(wish)
            if by is None:
                by = self._yardsticks[wish] = yardstick(task, candidates)
            best = self._best(task, candidates, by)
            self.contested = self.contested or any(self._pressed(c) for c in candidates)
            if best is None and not task.preemptible:
                self._wanted.update((c.site, c.pool) for c in candidates if c.why is Why.FULL_NOW)
            if best is None:
                self._turned_away[wish] = replace(
                    going_nowhere(self._snapshot, task, candidates), binding=self._binding(task, candidates)
                )
                self._receipts[number] = self._turned_away[wish]
            else:
                self._receipts[number] = self._take(task, candidates, best, by)

    def _place_gangs(self, tasks: Sequence[WaitingTask]) -> None:
        """Those that start together: all gangs that can start at once jointly, where that can be solved; then one after another."""
        gangs: dict[str, list[int]] = {}
        for number, task in enumerate(tasks):
            if task.gang is None:
                continue
            if task.gang.lacking:
                self._receipts[number] = parts_missing(self._snapshot.now, task, task.gang.lacking)
            else:
                gangs.setdefault(task.gang.id, []).append(number)
        whole = [sorted(numbers, key=lambda number: _part(tasks[number])) for numbers in gangs.values()]
        together = [[tasks[number] for number in numbers] for numbers in whole]
        chosen = self._jointly(together) if len(whole) > 1 else [None] * len(whole)
        for taken_first in (True, False):
            for numbers, parts, pair in zip(whole, together, chosen, strict=True):
                if (pair is not None) is taken_first:
                    for number, receipt in zip(numbers, self._place_gang(parts, pair), strict=True):
                        self._receipts[number] = receipt

    def _jointly(self, together: Sequence[Sequence[WaitingTask]]) -> list[Pair | None]:
        """The best pairs for gangs of which both parts can start at once, given each other; None for the others."""
        options: list[list[Pair]] = []
        for parts in together[:JOINTLY]:
            found = self._pairs(parts, [self._candidates(task) for task in parts])
            pairs = [] if isinstance(found, Refusal) else found
            options.append([pair for pair in pairs if not any(self._pressed(plan) for plan in pair.plans)])
        free = [estimates.free_room(ledger.view, ledger.promised, ledger.unseen) for ledger in self._ledgers]
        none: list[Pair | None] = [None] * len(together)
        try:
            answer = jointly(options, [(held(parts[0]), held(parts[1])) for parts in together[:JOINTLY]], free)
        except ImportError:
            return none
        return [*answer, *none[len(answer) :]]

    def _pairs(self, parts: Sequence[WaitingTask], candidates: Sequence[Sequence[Candidate]]) -> list[Pair] | Refusal:
        by = [yardstick(task, plans) for task, plans in zip(parts, candidates, strict=True)]

        def worth(task: WaitingTask, plan: Candidate) -> float:
            return sum(self._worth(task, plan).values()) if self._scarcity else 0.0

        views = [ledger.view for ledger in self._ledgers]
        return pairs_of(self._snapshot.now, parts, candidates, views, by, worth)

    def _place_gang(self, parts: Sequence[WaitingTask], wanted: Pair | None) -> list[Receipt]:
        """A receipt for each part; both are placed, or none."""
        wish = (parts[0].gang and parts[0].gang.hold_seconds, *(wish_of(task) for task in parts))
        before = self._gangs_turned_away.get(wish)
        if before is not None:
            return [again(receipt, task) for receipt, task in zip(before, parts, strict=True)]
        candidates = [self._candidates(task) for task in parts]
        self.contested = self.contested or any(self._pressed(one) for plans in candidates for one in plans)
        found = self._pairs(parts, candidates)
        if not isinstance(found, Refusal):
            pair = found[0]
            if wanted is not None:
                pair = next((one for one in found if one.pools == wanted.pools), pair)
            method = "every pair" if wanted is None or wanted.pools != pair.pools else "cp-sat"
            if pair.plans[1].transfers:  # of both parts, the second moves its data beside the first's
                with self._traffic.reserved(pair.plans[0].transfers):
                    candidates[1] = self._candidates(parts[1])
                found = self._pairs(parts, candidates)
            same = None
            if not isinstance(found, Refusal):
                same = next((one for one in found if one.pools == pair.pools), None)
                found = (
                    found
                    if same
                    else Refusal(why=Why.PATH_FULL, wanted="the data of both parts", offered="not in time")
                )
            if same is not None and not isinstance(found, Refusal):
                return [
                    self._take(
                        task,
                        plans,
                        same.pools[part],
                        yardstick(task, plans),
                        same.held[part],
                        record(parts, part, same, len(found), method),
                    )
                    for part, (task, plans) in enumerate(zip(parts, candidates, strict=True))
                ]
        assert isinstance(found, Refusal)
        receipts = [
            no_pair(self._snapshot.now, task, plans, found) for task, plans in zip(parts, candidates, strict=True)
        ]
        for plans in candidates:
            self._wanted.update((c.site, c.pool) for c in plans if c.why is Why.FULL_NOW)
        self._gangs_turned_away[wish] = receipts
        return receipts

    def _candidates(self, task: WaitingTask) -> list[Candidate]:
        shape = shape_of(task)
        if shape not in self._checked:
            self._checked[shape] = [next(failures(task, ledger.view), None) for ledger in self._ledgers]
        prefer = self._prefer(task) if task.data or task.input_bytes else Preference()
        return [
            refused_at(ledger.view, found)
            if found
            else estimated(self._snapshot.now, task, ledger, self._traffic, prefer, self._rows)
            for ledger, failure in zip(self._ledgers, self._checked[shape], strict=True)
            for found in (failure or self._crowded(task, ledger.view),)
        ]

    def _prefer(self, task: WaitingTask) -> Preference:
        """What a way of its data costs the task: by its goal, and at prices by what others would lose."""
        worth = self._scarcity.of_link if self._scarcity else None
        return way_preference(task, self._yardsticks.get(wish_of(task)), estimates.run(task).seconds, worth)

    def _unless_wanted(self, candidate: Candidate) -> Candidate:
        """A pool that an ordinary task of the round waits for is not filled with preemptible ones."""
        if candidate.why is Why.LATER_FINISH and (candidate.site, candidate.pool) in self._wanted:
            return replace(candidate, why=Why.FULL_NOW, wanted="room that is idle", offered="others wait for it")
        return candidate

    def _crowded(self, task: WaitingTask, view: PoolView) -> Failure | None:
        group = task.constraints.apart
        if group and (view.site, task.user, group) in self._apart:
            return Failure(Why.KEPT_APART, f"a site without another of {group}", view.site)
        return None

    def _pressed(self, candidate: Candidate) -> bool:
        return (
            candidate.why in (Why.FULL_NOW, Why.PATH_FULL)
            or (candidate.wait is not None and estimates.is_long(candidate.wait))
            or any(one.held_up for one in candidate.transfers)
        )

    def _best(self, task: WaitingTask, candidates: Sequence[Candidate], by: Yardstick) -> int | None:
        able = [index for index, candidate in enumerate(candidates) if candidate.why is Why.LATER_FINISH]
        if not able:
            return None

        def key(index: int) -> tuple[object, ...]:
            one = candidates[index]
            if not self._scarcity:
                return (*order(task, one, by), one.site, one.pool)
            full = by.score(one) + sum(self._worth(task, one).values())
            return (full, *order(task, one, by), one.site, one.pool)

        return min(able, key=key)

    def _take(
        self,
        task: WaitingTask,
        candidates: list[Candidate],
        best: int,
        by: Yardstick,
        held_seconds: float = 0.0,
        together: Together | None = None,
    ) -> Receipt:
        chosen = as_held(self._snapshot.now, task, candidates[best], self._ledgers[best].view, held_seconds)
        assert chosen.run is not None
        assert chosen.finish_seconds is not None
        self._ledgers[best].add(task, chosen.run.seconds)
        self._rows.take(task, chosen)
        self._ledgers[best].to_bring[0] += 1
        self._ledgers[best].to_bring[1] += task.input_bytes
        self._traffic.take(chosen.transfers)
        self.score += by.score(chosen)
        if task.constraints.apart:
            self._apart.add((chosen.site, task.user, task.constraints.apart))
        self.placements.append(
            Placement(
                task_id=task.id,
                site=chosen.site,
                pool=chosen.pool,
                predicted_seconds=chosen.finish_seconds,
                run_seconds=chosen.run.seconds,
                price=chosen.price or Decimal(0),
                transfers=chosen.transfers,
            )
        )
        return Receipt(
            task_id=task.id,
            decided_at=self._snapshot.now,
            candidates=tuple(
                replace(c, why=Why.CHOSEN, price=chosen.price) if index == best else self._loser(task, c, chosen, by)
                for index, c in enumerate(candidates)
            ),
            chosen_site=chosen.site,
            chosen_pool=chosen.pool,
            binding=self._binding(task, candidates),
            standing=task.standing,
            together=together,
        )

    def _worth(self, task: WaitingTask, one: Candidate) -> dict[Scarce, float]:
        """What others would lose by a plan; a task pays nothing at home where its site's own users come first."""
        return {} if self._rows.are_own(task, one.site) else self._scarcity.worth(task, one)

    def _binding(self, task: WaitingTask, candidates: Sequence[Candidate]) -> tuple[Binding, ...]:
        return self._scarcity.binding(task, [one for one in candidates if not self._rows.are_own(task, one.site)])

    def _loser(self, task: WaitingTask, candidate: Candidate, chosen: Candidate, by: Yardstick) -> Candidate:
        """Why a pool that could have had the task did not get it."""
        if candidate.why is not Why.LATER_FINISH:
            return candidate
        if self._scarcity and order(task, candidate, by) < order(task, chosen, by):
            worth = self._worth(task, candidate)
            resource, link = max(worth, key=lambda name: worth[name], default=("", ""))
            return replace(
                candidate,
                why=Why.NEEDED_MORE,
                wanted=f"a plan {by.score(chosen) - by.score(candidate):.2f} better for it",
                offered=f"{resource}{f' over {link}' if link else ''} worth {sum(worth.values()):.2f} to others",
            )
        why = lost(task)
        return candidate if why is candidate.why else replace(candidate, why=why)


def _part(task: WaitingTask) -> int:
    return 0 if task.gang is None else task.gang.part
