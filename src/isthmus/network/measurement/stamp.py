"""STAMP by hand: `python -m isthmus.network.measurement.stamp reflect|measure`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from dataclasses import asdict

from isthmus.domain.errors import IsthmusError
from isthmus.network.measurement.packet import PORT
from isthmus.network.measurement.reflector import Reflector
from isthmus.network.measurement.sender import Session, measure


def main() -> int:
    """Reflect until SIGTERM, or measure a path and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reflect = commands.add_parser("reflect", help="answer the networks that are named, until SIGTERM")
    reflect.add_argument("--allow", action="append", required=True, metavar="PREFIX")
    reflect.add_argument("--address", default="::")
    reflect.add_argument("--port", type=int, default=PORT)
    asked = commands.add_parser("measure", help="measure the path to a reflector; one JSON object, times in seconds")
    asked.add_argument("target", metavar="ADDRESS")
    asked.add_argument("--port", type=int, default=PORT)
    asked.add_argument("--count", type=int, default=100)
    asked.add_argument("--interval", type=float, default=0.01, metavar="SECONDS")
    asked.add_argument("--wait", type=float, default=1.0, metavar="SECONDS")
    asked.add_argument("--dscp", type=int, default=0)
    asked.add_argument("--size", type=int, default=64, metavar="BYTES")
    arguments = parser.parse_args()
    try:
        if arguments.command == "reflect":
            _reflect(arguments)
        else:
            session = Session(
                target=arguments.target,
                port=arguments.port,
                count=arguments.count,
                interval_seconds=arguments.interval,
                wait_seconds=arguments.wait,
                dscp=arguments.dscp,
                size_bytes=arguments.size,
            )
            found = measure(session)
            told = asdict(found) | {"loss": found.loss}
            if told["clock_error_seconds"] == float("inf"):
                told["clock_error_seconds"] = None  # JSON has no infinity
            print(json.dumps(told))
    except IsthmusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _reflect(arguments: argparse.Namespace) -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    reflector = Reflector(arguments.allow, address=arguments.address, port=arguments.port)
    print("ready", flush=True)
    reflector.serve(ended)
    reflector.close()


if __name__ == "__main__":
    sys.exit(main())
