"""Which accelerator of the host each job holds, so that two jobs never get the same."""

from __future__ import annotations


class Devices:
    """Numbers of accelerators by the key of the job that holds them. Kept in memory; after a restart the claims that
    `observe` reads tell it again."""

    def __init__(self) -> None:
        self._count = 0
        self._held: dict[str, tuple[int, ...]] = {}

    def offer(self, count: int) -> None:
        """There are so many, numbered from 0."""
        self._count = count

    def take(self, key: str, count: int) -> tuple[int, ...] | None:
        """Give `count` free ones to a job, those that it holds already if it asks again; None when too few are free."""
        if key in self._held:
            return self._held[key]
        taken = {number for numbers in self._held.values() for number in numbers}
        free = [number for number in range(self._count) if number not in taken]
        if count > len(free):
            return None
        if count:
            self._held[key] = tuple(free[:count])
        return tuple(free[:count])

    def note(self, key: str, numbers: str) -> None:
        """A running job's claim says that it holds these (`0,1`)."""
        held = tuple(int(number) for number in numbers.split(",") if number.isdigit())
        if held:
            self._held[key] = held

    def give_back(self, key: str) -> None:
        """The job has ended."""
        self._held.pop(key, None)
