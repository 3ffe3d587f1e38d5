"""Making room: which preemptible jobs are ended, so that tasks that are not preemptible can start.

Preemptible tasks fill what is idle. When a task of the ordinary tier finds no room that it could have without them, as few
as will do are ended, those that started last first, since they lose least. None is ended for a task that would not fit even
then, and room that is on its way already is counted before more is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Place = tuple[str, str]  # site, pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Processors, memory and devices."""

    cpus: int = 0
    memory_bytes: int = 0
    accelerators: int = 0

    def plus(self, other: Room) -> Room:
        """Both together."""
        return Room(
            cpus=self.cpus + other.cpus,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            accelerators=self.accelerators + other.accelerators,
        )

    def minus(self, other: Room) -> Room:
        """This without the other; may be less than nothing."""
        return Room(
            cpus=self.cpus - other.cpus,
            memory_bytes=self.memory_bytes - other.memory_bytes,
            accelerators=self.accelerators - other.accelerators,
        )

    def holds(self, other: Room) -> bool:
        """Whether the other fits into this."""
        return (
            self.cpus >= other.cpus
            and self.memory_bytes >= other.memory_bytes
            and self.accelerators >= other.accelerators
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A preemptible job that holds room; `ending`: it was asked to end already."""

    key: str
    place: Place
    room: Room
    started_at: float
    ending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanting:
    """A task that could start at one of these places, the best first, if there were room."""

    task_id: str
    room: Room
    places: tuple[Place, ...]


def make_room(
    free: Mapping[Place, Room], wanting: Iterable[Wanting], holders: Sequence[Holder]
) -> list[tuple[str, str]]:
    """(key of a job to end, task that it makes room for), in the order in which the tasks are served."""
    left = dict(free)
    can_end: dict[Place, list[Holder]] = {}
    for holder in sorted(holders, key=lambda one: (-one.started_at, one.key)):
        if holder.ending:
            left[holder.place] = left.get(holder.place, Room()).plus(holder.room)
        else:
            can_end.setdefault(holder.place, []).append(holder)
    ended: list[tuple[str, str]] = []
    hopeless: set[tuple[Place, Room]] = set()  # what there is at a place only gets less
    for want in wanting:
        for place in want.places:
            if (place, want.room) in hopeless:
                continue
            chosen, room = _enough(left.get(place, Room()), want.room, can_end.get(place, []))
            if chosen is None:
                hopeless.add((place, want.room))
                continue
            for holder in chosen:
                can_end[place].remove(holder)
                ended.append((holder.key, want.task_id))
            left[place] = room.minus(want.room)
            break
    return ended


def _enough(free: Room, wanted: Room, holders: Sequence[Holder]) -> tuple[list[Holder] | None, Room]:
    """The first holders that together with what is free make room, without those that turn out not to be needed."""
    chosen: list[Holder] = []
    room = free
    for holder in holders:
        if room.holds(wanted):
            break
        chosen.append(holder)
        room = room.plus(holder.room)
    if not room.holds(wanted):
        return None, room
    for holder in list(chosen):
        without = room.minus(holder.room)
        if without.holds(wanted):
            chosen.remove(holder)
            room = without
    return chosen, room
