"""`python -m tests.world --seed N` replays one history and tells it; `--seeds A-B [--json]` runs many."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from tests.world.history import World, run_history
from tests.world.nemesis import play
from tests.world.oracle import judge


def main() -> int:
    """Exit code 1 when any history broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="1-100", help="from-to, both included")
    parser.add_argument("--limit-seconds", type=float, default=float("inf"), help="begin no history after this long")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a history
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.world", *sys.argv[1:]])
    if options.seed is not None:
        world, problems = run_history(options.seed, play, judge)
        print("\n".join(world.told))
        print("\n".join(problems) or f"seed {options.seed}: every promise was kept")
        return bool(problems)
    first, _, last = options.seeds.partition("-")
    begun, ran, bad, kills, tasks = time.monotonic(), 0, [], 0, 0
    for seed in range(int(first), int(last or first) + 1):
        if time.monotonic() - begun > options.limit_seconds:
            break
        world, problems = _guarded(seed)
        ran += 1
        if world is not None:
            kills += world.kills
            tasks += len(world.specs)
        if problems:
            bad.append({"seed": seed, "problems": problems})
            if not options.json:
                print(f"seed {seed}: {problems[0]}" + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))
    result = {
        "histories": ran,
        "violations": len(bad),
        "tasks": tasks,
        "kills": kills,
        "seconds": round(time.monotonic() - begun, 1),
        "bad": bad[:20],
    }
    print(json.dumps(result if options.json else {k: v for k, v in result.items() if k != "bad"}))
    return bool(bad)


def _guarded(seed: int) -> tuple[World | None, list[str]]:
    try:
        return run_history(seed, play, judge)
    except Exception as error:
        return None, [f"the world broke: {type(error).__name__}: {error}"]


if __name__ == "__main__":
    sys.exit(main())
