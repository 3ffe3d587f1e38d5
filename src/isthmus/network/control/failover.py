"""Moves policies away from failed links: watches the routers, and gives a policy the best of its paths that is whole.

A link that is up again is used only after a while (wait to restore, ITU-T G.808.1): what lies behind it has to find its routes first.

The paths of a policy are given in the order of preference, each with the links that it uses, so nothing is computed when a link fails.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from isthmus.domain.errors import IsthmusError
from isthmus.network.control.desired import WeightedPath
from isthmus.network.control.port import DataPlane, Watch

_log = logging.getLogger(__name__)
SECONDS_BETWEEN_TRIES = 0.5
LinkEnd = tuple[str, str]
"""Router and interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Where a policy's packets may go, over one path or several, and the names of all links that these use."""

    paths: tuple[WeightedPath, ...]
    links: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedPolicy:
    """A policy at its ingress router with its candidates, the preferred one first."""

    router: str
    policy: str
    candidates: tuple[Candidate, ...]

    def best(self, down: frozenset[str]) -> Candidate | None:
        """The first candidate without a failed link, or None."""
        return next((candidate for candidate in self.candidates if not candidate.links & down), None)


class Failover:
    """Protects policies while it is entered as a context: one thread for each router that is watched."""

    def __init__(
        self,
        planes: Mapping[str, DataPlane],
        link_ends: Mapping[LinkEnd, str],
        policies: Sequence[ProtectedPolicy],
        *,
        told: Callable[[ProtectedPolicy, Candidate], None] | None = None,
        wait_to_restore_seconds: float = 5.0,
    ) -> None:
        """Watch these routers; `link_ends` names the link at each interface; `told` hears of every path that was set."""
        self._planes = planes
        self._link_ends = link_ends
        self._policies = policies
        self._told = told
        self._wait_to_restore_seconds = wait_to_restore_seconds
        self._down_ends: set[LinkEnd] = set()
        self._reported: set[str] = set()
        self._restoring: dict[LinkEnd, threading.Timer] = {}
        self._current = {id(item): item.candidates[0] for item in policies}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watches: dict[str, Watch] = {}
        self._threads: list[threading.Thread] = []

    def down(self) -> frozenset[str]:
        """The links that are down at one end at least, or were reported so."""
        return frozenset(self._link_ends[end] for end in self._down_ends) | self._reported

    def report(self, link: str, *, is_whole: bool) -> None:
        """Take somebody else's word that a link carries nothing, or carries packets again; it may be up at both ends.

        The name may be that of a whole path, when its candidate has it among its links.
        """
        with self._lock:
            (self._reported.discard if is_whole else self._reported.add)(link)
            self._move()

    def take(self, router: str, links: Mapping[str, bool]) -> None:
        """Note the interfaces of a router, and move the policies that this concerns."""
        with self._lock:
            for interface, is_up in links.items():
                end = (router, interface)
                if end not in self._link_ends:
                    continue
                if not is_up:
                    self._down_ends.add(end)
                    if (timer := self._restoring.pop(end, None)) is not None:
                        timer.cancel()
                elif end in self._down_ends and end not in self._restoring:
                    timer = threading.Timer(self._wait_to_restore_seconds, self._restore, (end,))
                    timer.daemon = True
                    self._restoring[end] = timer
                    timer.start()
            self._move()

    def _restore(self, end: LinkEnd) -> None:
        with self._lock:
            if self._restoring.pop(end, None) is not None:
                self._down_ends.discard(end)
                self._move()

    def _move(self) -> None:
        down = self.down()
        for item in self._policies:
            best = item.best(down)
            if best is None or best == self._current[id(item)]:
                continue
            try:
                self._planes[item.router].set_paths(item.policy, best.paths)
            except IsthmusError as error:
                _log.warning("policy %s could not be moved: %s", item.policy, error)
                continue
            self._current[id(item)] = best
            if self._told is not None:
                self._told(item, best)

    def __enter__(self) -> Failover:
        """Begin to watch; returns when every router's interfaces are known, or ten seconds later."""
        known = {name: threading.Event() for name in self._planes}
        for name, plane in self._planes.items():
            thread = threading.Thread(target=self._follow, args=(name, plane, known[name]), daemon=True)
            self._threads.append(thread)
            thread.start()
        for event in known.values():
            event.wait(10)
        return self

    def _follow(self, name: str, plane: DataPlane, known: threading.Event) -> None:
        while not self._ended.is_set():
            try:
                with closing(plane.watch()) as watch:
                    self._watches[name] = watch
                    if self._ended.is_set():
                        return
                    for links in watch:
                        self.take(name, links)
                        known.set()
            except IsthmusError as error:
                _log.warning("router %s is not watched just now: %s", name, error)
            self._ended.wait(SECONDS_BETWEEN_TRIES)

    def __exit__(self, *_reason: object) -> None:
        """Watch no longer; the paths stay as they are."""
        self._ended.set()
        for watch in self._watches.values():
            watch.close()
        for thread in self._threads:
            thread.join(10)
        with self._lock:
            for timer in self._restoring.values():
                timer.cancel()
            self._restoring.clear()
