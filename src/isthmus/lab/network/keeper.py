"""The process behind `isthmus lab up`: builds the network of a file, keeps it until SIGTERM, and removes it.

`python -m isthmus.lab.network.keeper FILE`. It prints one JSON line: {"ready": seconds} or the error.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

from isthmus.domain.errors import IsthmusError
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.reading import read_file


def main() -> int:
    """Run until SIGTERM."""
    ended = {signal.SIGTERM, signal.SIGINT}
    signal.signal(signal.SIGTERM, _stop)
    begun = time.monotonic()
    try:
        network = EmulatedNetwork(read_file(Path(sys.argv[1]))).start()
    except IsthmusError as error:
        _tell({"code": error.code, "cause": error.cause, "remedy": error.remedy})
        return 1
    except Exception as error:
        _tell({"cause": f"The network could not be built: {error!r}."})
        raise
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    _tell({"ready": round(time.monotonic() - begun, 2)})
    signal.sigwait(ended)
    network.stop()
    return 0


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(1)


def _tell(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(main())
