"""Runs calls on the site's adapter: bounded, one change of a job at a time, each answer on disk before it is sent.

A submission that begins is written down first; if the agent dies before its answer is written, the next start answers
Uncertain and never runs it again. While a submission is taken and not answered, nobody is told that its job is not there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from isthmus.agent.journal import Entry, Journal, interrupted
from isthmus.agent.keeping import Keeping
from isthmus.agent.link import Call, Garbled
from isthmus.agent.network import NetworkDoor
from isthmus.domain.errors import IsthmusError, Refused, Unavailable
from isthmus.network.measurement.probing import Probes
from isthmus.sites import wire
from isthmus.sites.port import Job, Observation, Sighting, Site, StageOutcome

log = logging.getLogger(__name__)

_DATA = ("data_drop", "data_chill", "data_warm", "data_register", "data_limit")
_LANES = {"stage": "stage", "collect": "collect"} | dict.fromkeys(_DATA, "data")
"""What moves content, for minutes, is in lanes of its own: outputs that are ready do not wait for inputs. All else is quick."""
Deliver = Callable[[str, str], None]


class Runner:
    """Takes calls in, hands answers (call id, text) to `deliver` once they are on disk."""

    def __init__(
        self,
        site: Site,
        journal: Journal,
        deliver: Deliver,
        *,
        quick_at_once: int = 8,
        bulk_at_once: int = 4,
        longest_seconds: float = 3600.0,
        keeping: Keeping | None = None,
        network: NetworkDoor | None = None,
    ) -> None:
        self._site = site
        self._keeping = keeping
        self._network = network or NetworkDoor()
        self._journal = journal
        self._deliver = deliver
        self._quick = asyncio.Semaphore(quick_at_once)
        self._bulk = {lane: asyncio.Semaphore(bulk_at_once) for lane in _LANES.values()}
        self._longest = longest_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changing: Counter[str] = Counter()  # keys that a running call changes
        self._changed = asyncio.Condition()
        self._submitting: Counter[str] = Counter()  # keys of submissions taken and not answered
        self._submitting_calls: set[str] = set()
        self._looks: list[set[str]] = []  # one for each look under way: keys whose submission came in meanwhile

    @property
    def running(self) -> frozenset[str]:
        """Ids of the calls that are not answered yet."""
        return frozenset(self._tasks)

    async def accept(self, calls: Sequence[Call | Garbled]) -> None:
        """Take delivered calls in; one that was taken before is not run again, its answer is sent again."""
        fresh: list[Call | Garbled] = []
        for call in calls:
            if call.id in self._tasks or any(call.id == other.id for other in fresh):
                continue
            known = await self._journal.entry(call.id)
            if known is None or known.state == "taken":
                fresh.append(call)
            elif known.state in ("answered", "told") and known.answer:
                log.info("call %s was delivered again; its answer is sent again", call.id)
                self._deliver(call.id, known.answer)
            else:
                await self._settle_begun(call, known)
        readable = [call for call in fresh if isinstance(call, Call)]
        # All submissions are known before anything of the delivery runs, so that no look for a job overtakes its submission.
        for call in readable:
            if not wire.method(call.method).repeatable:
                keys = wire.keys_of(call.arguments)
                self._submitting.update(keys)
                self._submitting_calls.add(call.id)
                for look in self._looks:
                    look.update(keys)
        await self._journal_taken(fresh)
        for item in fresh:
            self._start(item)

    async def stop(self, grace_seconds: float) -> None:
        """Let running calls end within `grace_seconds`, then drop them; what is dropped has no answer."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=grace_seconds)
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, item: Call | Garbled) -> None:
        task = asyncio.create_task(self._serve(item), name=f"call {item.id}")
        self._tasks[item.id] = task

    async def _serve(self, item: Call | Garbled) -> None:
        try:
            if isinstance(item, Garbled):
                await self._finish(item.id, wire.encode_failure(item.error).decode())
                return
            answer = await self._run(item)
            if answer is not None:
                await self._finish(item.id, answer)
        except Exception:
            log.exception("call %s could not be served; it will be delivered again", item.id)
        finally:
            if isinstance(item, Call) and item.id in self._submitting_calls:
                self._submitting_calls.discard(item.id)
                self._submitting -= Counter(wire.keys_of(item.arguments))
            self._tasks.pop(item.id, None)

    async def _run(self, call: Call) -> str | None:
        """The answer to a call; None when it expired before it began."""
        spec = wire.method(call.method)
        keys = wire.keys_of(call.arguments) if spec.mutating else ()
        await self._claim(keys)
        try:
            async with self._bulk[_LANES[call.method]] if call.method in _LANES else self._quick:
                if time.monotonic() >= call.deadline:
                    log.info("call %s (%s) expired before it began", call.id, call.method)
                    await self._journal.forget(call.id)
                    return None
                if not spec.repeatable:
                    if call.other_agent:
                        return interrupted(call.method, wire.keys_of(call.arguments))
                    try:
                        await self._journal.begin(call.id)
                    except Unavailable as error:
                        return wire.encode_failure(error).decode()  # not begun: nothing was done
                return await self._ask_site(call)
        finally:
            await self._release(keys)

    async def _ask_site(self, call: Call) -> str:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._longest):
                result = await self._call_method(call)
            answer = wire.encode_result(call.method, result)
            if len(answer) > wire.MAX_ANSWER_BYTES:
                raise Unavailable("The answer is too large to be sent.", remedy="Ask for fewer jobs at once.")
            log.info("call %s: %s took %.2f s", call.id, call.method, time.monotonic() - began)
        except IsthmusError as error:
            log.warning("call %s: %s failed: %s: %s", call.id, call.method, error.code, error)
            answer = wire.encode_failure(error)
        except Exception as error:
            # Its text and the frames' values may hold a job's secrets: the type and the place are enough to find it.
            log.error("call %s: %s broke: %s at %s", call.id, call.method, type(error).__name__, _place(error))
            answer = wire.encode_failure(error)
        return answer.decode()

    async def _call_method(self, call: Call) -> Any:
        match call.arguments:
            case Probes() as asked:
                return await self._network.measure(asked)
            case wire.RouterAsked(socket=socket, request=request):
                return await self._network.ask_router(socket, request)
        if call.method.startswith("data_"):
            return await self._call_keeping(call)
        method = getattr(self._site, call.method)
        match call.arguments:
            case wire.Nothing():
                return await method()
            case wire.Jobs(jobs=jobs):
                return await self._stage(jobs) if call.method == "stage" else await method(jobs)
            case wire.NativeIds(native_ids=native_ids):
                return await method(native_ids)
            case wire.LogPiece(ref=ref, stream=stream, offset=offset, limit=limit):
                return await method(ref, stream, offset, min(limit, wire.MAX_LOG_PIECE_BYTES))
            case wire.Refs(refs=refs):
                return await self._look(call.method, refs) if call.method in _LOOK_METHODS else await method(refs)

    async def _stage(self, jobs: Sequence[Job]) -> dict[str, StageOutcome]:
        """Stage jobs, files of datasets from what is kept here."""
        lacking: dict[str, StageOutcome] = {}
        if self._keeping is not None:
            jobs, absent = await self._keeping.localise(jobs)
            lacking |= absent
        return {**lacking, **(await self._site.stage(jobs) if jobs else {})}

    async def _call_keeping(self, call: Call) -> Any:
        if self._keeping is None:
            raise Refused("This site keeps no data.", remedy="Start its agent with --data-root.")
        method = getattr(self._keeping, call.method)
        match call.arguments:
            case wire.Orders(orders=orders):
                return await method(orders)
            case wire.Ids(ids=ids):
                return await method(ids)
            case wire.Manifests(manifests=manifests):
                return await method(manifests)
            case wire.FilesInPlace(asked=asked):
                return await method(asked)
            case wire.Limits(limits=limits):
                return await method(limits)
        raise wire.Unreadable("The call does not fit its method.")

    async def _look(self, method: str, refs: Sequence[Any]) -> Any:
        """A look for jobs that never says "not there" of a job whose submission was under way at any moment of it."""
        busy = set(self._submitting)
        self._looks.append(busy)
        try:
            result = await getattr(self._site, method)(refs)
        finally:
            self._looks = [look for look in self._looks if look is not busy]
        if method == "find":
            if any(ref.key in busy and not result.get(ref.key) for ref in refs):
                raise Unavailable("A job that is looked for is being submitted.", remedy="Look again.")
            return result
        return {key: _doubt(seen) if key in busy else seen for key, seen in result.items()}

    async def _finish(self, call_id: str, answer: str) -> None:
        try:
            await self._journal.answered(call_id, answer)
        except Unavailable as error:
            log.error("the answer of call %s is not on disk: %s", call_id, error)
        self._deliver(call_id, answer)

    async def _journal_taken(self, calls: Sequence[Call | Garbled]) -> None:
        rows = [
            (call.id, call.method, wire.keys_of(call.arguments) if isinstance(call, Call) else ()) for call in calls
        ]
        try:
            if rows:
                await self._journal.take(rows)
        except Unavailable as error:
            log.error("%s", error)  # looks still work; a submission is refused when it cannot be written down

    async def _settle_begun(self, call: Call | Garbled, known: Entry) -> None:
        """A call that this journal knows as begun while nobody runs it: a submission stays Uncertain, others run."""
        if isinstance(call, Call) and wire.method(call.method).repeatable:
            self._start(call)
        else:
            await self._finish(call.id, interrupted(known.method, known.keys))

    async def _claim(self, keys: Sequence[str]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not any(self._changing[key] for key in keys))
            self._changing.update(keys)

    async def _release(self, keys: Sequence[str]) -> None:
        async with self._changed:
            self._changing -= Counter(keys)
            self._changed.notify_all()


_LOOK_METHODS = frozenset({"find", "observe"})


def _doubt(seen: Observation) -> Observation:
    if seen.sighting is not Sighting.ABSENT:
        return seen
    return replace(seen, sighting=Sighting.UNSEEN, message="The job is being submitted.")


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
