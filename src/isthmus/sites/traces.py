"""What a job's wrapper leaves at the site, as read back: the claim, the result, and whether its process lives."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.domain.errors import Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.usage import Usage
from isthmus.sites.port import Observation, Sighting, StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who runs the attempt: the fence it was made with, and the wrapper's process. `fence` is None for a claim whose
    writing was cut short: it still counts, since whoever made it runs the job."""

    fence: int | None = None
    host: str = ""
    pid: int = 0
    start_ticks: int = 0  # start of the process in clock ticks since boot, as /proc/PID/stat says
    boot_id: str = ""
    claimed_at: float | None = None
    accelerators: str = ""
    cpus: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the wrapper says the job ended. `exit_code` is None when no command of the user was started."""

    reason: EndReason
    fence: int
    exit_code: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    step: int = 0  # the step that decided the end, from 1
    steps: tuple[StepResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One attempt's directory. `alive`: whether the claim's process (or, before a claim, the launched wrapper) runs;
    None when it cannot be told from here (another host). `orphaned`: it does not, but processes that it started do.
    `launched` is only written by the fork scheduler."""

    directory: bool = False
    staged: bool = False
    cancelled: bool = False
    launched: str = ""
    claim: Claim | None = None
    result: Result | None = None
    alive: bool | None = None
    orphaned: bool = False

    @property
    def ended(self) -> Observation | None:
        """The observation of an ended job, when there is a result."""
        if self.result is None:
            return None
        return Observation(
            sighting=Sighting.ENDED,
            reason=self.result.reason,
            exit_code=self.result.exit_code,
            started_at=self.result.started_at,
            ended_at=self.result.ended_at,
            steps=self.result.steps,
            claim_fence=self.result.fence if self.claim is None or self.claim.fence is None else self.claim.fence,
            nodes=(self.claim.host,) if self.claim is not None and self.claim.host else (),
        )

    @property
    def cpus(self) -> int:
        """Processors that the claim says the job holds."""
        return self.claim.cpus if self.claim is not None else 1

    def usage(self, *, cpus: int, native_id: str = "") -> Usage | None:
        """What the wrapper counted for `cpus` processors held; None before there is a result."""
        result = self.result
        if result is None:
            return None
        elapsed = max(0.0, (result.ended_at or 0.0) - (result.started_at or result.ended_at or 0.0))
        return Usage(
            source="wrapper",
            started_at=result.started_at,
            ended_at=result.ended_at,
            elapsed_seconds=round(elapsed),
            cpus=cpus,
            cpu_seconds=result.cpu_seconds,
            allocated_cpu_seconds=round(elapsed * cpus),
            max_rss_bytes=result.max_rss_bytes,
            accelerators=len(self.claim.accelerators.split(",")) if self.claim and self.claim.accelerators else 0,
            native_id=native_id,
            native_state=str(result.reason),
        )


def parse_claim(line: str) -> Claim:
    """A claim from its line of `name=value` words; anything unreadable leaves its default."""
    words = _words(line)
    return Claim(
        fence=_integer(words.get("fence")),
        host=words.get("host", ""),
        pid=_integer(words.get("pid")) or 0,
        start_ticks=_integer(words.get("start")) or 0,
        boot_id=words.get("boot", ""),
        claimed_at=_number(words.get("at")),
        accelerators=words.get("gpus", ""),
        cpus=_integer(words.get("cpus")) or 1,
    )


def parse_result(line: str) -> Result | None:
    """A result from its line; None when it is not one (results appear by rename, so a bad one is damage)."""
    words = _words(line)
    fence = _integer(words.get("fence"))
    try:
        reason = EndReason(words.get("reason", ""))
    except ValueError:
        return None
    if fence is None:
        return None
    return Result(
        reason=reason,
        fence=fence,
        exit_code=_integer(words.get("code")),
        started_at=_number(words.get("started")),
        ended_at=_number(words.get("ended")),
        cpu_seconds=_number(words.get("cpu")) or 0.0,
        max_rss_bytes=_integer(words.get("rss")) or 0,
        step=_integer(words.get("step")) or 0,
        steps=_steps(words.get("steps", "")),
    )


def _steps(text: str) -> tuple[StepResult, ...]:
    """The steps that ran, from `CODE:STARTED:OUT:ERR:ENDED:OUT:ERR,...`; none when any of it is damaged."""
    steps = []
    for part in text.split(",") if text else ():
        fields = part.split(":")
        numbers = [_number(field) for field in fields]
        if len(fields) != 7 or any(number is None for number in numbers):
            return ()
        code, began, out_from, err_from, ended, out_to, err_to = (number or 0.0 for number in numbers)
        steps.append(
            StepResult(
                exit_code=int(code),
                started_at=began,
                ended_at=ended,
                stdout_from=int(out_from),
                stdout_to=int(out_to),
                stderr_from=int(err_from),
                stderr_to=int(err_to),
            )
        )
    return tuple(steps)


def parse_traces(text: str, place: str) -> dict[str, Trace]:
    """What the TRACES script printed, by key; Unavailable when it is cut short or the root is not there."""
    lines = text.splitlines()
    if not lines or lines[-1] != "!end" or not lines[0].startswith("!boot "):
        said = {"!no root": "its root is not there", "!other root": "its root is not the one that it was"}
        why = said.get(lines[0] if lines else "", "its answer is cut short")
        raise Unavailable(f"{place} does not say what its attempts left: {why}.", remedy="Check its file systems.")
    here = lines[0].split()[-1]
    found: dict[str, Trace] = {}
    for line in lines[1:-1]:
        fields = line.split("|")
        if len(fields) != 5:
            continue  # left out: nothing is known of that key
        key, flags, launched, claim_line, result_line = fields
        claim = parse_claim(claim_line) if "c" in flags else None
        host = claim.host if claim is not None else _words(launched).get("host", here)
        found[key] = Trace(
            directory="d" in flags,
            staged="s" in flags,
            cancelled="x" in flags,
            launched=launched,
            orphaned="o" in flags and host == here,
            claim=claim,
            result=parse_result(result_line) if result_line else None,
            alive=None if host != here else True if "a" in flags else False if "n" in flags else None,
        )
    return found


def _words(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
