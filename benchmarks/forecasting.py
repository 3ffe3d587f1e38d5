"""Forecasts replayed on public logs, strictly in time, beside what they are measured against, in one run.

Logs: Parallel Workloads Archive (Feitelson, Tsafrir, Krakov, JPDC 2014); KTH by Lars Malinowsky, CTC by Dan Dwyer and
Steve Hotovy, SDSC-SP2 by Victor Hazlewood, HPC2N by Ake Sandgren. Carbon intensity: Electricity Maps (ODbL), 2022.
Waits of KTH, CTC and SDSC-SP2 are those of EASY in the twin; "recorded" ones are the log's own, whose policy nobody
tells. The folder of public data is ISTHMUS_SHARED_DATA, or ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe, table
from isthmus.forecasting.baselines import accuracy, easy_plus_plus, last_two
from isthmus.forecasting.hourly import HourlyModel
from isthmus.forecasting.replay import Replayed, replay_run_times, replay_waits
from isthmus.forecasting.runtime import RunTimeModel
from isthmus.forecasting.waits import CLOSE_SECONDS, CLOSE_SHARE, WaitModel
from isthmus.twin.readers import SwfLog, read_swf
from isthmus.twin.schedulers import bounded_slowdown, simulate

PROCESSORS = {"KTH-SP2": 100, "SDSC-SP2": 128, "CTC-SP2": 338, "CTC-SP2 recorded": 338, "HPC2N recorded": 240}
FILES = {"CTC-SP2 recorded": "CTC-SP2-1996-3.1-cln.swf.gz", "HPC2N recorded": "HPC2N-2002-2.2-cln.swf.gz"}
PUBLISHED = {"KTH-SP2": 0.570, "CTC-SP2": 0.577, "SDSC-SP2": 0.597}
# Mean bounded slowdown in the artefact of SC'15 (Gaussier et al.), predictor "tsafrir", correction "reqtime".
EASY_PLUS_PLUS = {"KTH-SP2": 62.8569, "CTC-SP2": 26.5338, "SDSC-SP2": 65.0636}
ZONES = ("US-CAL-CISO", "ES", "NO", "BR")
PARTS = ("jobs", "load", "carbon")
AHEAD = (1, 6, 24)
LOAD_AHEAD = (1, 6, 24, 48)
CARBON = "Carbon Intensity gCO₂eq/kWh (direct)"


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    named = os.environ.get("ISTHMUS_SHARED_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(named) if named else beside)
    parser.add_argument("--logs", nargs="*", choices=list(PROCESSORS), default=list(PROCESSORS))
    parser.add_argument("--zones", nargs="*", choices=ZONES, default=list(ZONES))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured (all)")
    parser.add_argument("--load-hours", type=int, help="of each log's load, the first (all)")
    parser.add_argument("--recorded-jobs", type=int, default=15_000, help="of a log with its own waits, the first")
    parser.add_argument("--quick", action="store_true", help="the first 5,000 jobs of KTH, one zone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    traces = arguments.data / "traces"
    if not traces.is_dir():
        parser.error(f"there are no traces in {arguments.data}: give --data or set ISTHMUS_SHARED_DATA")
    machine = describe()
    print(json.dumps(machine))
    figures: dict[str, dict[str, Any]] = {}
    rows: list[tuple[str, str, str, str]] = []
    for name in ["KTH-SP2"] if arguments.quick else arguments.logs:
        most = 5_000 if arguments.quick else arguments.recorded_jobs if name in FILES else None
        if "jobs" in arguments.parts:
            measured = _log(traces, name, most)
            for key, value in measured.items():
                figures.setdefault(key, {})[name] = value
            rows += _log_rows(name, measured)
        if "load" in arguments.parts:
            measured = _load_ahead(*_read(traces, name, most), PROCESSORS[name], arguments.load_hours)
            figures.setdefault("load_ahead", {})[name] = measured
            rows += _load_rows(name, measured)
    zones = arguments.zones if "carbon" in arguments.parts else []
    for zone in zones[:1] if arguments.quick else zones:
        measured = _carbon(traces / "carbon" / f"{zone}_2022_hourly.csv.gz")
        figures.setdefault("carbon", {})[zone] = measured
        rows += _carbon_rows(zone, measured)
    print(table(rows))
    if arguments.json:
        print(json.dumps({**figures, "machine": machine}))


def _read(traces: Path, name: str, most: int | None) -> tuple[SwfLog, NDArray[np.int64]]:
    processors = PROCESSORS[name]
    if name not in FILES:
        log = read_swf(traces / "pwa" / f"{name}.sc15-rebuilt.swf.gz")
        log = log if most is None else log.where(np.arange(len(log)) < most)
        return log, simulate(log, processors, "easy")
    log = read_swf(traces / "pwa" / FILES[name])
    width = np.where(log.requested_processors > 0, log.requested_processors, log.allocated_processors)
    log = replace(log, requested_processors=width)
    good = (log.run_seconds > 0) & (log.requested_seconds > 0) & (log.wait_seconds >= 0)
    log = log.where(good & (width > 0) & (width <= processors))
    log = log.where(np.arange(len(log)) < (len(log) if most is None else most))
    return log, log.wait_seconds


def _log(traces: Path, name: str, most: int | None) -> dict[str, Any]:
    log, waits = _read(traces, name, most)
    run, processors = log.run_seconds, PROCESSORS[name]
    begun = time.process_time()
    runs = replay_run_times(log, waits, RunTimeModel())
    seconds = time.process_time() - begun
    begun = time.process_time()
    asked = replay_waits(log, waits, processors, runs, WaitModel())
    wait_seconds = time.process_time() - begun
    two = last_two(log, waits)
    point = runs.column("point")
    figures: dict[str, Any] = {
        "jobs": len(log),
        "runtime_accuracy": _mean(accuracy(run, point)),
        "runtime_accuracy_last_two": _mean(accuracy(run, two)),
        "runtime_accuracy_requested": _mean(accuracy(run, log.requested_seconds.astype(float))),
        "runtime_below_p10_p50_p90": [_mean(run <= runs.column(key)) for key in ("p10", "p50", "p90")],
        "runtime_under_predicted": _mean(point < run),
        "runtime_under_predicted_last_two": _mean(two < run),
        "runtime_cpu_ms_per_job": round(1000 * seconds / len(log), 3),
        "wait_cpu_ms_per_job": round(1000 * wait_seconds / len(log), 3),
        **_wait_figures(waits, asked),
        "wait_within_site_plan": _mean(_close(np.array(asked.plans, dtype=float), waits)),
    }
    if name not in FILES:
        figures["avebsld"] = _slowdowns(log, processors, runs, two)
    return figures


def _wait_figures(waits: NDArray[np.int64], asked: Replayed) -> dict[str, Any]:
    waiting = waits > 0
    p95 = asked.column("p95") + 0.5  # a wait is whole seconds
    return {
        "wait_coverage_95": _mean(waits <= p95),
        "wait_coverage_95_of_waiting": _mean((waits <= p95)[waiting]),
        "wait_within": _mean(_close(asked.column("point"), waits)),
        "wait_within_of_waiting": _mean(_close(asked.column("point"), waits)[waiting]),
        "wait_start_at_once": _mean(~waiting),
        "wait_below_p10_p50_p90_of_waiting": [
            _mean((waits <= asked.column(key) + 0.5)[waiting]) for key in ("p10", "p50", "p90")
        ],
        "wait_p95_hours_of_waiting": round(float(np.median(p95[waiting])) / 3600, 2),
        "wait_hours_of_waiting": round(float(np.median(waits[waiting])) / 3600, 2),
    }


def _close(predicted: NDArray[np.float64], waits: NDArray[np.int64]) -> NDArray[np.bool_]:
    close: NDArray[np.bool_] = np.abs(predicted - waits) <= np.maximum(CLOSE_SECONDS, CLOSE_SHARE * waits)
    return close


def _slowdowns(log: SwfLog, processors: int, runs: Replayed, two: NDArray[np.float64]) -> dict[str, float]:
    estimates = {
        "easy-sjbf, requested": "requested",
        "easy-sjbf, last two": np.maximum(1, np.rint(two)).astype(np.int64),
        "easy-sjbf, ours": runs.estimates(),
        "easy-sjbf, actual": "actual",
    }
    figures = {"easy, requested": _slowdown(log, simulate(log, processors, "easy"))}
    for name, given in estimates.items():
        figures[name] = _slowdown(log, simulate(log, processors, "easy-sjbf", given))  # type: ignore[arg-type]
    settled = easy_plus_plus(
        log, simulate(log, processors, "easy"), lambda given: simulate(log, processors, "easy-sjbf", given)
    )
    figures["EASY++, last two of the user"] = _slowdown(log, settled)
    return figures


def _slowdown(log: SwfLog, waits: NDArray[np.int64]) -> float:
    return round(float(bounded_slowdown(waits, log.run_seconds).mean()), 4)


def hourly_load(log: SwfLog, waits: NDArray[np.int64], processors: int) -> NDArray[np.float64]:
    """The part of the processors that jobs hold, in the mean of each whole hour from the first submission to the last."""
    begins = log.submit_seconds + waits
    hours = np.arange(log.submit_seconds.min(), log.submit_seconds.max(), 3600)

    def held_until(times: NDArray[np.int64]) -> NDArray[np.float64]:
        order = np.argsort(times)
        width = np.concatenate([[0], log.requested_processors[order]]).astype(np.float64)
        moment = np.concatenate([[0], times[order]])
        before = np.searchsorted(times[order], hours)
        found: NDArray[np.float64] = width.cumsum()[before] * hours - (width * moment).cumsum()[before]
        return found

    held: NDArray[np.float64] = np.diff(held_until(begins) - held_until(begins + log.run_seconds)) / 3600 / processors
    return held


def _load_ahead(log: SwfLog, waits: NDArray[np.int64], processors: int, most: int | None = None) -> dict[str, Any]:
    """Strictly in time, from the third week on: mean absolute error in parts of the whole, and what p10 to p90 covered."""
    series = hourly_load(log, waits, processors)[:most]
    model = HourlyModel(horizon=LOAD_AHEAD[-1], start="mean", highest=1.0)
    first = 24 * 14
    told = np.full((len(series), len(LOAD_AHEAD), 3), np.nan)
    for hour, value in enumerate(series.tolist()):
        model.observe(hour, value)
        if model.due:
            model.train()
        if hour >= first:
            for k, ahead in enumerate(LOAD_AHEAD):
                found = model.predict(ahead)
                told[hour, k] = found.point, found.p10, found.p90
    figures: dict[str, Any] = {"hours": len(series), "mean_load": round(float(series.mean()), 4)}
    for k, ahead in enumerate(LOAD_AHEAD):
        hours = np.arange(first, len(series) - ahead)
        actual = series[hours + ahead]
        point, low, high = told[hours, k].T
        figures[f"{ahead}h"] = {
            "mae": round(float(np.abs(point - actual).mean()), 4),
            "mae_persistence": round(float(np.abs(series[hours] - actual).mean()), 4),
            "mae_last_week": round(float(np.abs(series[hours + ahead - 168] - actual).mean()), 4),
            "covered_80": _mean((low <= actual) & (actual <= high)),
        }
    return figures


def _carbon(path: Path) -> dict[str, Any]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        series = np.array([float(row[CARBON]) for row in csv.DictReader(lines)])
    model = HourlyModel()
    ours = np.full((len(series), len(AHEAD)), np.nan)
    covered: list[bool] = []
    bounds: dict[int, tuple[float, float]] = {}
    first = 24 * 14
    for hour, value in enumerate(series.tolist()):
        if hour in bounds:
            low, high = bounds.pop(hour)
            covered.append(low <= value <= high)
        model.observe(hour, value)
        if model.due:
            model.train()
        if hour >= first:
            forecasts = [model.predict(ahead) for ahead in AHEAD]
            ours[hour] = [forecast.point for forecast in forecasts]
            bounds[hour + AHEAD[-1]] = (forecasts[-1].p10, forecasts[-1].p90)
    figures: dict[str, Any] = {"covered_80_at_24h": _mean(np.array(covered))}
    for k, ahead in enumerate(AHEAD):
        hours = np.arange(first, len(series) - ahead)
        actual = series[hours + ahead]
        kinds = {"ours": ours[hours, k], "persistence": series[hours], "yesterday": series[hours + ahead - 24]}
        for kind, predicted in kinds.items():
            apart = np.abs(predicted - actual)
            figures[f"{ahead}h {kind}"] = {
                "mae": round(float(apart.mean()), 2),
                "mape": round(float((apart / np.maximum(actual, 1)).mean()), 4),
            }
    return figures


def _mean(values: NDArray[Any]) -> float:
    return round(float(values.mean()), 4) if len(values) else float("nan")


def _log_rows(name: str, got: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    last = f"last two {got['runtime_accuracy_last_two']:.4f}, requested {got['runtime_accuracy_requested']:.4f}"
    if name in PUBLISHED:
        last += f", published {PUBLISHED[name]:.3f}"
    rows = [
        (f"{name}: run time accuracy", f"{got['runtime_accuracy']:.4f}", ">= .65", last),
        (f"{name}: run times below p10, p50, p90", str(got["runtime_below_p10_p50_p90"]), "", ""),
        (
            f"{name}: waits below the 95 % bound",
            f"{got['wait_coverage_95']:.4f}",
            ".94-.97",
            f"of the waiting {got['wait_coverage_95_of_waiting']:.4f}",
        ),
        (
            f"{name}: waits within 1 min or 20 %",
            f"{got['wait_within']:.4f}",
            ">= .65",
            f"site's own plan {got['wait_within_site_plan']:.4f}; start at once {got['wait_start_at_once']:.4f}",
        ),
    ]
    published = {"EASY++, last two of the user": f"SC'15 {EASY_PLUS_PLUS[name]}"} if name in EASY_PLUS_PLUS else {}
    for kind, value in got.get("avebsld", {}).items():
        rows.append((f"{name}: AVEbsld {kind}", f"{value:.4f}", "", published.get(kind, "")))
    return rows


def _load_rows(name: str, got: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (
            f"{name}: load {ahead} h ahead, MAE (p10 to p90 held)",
            f"{got[f'{ahead}h']['mae']:.4f} ({got[f'{ahead}h']['covered_80']:.3f})",
            "",
            f"persistence {got[f'{ahead}h']['mae_persistence']:.4f}, last week {got[f'{ahead}h']['mae_last_week']:.4f}",
        )
        for ahead in LOAD_AHEAD
    ]


def _carbon_rows(zone: str, got: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (
            f"{zone}: carbon {ahead} h ahead, MAE (MAPE)",
            f"{got[f'{ahead}h ours']['mae']:.2f} ({got[f'{ahead}h ours']['mape']:.3f})",
            "",
            f"persistence {got[f'{ahead}h persistence']['mae']:.2f}, yesterday {got[f'{ahead}h yesterday']['mae']:.2f}",
        )
        for ahead in AHEAD
    ]


if __name__ == "__main__":
    main()
