"""The engine's figures, in one place, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

PREEMPTIBLE_RANK = 1e9  # preemptible tasks are served after all others
AGEING_SECONDS = 60.0  # one point of priority is worth a minute of waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How often and how much at once. All durations in seconds."""

    round_interval: float = 0.5  # at most this long from "a task waits" to a round, if nobody wakes it
    round_tasks: int = 2_000  # tasks looked at in one round
    poll_interval: float = 2.0  # between two looks at one site
    describe_interval: float = 10.0  # between two looks at a site's pools
    idle_describe_interval: float = 60.0  # the same while nothing is there and nothing waits anywhere
    dispatch_batch: int = 200  # attempts staged and submitted in one go, for each site
    collect_batch: int = 100
    lease_seconds: float = 60.0  # a worker that stops is replaced after this
    call_timeout: float = 300.0  # staging and collecting may move much data
    negative_gap: float = 15.0  # between two authoritative negatives: beyond any batch server's message time-out
    unseen_grace: float = 30.0  # a live attempt not seen for this long is shown as UNKNOWN
    poison_tries: int = 8  # handlings that failed in a row before an attempt is parked
    retry_delay: float = 2.0  # first delay after a failed handling; doubles up to a minute
    usage_patience: float = 7 * 86400.0  # accounting that stays silent for a week is recorded as lost
    hopeless_interval: float = 20.0  # between two looks at a task that no pool can take as things are
    benchmark_interval: float = 2.0  # between two looks for benchmarks that ended
    measure_interval: float = 60.0  # between two rounds of small measurements of the network
    train_interval: float = 600.0  # between two packet trains of an agent
    max_waiting: int = 1_000_000  # tasks of one project that have not ended; more is refused
    events_kept_seconds: float = 30 * 86400.0
    move_interval: float = 30.0  # between two looks for jobs that wait at a site and would start sooner elsewhere
    move_after: float = 60.0  # a job that has waited less is left where it is
    move_least_seconds: float = 300.0  # the least gain that pays for a move, and its least part of what is left
    move_least_part: float = 0.3
    moves_at_once: int = 20  # in one look; 0 = nothing moves
    moves_most: int = 3  # of one task
    preempt_after: float = 15.0  # a job that waits at a site has its room made after this long
    fair_half_life: float = 86400.0  # what a project used this long ago counts half in its fair share
    fair_weight: float = 1.0  # seconds of order for each second that a project is ahead of its share; 0 = no fair share
    home_first: bool = True  # at a site that is a project's home its own users start no later because of guests
    home_region: str = ""  # where the service itself keeps content
    transfer_interval: float = 1.0  # between two looks at a transfer on its way
    clean_after: float = 0.0  # how long an ended attempt's directory stays at its site
