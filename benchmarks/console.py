"""The web page's figures in a real Chromium against a real service: first load, size, event to screen, memory.

python -m benchmarks.console --json [--minutes 2] [--rate 1000]

- first_load_s: from navigation until a signed-in person sees the list of tasks; median of five cold loads on loopback.
- compressed_kb: bytes of the page's files on the wire until then, compressed (1 kB = 1000 bytes).
- event_to_screen_p95_s: from the commit of a task's change of state until its row shows it, while the service commits `rate`
  events a second and the page takes them all.
- heap_growth_mb: used JavaScript heap after a forced collection, the end against the end of the first quarter, over `minutes`
  of such events. An hour is `--minutes 60`; the answer says which was run.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page

from isthmus.domain.ids import make_id
from isthmus.store import events, tables
from isthmus.store.database import Database
from tests.client.service import RunningService
from tests.console.browsing import chromium

LIMITS = {"first_load_s": 1.0, "compressed_kb": 800.0, "event_to_screen_p95_s": 1.0, "heap_growth_mb": 10.0}
LOADS = 5
WATCHED = 40
ROWS = 2000


def first_load(browser: Any, url: str, token: str) -> tuple[float, float]:
    """Seconds and kilobytes of a cold load; medians."""
    seconds, sizes = [], []
    for _ in range(LOADS):
        context = browser.new_context()
        context.add_init_script(f"sessionStorage.setItem('isthmus.token', '{token}')")
        page = context.new_page()
        wire: CDPSession = context.new_cdp_session(page)
        wire.send("Network.enable")
        got: dict[str, float] = {}
        addresses: dict[str, str] = {}
        _note(wire, addresses, got)
        page.goto(f"{url}/#/tasks", wait_until="commit")
        page.locator("[data-id]").first.wait_for()
        seconds.append(page.evaluate("performance.now()") / 1000.0)
        page.wait_for_timeout(200)
        sizes.append(sum(size for key, size in got.items() if "/v1/" not in addresses.get(key, "/v1/")) / 1000.0)
        context.close()
    return statistics.median(seconds), statistics.median(sizes)


def _note(wire: CDPSession, addresses: dict[str, str], got: dict[str, float]) -> None:
    wire.on("Network.responseReceived", lambda e: addresses.update({e["requestId"]: e["response"]["url"]}))
    wire.on("Network.loadingFinished", lambda e: got.update({e["requestId"]: e["encodedDataLength"]}))


class Writer(threading.Thread):
    """Commits events at a rate, as an engine does: states of tasks that the list shows, in batches of a tenth of a second."""

    def __init__(self, database: Database, ids: list[str], watched: list[str], rate: int) -> None:
        super().__init__(daemon=True)
        self._database, self._ids, self._watched, self._rate = database, ids, watched, rate
        self.committed: dict[tuple[str, str], float] = {}
        self.written = 0
        self.ends = threading.Event()

    def run(self) -> None:
        """Write until the end."""
        states = ("placed", "staging", "queued", "running")
        began, turn = time.monotonic(), 0
        while not self.ends.is_set():
            due = int((time.monotonic() - began) * self._rate) - self.written
            if due < self._rate // 10:
                time.sleep(0.005)
                continue
            now = time.time()
            rows = []
            for n in range(self.written, self.written + due):
                kind = f"attempt.{states[n % 4]}"
                rows.append(
                    events.event(now, kind, project="default", task_id=self._ids[n % len(self._ids)], site="local")
                )
            one, state = self._watched[turn % len(self._watched)], states[(turn // len(self._watched)) % 4]
            rows.append(events.event(now, f"attempt.{state}", project="default", task_id=one, site="local"))
            self._database.write_now(lambda connection, rows=rows: events.add(connection, rows))
            self.committed[one, state] = time.time()
            self.written += len(rows)
            turn += 1


WATCH = """ids => {
  window.seen = []; const last = {};
  const look = () => { const now = Date.now();
    for (const id of ids) { const mark = document.querySelector(`[data-id="${id}"] [data-state]`); if (!mark) continue;
      const state = mark.dataset.state; if (last[id] !== undefined && last[id] !== state) window.seen.push([id, state, now]); last[id] = state; }
    requestAnimationFrame(look); };
  look();
}"""


def heap(wire: CDPSession) -> float:
    """Used JavaScript heap after a collection, megabytes."""
    wire.send("HeapProfiler.collectGarbage")
    return float(wire.send("Runtime.getHeapUsage")["usedSize"]) / 1e6


def follow(page: Page, wire: CDPSession, writer: Writer, watched: list[str], minutes: float) -> dict[str, float]:
    """Follow the stream for a time; delays of what was watched, and the heap's growth."""
    page.evaluate(WATCH, watched)
    writer.start()
    delays: list[float] = []
    parts = 4 if minutes < 12 else 12
    heaps = []
    for turn in range(parts):
        until = time.monotonic() + minutes * 60.0 / parts
        while time.monotonic() < until:
            page.wait_for_timeout(min(5000.0, max(1.0, (until - time.monotonic()) * 1000.0)))
            for one, state, at in page.evaluate("window.seen.splice(0)"):
                committed = writer.committed.pop((one, state), None)
                if committed is not None:
                    delays.append(max(0.0, at / 1000.0 - committed))
        heaps.append(heap(wire))
        print(f"{(turn + 1) * minutes / parts:.1f} min: {heaps[-1]:.2f} MB of heap", file=sys.stderr, flush=True)
    writer.ends.set()
    writer.join()
    delays.sort()
    return {
        "event_to_screen_p50_s": round(delays[len(delays) // 2], 3),
        "event_to_screen_p95_s": round(delays[int(len(delays) * 0.95)], 3),
        "watched_changes": len(delays),
        "heap_growth_mb": round(heaps[-1] - heaps[parts // 4 - 1], 2) + 0.0,
        "heap_mb": round(heaps[-1], 2),
    }


def measure(minutes: float, rate: int) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as directory:
        running = RunningService(Path(directory) / "state")
        running.start()
        try:
            profile = running.profile
            database = Database(f"sqlite:///{Path(directory) / 'state' / 'isthmus.db'}")
            try:
                return _measure(database, profile.url, profile.token, minutes, rate)
            finally:
                database.close()
        finally:
            running.stop()


def _measure(database: Database, url: str, token: str, minutes: float, rate: int) -> dict[str, Any]:
    ids = _tasks(database)
    watched = ids[-WATCHED:]
    with chromium() as browser:
        seconds, size = first_load(browser, url, token)
        context = browser.new_context(viewport={"width": 1280, "height": 2200})
        context.add_init_script(f"sessionStorage.setItem('isthmus.token', '{token}')")
        page = context.new_page()
        page.goto(f"{url}/#/tasks")
        page.locator("[data-pulse=live]").wait_for()
        page.locator(f"[data-id='{watched[-1]}']").wait_for()
        wire = context.new_cdp_session(page)
        writer = Writer(database, ids[:-WATCHED], watched, rate)
        began = time.monotonic()
        found = follow(page, wire, writer, watched, minutes)
        took = time.monotonic() - began
    return {
        "first_load_s": round(seconds, 3),
        "compressed_kb": round(size, 1),
        **found,
        "minutes": minutes,
        "events_per_second": round(writer.written / took, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _tasks(database: Database) -> list[str]:
    """Tasks that the engine leaves alone, for the list to show."""
    now = time.time()
    ids = [make_id(int(now * 1000) + n, secrets.token_bytes(10)) for n in range(ROWS)]
    rows = [
        {
            "id": key,
            "project": "default",
            "user": "admin",
            "name": f"task {n}",
            "spec": '{"command": ["true"]}',
            "state": "held",
            "rank": now,
            "max_attempts": 3,
            "created_at": now,
            "updated_at": now,
        }
        for n, key in enumerate(ids)
    ]
    database.write_now(lambda connection: connection.execute(tables.tasks.insert(), rows) and None)
    return ids


def main(argv: list[str] | None = None) -> int:
    """0 when every figure is within its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="how long events are followed (default: %(default)s)"
    )
    parser.add_argument("--rate", type=int, default=1000, help="events a second (default: %(default)s)")
    options = parser.parse_args(argv)
    found = measure(options.minutes, options.rate)
    good = all(found[name] <= limit for name, limit in LIMITS.items())
    if options.json:
        print(json.dumps({"benchmark": "console", "good": good, **found}))
    else:
        for name, value in found.items():
            print(f"{name:24} {value}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
