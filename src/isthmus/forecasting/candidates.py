"""What a job's run time could be: the run times of jobs that ended before it was submitted, described beside it. Compiled.

A row of history is one ended job, COLUMNS wide; a candidate is one run time taken from a row (or the job's own request),
described by FEATURES: how alike the two jobs are, and how well the value agrees with the user's other jobs.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

COLUMNS = ("submitted", "ended", "log_run", "log_request", "log_processors", "command", "pool", "before", "user")
FEATURES = (
    *(
        "kind",
        "log_run",
        "of_request",
        "same_request",
        "same_processors",
        "request",
        "processors",
        "rank",
        "rank_alike",
    ),
    *("since_end", "since_submit", "ended_at_request", "hours_apart", "same_command", "same_pool", "context_apart"),
    *("agree_alike", "agree_request", "agree_user", "agree_last", "agree_peers", "agree_command"),
    *("agree_alike_flat", "agree_request_flat", "near_alike", "near_request", "agree_weighted", "agree_context"),
    *(
        "alike",
        "requests",
        "user_jobs",
        "commands",
        "own_request",
        "own_processors",
        "hour",
        "weekday",
        "last_of_request",
    ),
    *("spread_alike", "spread_user", "user_quiet"),
)
ALIKE, OF_USER, PEERS, MOST = 24, 40, 4, 24
APART = 0.04  # candidates closer than this in log seconds are one


@njit(cache=True)
def candidates(rows, count, peers, peer_count, job):  # type: ignore[no-untyped-def]
    """Candidate log run times and their features, for one job; both have one entry a candidate.

    `rows[:count]` are the user's ended jobs in the order in which they ended, `peers[:peer_count]` those of everybody;
    rows that ended after `job[0]`, the job's submission, are passed over. `job` is submitted, log_request,
    log_processors, command, pool, user. Seconds since 1970 in UTC; natural logarithms; names as whole numbers, 0 unknown.
    """
    now, log_request, log_processors, command, pool = job[0], job[1], job[2], job[3], job[4]
    user = np.empty(OF_USER, np.int64)
    alike = np.empty(ALIKE, np.int64)
    request = np.empty(ALIKE, np.int64)
    commands = np.empty(ALIKE, np.int64)
    users = alikes = requests = of_command = 0
    for j in range(count - 1, -1, -1):
        if rows[j, 1] > now:
            continue
        if users < OF_USER:
            user[users] = j
            users += 1
        if rows[j, 3] == log_request and requests < ALIKE:
            request[requests] = j
            requests += 1
        if rows[j, 3] == log_request and rows[j, 4] == log_processors and alikes < ALIKE:
            alike[alikes] = j
            alikes += 1
        if command != 0 and rows[j, 5] == command and of_command < ALIKE:
            commands[of_command] = j
            of_command += 1
    others = np.empty(PEERS, np.int64)
    other = 0
    for j in range(peer_count - 1, -1, -1):
        if other == PEERS:
            break
        if (
            peers[j, 8] != job[5]
            and peers[j, 1] <= now
            and peers[j, 3] == log_request
            and peers[j, 4] == log_processors
        ):
            others[other] = j
            other += 1
    before = rows[user[0], 2] if users else np.nan
    spread_alike = _spread(rows, alike, alikes)
    spread_user = _spread(rows, user, users)
    values = np.empty(MOST + 1)
    out = np.full((MOST + 1, len(FEATURES)), np.nan, np.float32)
    size = 0
    total = of_command + alikes + requests + users + other
    for k in range(total + 1):
        if size == MOST and k < total:
            continue
        # In the order of likeness, so that of candidates with one value the most alike describes it.
        at = k
        row = job
        kind = 0.0
        if at < of_command:
            row = rows[commands[at]]
        elif at < of_command + alikes:
            row = rows[alike[at - of_command]]
        elif at < of_command + alikes + requests:
            row = rows[request[at - of_command - alikes]]
        elif at < of_command + alikes + requests + users:
            row = rows[user[at - of_command - alikes - requests]]
        elif at < total:
            row = peers[others[at - of_command - alikes - requests - users]]
            kind = 1.0
        else:
            kind = 2.0
        value = log_request if kind == 2.0 else min(row[2], log_request)
        known = False
        for c in range(size):
            if abs(values[c] - value) < APART:
                known = True
                break
        if known:
            continue
        values[size] = value
        f = out[size]
        f[0], f[1], f[2] = kind, value, value - log_request
        if kind < 2.0:
            f[3], f[4] = row[3] == log_request, row[4] == log_processors
            f[5], f[6] = row[3] - log_request, row[4] - log_processors
            f[9], f[10] = math.log(now - row[1] + 1), math.log(now - row[0] + 1)
            f[11] = row[2] - row[3]
            apart = abs(now % 86400 - row[0] % 86400) / 3600
            f[12] = min(apart, 24 - apart)
            f[13], f[14] = command != 0 and row[5] == command, row[6] == pool
            f[15] = abs(row[7] - before)
        if kind == 0.0:
            for c in range(users):
                if rows[user[c], 1] == row[1] and rows[user[c], 0] == row[0]:
                    f[7] = c
                    break
            for c in range(alikes):
                if rows[alike[c], 1] == row[1] and rows[alike[c], 0] == row[0]:
                    f[8] = c
                    break
        f[16] = _agree(value, rows, alike, alikes, 0.85, 1.0)
        f[17] = _agree(value, rows, request, requests, 0.85, 1.0)
        f[18] = _agree(value, rows, user, users, 0.85, 1.0)
        f[19] = _agree(value, rows, user, min(3, users), 0.85, 1.0)
        f[20] = _agree(value, peers, others, other, 0.85, 1.0)
        f[21] = _agree(value, rows, commands, of_command, 0.85, 1.0)
        f[22] = _agree(value, rows, alike, alikes, 1.0, 1.0)
        f[23] = _agree(value, rows, request, requests, 1.0, 1.0)
        f[24] = _agree(value, rows, alike, alikes, 1.0, 5.0)
        f[25] = _agree(value, rows, request, requests, 1.0, 5.0)
        weighted = weights = context = contexts = 0.0
        for c in range(users):
            seen = rows[user[c]]
            weight = math.exp(-0.08 * c)
            if seen[3] != log_request:
                weight *= math.exp(-1.0 - 0.5 * abs(seen[3] - log_request))
            if seen[4] != log_processors:
                weight *= math.exp(-0.5 - 0.5 * abs(seen[4] - log_processors))
            near = math.exp(-abs(value - seen[2]))
            weighted += weight * near
            weights += weight
            if not math.isnan(seen[7]):
                weight *= math.exp(-0.5 * abs(seen[7] - before))
            context += weight * near
            contexts += weight
        if users:
            f[26], f[27] = weighted / weights, context / contexts
            f[36] = rows[user[0], 2] - rows[user[0], 3]
            f[39] = math.log(now - rows[user[0], 1] + 1)
        f[28], f[29], f[30], f[31] = alikes, requests, users, of_command
        f[32], f[33], f[34], f[35] = log_request, log_processors, now % 86400 / 3600, now // 86400 % 7
        f[37], f[38] = spread_alike, spread_user
        size += 1
    return values[:size], out[:size]


@njit(cache=True)
def _agree(value, rows, chosen, count, fading, sharpness):  # type: ignore[no-untyped-def]
    if count == 0:
        return np.nan
    total = weights = 0.0
    weight = 1.0
    for k in range(count):
        total += weight * math.exp(-sharpness * abs(value - rows[chosen[k], 2]))
        weights += weight
        weight *= fading
    return total / weights


@njit(cache=True)
def _spread(rows, chosen, count):  # type: ignore[no-untyped-def]
    if count < 2:
        return np.nan
    mean = 0.0
    for k in range(count):
        mean += rows[chosen[k], 2] / count
    spread = 0.0
    for k in range(count):
        spread += abs(rows[chosen[k], 2] - mean) / count
    return spread
