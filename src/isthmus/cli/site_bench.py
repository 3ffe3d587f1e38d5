"""`isthmus site bench`: measure what a site's nodes do; and the part of `isthmus site show` that tells it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers

if TYPE_CHECKING:
    from isthmus.client.records import Benchmark
    from isthmus.client.wire import Steps

LOOK_SECONDS = 1.0
PATIENT_LOOKS = 120  # a measurement itself takes less
# name in the vector, heading, how many of its unit make one shown
_COLUMNS = (
    ("fp64_ops_per_second", "FP64 GF/s", 1e9),
    ("fp32_ops_per_second", "FP32 GF/s", 1e9),
    ("fp16_ops_per_second", "FP16 GF/s", 1e9),
    ("int8_ops_per_second", "INT8 GOP/s", 1e9),
    ("vector_ops_per_second", "VECTOR GF/s", 1e9),
    ("memory_bytes_per_second", "MEMORY GB/s", 1e9),
    ("cache_bytes_per_second", "CACHE GB/s", 1e9),
    ("memory_latency_seconds", "LATENCY ns", 1e-9),
    ("serial_passes_per_second", "SERIAL", 1.0),
    ("storage_write_bytes_per_second", "WRITE GB/s", 1e9),
    ("storage_read_bytes_per_second", "READ GB/s", 1e9),
    ("network_bytes_per_second", "NETWORK GB/s", 1e9),
    ("host_link_bytes_per_second", "LINK GB/s", 1e9),
)
_CLASSES = ("dense_fp64", "ml_training", "ml_inference", "memory_bound", "serial", "io")


@command(
    "bench",
    examples="""
    isthmus site bench alpha
    isthmus site bench alpha --pool gpu --nodes 4
    isthmus site bench alpha --python /opt/python/bin/python3
    isthmus site bench alpha --detach
    """,
    help=_(
        "Measure what a site's nodes do, by an ordinary task of yours on one whole node of each pool (two minutes at most), "
        "and store it as the pools' capability. With --nodes 3 or more, nodes that do less than the others are named."
    ),
)
@click.argument("name")
@click.option("--pool", "pools", multiple=True, metavar="POOL", help=_("This pool only; may be repeated."))
@click.option("--nodes", type=click.IntRange(1, 100), default=1, help=_("Measure so many nodes of each pool."))
@click.option("--seconds", type=click.FloatRange(3, 100), default=60.0, help=_("About how long, for each node (60)."))
@click.option("--python", default="", metavar="PROGRAM", help=_("The site's Python, best one with NumPy (python3)."))
@click.option("--detach", is_flag=True, help=_("Do not wait for the end."))
@answers
def bench(
    session: Session, name: str, pools: tuple[str, ...], nodes: int, seconds: float, python: str, detach: bool
) -> int:
    from isthmus.client import administration

    steps = administration.bench_site(
        name, project=session.project, pools=pools, nodes=nodes, seconds=seconds, python=python
    )
    made = session.run(steps)
    if not session.as_json:
        for one in made:
            screen.say(_("{task} measures a node of {pool}").format(task=one.task_id, pool=one.pool))
    if detach:
        if session.as_json:
            screen.put_json(made)
        screen.suggest(f"isthmus site show {name}")
        return exits.OK
    try:
        done = session.run(_wait(name, {one.task_id for one in made}, told=not session.as_json))
    except KeyboardInterrupt:
        screen.say(_("The measurement goes on; its result will be in: isthmus site show {name}").format(name=name))
        return exits.INTERRUPTED
    found = [one for one in session.run(administration.site_capabilities(name)) if not pools or one["pool"] in pools]
    if session.as_json:
        screen.put_json({"benchmarks": done, "capabilities": found})
    else:
        show_capabilities(found, wide=session.wide)
    return exits.OK if all(one.state == "done" for one in done) else exits.TASK_FAILED


def _wait(name: str, ids: set[str], *, told: bool) -> Steps[list[Benchmark]]:
    from isthmus.client import administration
    from isthmus.client.wire import Pause

    open_ids = set(ids)
    looks = 0
    while True:
        rows = [row for row in (yield from administration.site_benchmarks(name)) if row.task_id in ids]
        for row in rows:
            if row.task_id in open_ids and row.state != "due":
                open_ids.discard(row.task_id)
                if told:
                    _tell(row)
        if not open_ids:
            return rows
        looks += 1
        if told and looks == PATIENT_LOOKS:
            screen.say(_("still waiting; where it stands: isthmus why {task}").format(task=min(open_ids)))
        yield Pause(LOOK_SECONDS)


def _tell(row: Benchmark) -> None:
    if row.state == "done":
        screen.say(_("{pool}: {node} was measured").format(pool=row.pool, node=row.node))
    else:
        screen.say(_("{pool}: failed: {message}").format(pool=row.pool, message=row.message))
        screen.suggest(f"isthmus logs --stream stderr {row.task_id}")


def show_capabilities(found: list[dict[str, Any]], *, wide: bool) -> None:
    """What pools do: units, grade, error and date of each kind of node; the vectors too when `wide`; slow nodes by name."""
    if not found:
        return
    screen.put("")
    headers = [_("POOL"), _("UNITS/NODE"), _("ERROR"), _("GRADE"), _("NODES"), _("MEASURED"), _("KIND OF NODE")]
    rows = []
    for one in found:
        what = one["capability"]
        general, grade = what.get("general"), what.get("grade")
        rows.append(
            [
                one["pool"],
                f"{general:.3g}" if general is not None else "-",
                f"{what.get('error', 0.0):.0%}",
                str(grade) if grade is not None else "-",
                str(len(what["nodes"])),
                screen.moment(datetime.fromtimestamp(what["measured_at"], UTC)),
                what["kind"],
            ]
        )
    screen.table(headers, rows, right=(1, 2, 3, 4))
    if wide:
        _show_vectors(found)
    for one in found:
        for slow in one["capability"].get("slow_nodes", ()):
            screen.say(
                _("{pool}: {node} does {part:.0%} of its kind in {quantity}").format(
                    pool=one["pool"], node=slow["node"], part=slow["ratio"], quantity=slow["quantity"]
                )
            )
        if one["capability"].get("left_out"):
            names = ", ".join(f"{name} ({why})" for name, why in one["capability"]["left_out"].items())
            screen.say(_("{pool}: not measured: {names}").format(pool=one["pool"], names=names))


def _show_vectors(found: list[dict[str, Any]]) -> None:
    screen.put("")
    rows = []
    for one in found:
        units = one["capability"].get("units", {})
        rows.append([one["pool"], *(f"{units[name]:.3g}" if name in units else "-" for name in _CLASSES)])
    screen.table([_("UNITS/NODE"), *(name.upper() for name in _CLASSES)], rows, right=range(1, len(_CLASSES) + 1))
    screen.put("")
    rows = []
    for one in found:
        what = one["capability"]
        vectors = [(one["pool"], what["processor"])]
        if what.get("accelerator"):
            vectors.append((_("{pool}, each of {count}").format(pool=one["pool"], count=what["accelerators"]), what["accelerator"]))  # fmt: skip
        for title, vector in vectors:
            rows.append([title, *(_figure(vector["figures"].get(name), unit) for name, _heading, unit in _COLUMNS)])
    screen.table([_("POOL"), *(heading for _name, heading, _unit in _COLUMNS)], rows, right=range(1, len(_COLUMNS) + 1))


def _figure(figure: dict[str, Any] | None, unit: float) -> str:
    """`12.3±4%`, or - where it was not measured."""
    if figure is None:
        return "-"
    error = (figure["p90"] - figure["p10"]) / (2 * figure["median"])
    return f"{figure['median'] / unit:.4g}±{error:.0%}"
