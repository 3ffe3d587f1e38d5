"""`python -m isthmus.metering.bench --json`, or the same as one file: `python3 isthmus-bench.pyz --json`."""

from __future__ import annotations

import argparse
import json
import sys
import warnings


def main(arguments: list[str] | None = None) -> int:
    """Measure this node; figures on stdout (or into --output), talk on stderr."""
    from isthmus.metering.bench import moving
    from isthmus.metering.bench.document import Bench, Wanted

    parser = argparse.ArgumentParser(prog="isthmus-bench", description="Measures what this node does.")
    parser.add_argument("--json", action="store_true", help="the whole document instead of a table")
    parser.add_argument("--output", default="", metavar="FILE", help="write the document there as well")
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long in all, 3 to 100 (60)")
    parser.add_argument("--directory", default=".", help="whose storage is measured (the working directory)")
    parser.add_argument("--memory", type=int, default=0, metavar="BYTES", help="take no more than was given to the job")
    parser.add_argument("--peer", default="", metavar="HOST:PORT", help="measure the network to there, not loopback")
    parser.add_argument("--serve", type=int, default=0, metavar="PORT", help="be such a peer until interrupted")
    parser.add_argument(
        "--processor-time", action="store_true", help="leave out the time that others take; on one processor"
    )
    parser.add_argument("--quiet", action="store_true", help="do not say what is measured now")
    given = parser.parse_args(arguments)
    if given.serve:
        try:
            moving.serve(given.serve)
        except KeyboardInterrupt:
            return 0
    if not 3 <= given.seconds <= 100:
        parser.error("--seconds must be from 3 to 100")
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")  # only ufuncs run in the copies

    def say(text: str) -> None:
        if not given.quiet:
            sys.stderr.write(f"isthmus bench: {text}\n")

    wanted = Wanted(
        seconds=given.seconds,
        directory=given.directory,
        peer=given.peer,
        memory_bytes=given.memory,
        processor_time=given.processor_time,
    )
    try:
        bench = Bench(wanted, say)
    except ValueError as error:
        parser.error(str(error))
    document = bench.run()
    text = json.dumps(document)
    if given.output:
        with open(given.output, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    if given.json:
        print(text)
    else:
        _table(document)
    return 0


def _table(document: dict) -> None:  # type: ignore[type-arg]  # JSON
    print(
        f"{document['node']}: {document['processor']}, {document['given']['cpus']} processors, {document['seconds']} s"
    )
    rows = [("node", document["figures"])]
    rows += [(f"{one['kind']} {one['index']} {one['name']}", one["figures"]) for one in document["accelerators"]]
    for title, figures in rows:
        print(f"\n{title:36} {'median':>11} {'p10':>11} {'p90':>11}  by")
        for name, one in figures.items():
            print(f"{name:36} {one['median']:11.4g} {one['p10']:11.4g} {one['p90']:11.4g}  {one.get('by', '')}")
    for name, reason in document["left_out"].items():
        print(f"left out: {name}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
