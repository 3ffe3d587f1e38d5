"""`isthmus net`: declare the network, see what is known of it, and compare paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import Group, command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers, confirm
from isthmus.domain.errors import NotFound, Refused

_HERE, _SLICES = "isthmus.cli.net:", "isthmus.cli.net_slices:"
_SEE, _DECLARE = "See", "Declare"
net = Group(
    name="net",
    lazy={
        "show": (_HERE + "show", "Nodes and links, with measured delay, loss and bandwidth", _SEE),
        "paths": (_HERE + "paths", "The paths between two sites, and why one is preferred", _SEE),
        "load": (_HERE + "load", "Declare the network of a YAML file; shows what changes", _DECLARE),
        "policies": (_HERE + "policies", "Which packets are led over which path, and whether routers have it", _SEE),
        "steer": (_HERE + "steer", "Lead packets with some marks over a path", _DECLARE),
        "unsteer": (_HERE + "unsteer", "Let them go by themselves again", _DECLARE),
        "slice": (_SLICES + "add", "Give a project, or packets with a mark, a rate of links for sure", _DECLARE),
        "unslice": (_SLICES + "remove", "Give a slice up", _DECLARE),
        "slices": (_SLICES + "slices", "The slices, and whether routers have them", _SEE),
        "operators": (_HERE + "operators", "Make users operators of the network, or no longer", _DECLARE),
    },
    examples="""
    isthmus net load wan.yaml
    isthmus net show
    isthmus net paths alpha beta
    """,
    help=_("The network between the sites: what is declared, what is measured, which paths there are."),
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command(
    "show",
    examples="""
    isthmus net show
    isthmus net show r1-r2
    isthmus net show -o wide
    """,
    help=_(
        "The nodes, and each direction of each link with delay, loss and free bandwidth: measured where it is measured, else as declared. "
        "A figure that is older than five minutes is marked with a question mark. Pairs of sites are listed with what was measured "
        "between them, whatever way packets take. With the name of a link, or of a pair such as alpha-beta: every figure of it with its "
        "error, source and age, and what is reserved."
    ),
)
@click.argument("link", required=False)
@answers
def show(session: Session, link: str | None) -> int:
    from isthmus.client import network

    found = session.run(network.network())
    if link is not None:
        return _explain(session, found, link)
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    if not found["nodes"] and not found["pairs"]:
        screen.say(_("Nothing is declared of the network, and nothing measured."))
        screen.suggest("isthmus net load wan.yaml")
        return exits.OK
    if found["nodes"]:
        rows = [
            (node["name"], node["kind"], node["address"], " ".join(node["prefixes"]) or node["locator"])
            for node in found["nodes"]
        ]
        screen.table(("NODE", "KIND", "ADDRESS", "NETWORKS"), rows)
    if found["links"]:
        screen.put("")
        _show_figures("LINK", [(one["link"], one) for one in found["links"]], wide=session.wide)
    if found["pairs"]:
        screen.put("")
        _show_figures("PAIR", [("", one) for one in found["pairs"]], wide=session.wide)
    return exits.OK


def _explain(session: Session, found: dict[str, Any], name: str) -> int:
    """Every figure of a link or a pair, both directions."""
    chosen = [one for one in found["links"] if one["link"] == name]
    chosen += [one for one in found["pairs"] if f"{one['source']}-{one['target']}" == name] if not chosen else []
    if not chosen:
        raise NotFound(f"There is no link or pair {name}.", remedy=_("`isthmus net show` shows both."))
    if session.as_json:
        screen.put_json(chosen)
        return exits.OK
    for one in chosen:
        state = "up" if one["up"] else "DOWN"
        since = f" since {one['up_since']}" if one["up_since"] else ""
        screen.put(f"{one['source']} -> {one['target']}: {state}{since}")
        rows = [row for title, key, show_value in _FIGURES if (row := _figure_row(title, one[key], show_value))]
        for title, key in (("capacity", "capacity_bits_per_second"), ("reserved now", "reserved_bits_per_second"), ("of it slices", "sliced_bits_per_second")):  # fmt: skip
            if one.get(key):
                rows.append((title, _rate(one[key]), "", "", "", ""))
        screen.table(("FIGURE", "VALUE", "ERROR (95 %)", "SOURCE", "AGE", "MEANING"), rows)
        screen.put("")
    return exits.OK


def _figure_row(title: str, figure: dict[str, Any] | None, show_value: Any) -> tuple[str, ...] | None:
    from isthmus.domain.units import show_duration

    if figure is None:
        return None
    declared = figure["source"] == "declared"
    meaning = _MEANING[figure["source"]] + (_("; old: the error has grown") if figure["stale"] else "")
    error = "" if declared else f"±{show_value(figure['error'])}"
    return title, show_value(figure["value"]), error, figure["source"], show_duration(figure["age_seconds"]), meaning


def _rate(bits_per_second: float) -> str:
    from isthmus.domain.quantities import show_rate

    return show_rate(float(f"{bits_per_second:.3g}"))


def _share(value: float) -> str:
    return f"{value * 100:.3g} %"


def _show_figures(title: str, rows: list[tuple[str, dict[str, Any]]], *, wide: bool) -> None:
    from isthmus.domain.quantities import show_rate

    headers = [title, "FROM", "TO", "STATE", "DELAY", "LOSS", "FREE", "RATE", "RESERVED", "SOURCE", "AGE"]
    if wide:
        headers += ["JITTER", "TWO-WAY", "MTU", "PRICE/GB", "PROGRAMMABLE"]
    shown = []
    for name, one in rows:
        newest = _newest(one)
        row = [
            name or f"{one['source']}-{one['target']}",
            one["source"],
            one["target"],
            "up" if one["up"] else "DOWN",
            _cell(one["delay_seconds"], _milliseconds),
            _cell(one["loss"], _share),
            _cell(one["available_bits_per_second"], _rate),
            show_rate(one.get("capacity_bits_per_second")),
            _rate(one["reserved_bits_per_second"]) if one.get("reserved_bits_per_second") else "",
            newest["source"] if newest else "",
            _age(newest),
        ]
        if wide:
            row += [
                _cell(one["jitter_seconds"], _milliseconds),
                _cell(one["two_way_delay_seconds"], _milliseconds),
                one.get("mtu_bytes", ""),
                one.get("price_per_gb", ""),
                "yes" if one.get("programmable") else "",
            ]
        shown.append(row)
    screen.table(headers, shown)


def _newest(one: dict[str, Any]) -> dict[str, Any] | None:
    """The newest measured figure of a row, else a declared one."""
    names = ("delay_seconds", "loss", "available_bits_per_second")
    found = [one[name] for name in names if one[name] is not None]
    measured = [figure for figure in found if figure["source"] != "declared"]
    return min(measured or found, key=lambda figure: figure["age_seconds"], default=None)


def _cell(figure: dict[str, Any] | None, show_value: Any) -> str:
    if figure is None:
        return ""
    error = f" ±{show_value(figure['error'])}" if figure["source"] != "declared" and figure["error"] else ""
    return f"{show_value(figure['value'])}{error}{' ?' if figure['stale'] else ''}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


_FIGURES: tuple[tuple[str, str, Any], ...] = (
    ("delay, one way", "delay_seconds", _milliseconds),
    ("delay, both ways", "two_way_delay_seconds", _milliseconds),
    ("jitter", "jitter_seconds", _milliseconds),
    ("loss", "loss", _share),
    ("free", "available_bits_per_second", _rate),
)
_MEANING = {
    "declared": _("what an operator wrote"),
    "stamp": _("measured between agents (STAMP)"),
    "derived": _("computed from measurements over several paths"),
    "transfers": _("what transfers reached"),
    "probe": _("a short train of packets"),
    "router": _("the router's own word"),
}


def _age(figure: dict[str, Any] | None) -> str:
    from isthmus.domain.units import show_duration

    return "" if figure is None or figure["source"] == "declared" else show_duration(figure["age_seconds"])


@command(
    "paths",
    examples="""
    isthmus net paths alpha beta
    isthmus net paths alpha beta --size 2T
    """,
    help=_(
        "The paths from one site to another: delay, capacity, what is free now as measured, what of it is reserved while so much moves "
        "(windows of transfers, and slices), the rate that can still be promised, price, and why the first is preferred."
    ),
)
@click.argument("source")
@click.argument("target")
@click.option("--size", default="1000000000", metavar="SIZE", help=_("How much is to be moved, such as 50G (10^9 bytes)."))  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 16), default=4, help=_("At most so many paths (4)."))
@answers
def paths(session: Session, source: str, target: str, size: str, limit: int) -> int:
    from isthmus.client import network
    from isthmus.domain.units import parse_size, show_duration

    found = session.run(network.paths(source, target, size_bytes=parse_size(size), limit=limit))
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    rows = []
    for one in found["paths"]:
        rows.append(
            (
                " ".join(one["nodes"]),
                "up" if one["up"] else "DOWN",
                "" if one["delay_seconds"] is None else _milliseconds(one["delay_seconds"]),
                *(
                    "" if one[key] is None else _rate(one[key])
                    for key in ("capacity_bits_per_second", "free_bits_per_second")
                ),
                _rate(one["reserved_bits_per_second"]) if one["reserved_bits_per_second"] else "",
                "" if one["promisable_bits_per_second"] is None else _rate(one["promisable_bits_per_second"]),
                one["price_per_gb"],
                "" if one["seconds"] is None else show_duration(one["seconds"]),
                "itself" if one["taken_by_itself"] else "policy" if one["programmable"] else "",
                one["why"],
            )
        )
    if not rows:
        raise NotFound(
            _("No path leads from {source} to {target}.").format(source=source, target=target),
            remedy=_("`isthmus net show` shows the links that are declared."),
        )
    headers = ("PATH", "STATE", "DELAY", "CAPACITY", "FREE", "RESERVED", "PROMISABLE", "PRICE/GB", "TIME", "TAKEN BY", "WHY")  # fmt: skip
    screen.table(headers, rows)
    return exits.OK


@command(
    "load",
    examples="""
    isthmus net load wan.yaml
    isthmus net load wan.yaml --dry-run
    isthmus lab topology | isthmus net load - --yes
    """,
    help=_(
        "Declare the network of a YAML file, the same that `isthmus lab up` takes, with addresses where routers are real (docs/network.md). "
        "The file is all of it: what it does not name is removed. What changes is shown first; the same file again changes nothing."
    ),
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--dry-run", is_flag=True, help=_("Only show what would change."))
@click.option("--yes", is_flag=True, help=_("Do not ask before nodes or links are removed."))
@answers
def load(session: Session, file: Path, dry_run: bool, yes: bool) -> int:
    from isthmus.client import network
    from isthmus.domain.networkfile import read_network

    declared = read_network(_document(file))
    looked = session.run(network.declare_network(declared, dry_run=True))["differences"]
    if not session.as_json:
        _show_differences(looked)
    removed = [one["name"] for one in looked if one["change"] == "removed"]
    if removed and not dry_run:
        confirm(_("Remove {names} from the network?").format(names=", ".join(removed)), yes=yes)
    stored = None if dry_run else session.run(network.declare_network(declared))
    if session.as_json:
        screen.put_json(stored or {"stored": False, "differences": looked})
    elif stored is not None:
        screen.suggest("isthmus net show")
    return exits.OK


def _document(file: Path) -> object:
    import sys

    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}.", remedy=_("Name a YAML file.")) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refused(f"{file} is not YAML: {error}", remedy=_("See docs/network.md for an example.")) from None


def _show_differences(found: list[dict[str, Any]]) -> None:
    signs = {"added": "+", "removed": "-", "changed": "~"}
    if not found:
        screen.say(_("Nothing changes."))
    for one in found:
        fields = "; ".join(f"{name} {was or '-'} -> {becomes or '-'}" for name, (was, becomes) in one["fields"].items())
        screen.put(f"{signs[one['change']]} {one['what']} {one['name']}{': ' + fields if fields else ''}")


@command(
    "policies",
    examples="""
    isthmus net policies
    isthmus net policies --json
    """,
    help=_("The policies of transfers, tasks and operators: the path, the marks of the packets, and since when the routers have it."),
)  # fmt: skip
@answers
def policies(session: Session) -> int:
    from isthmus.client import network

    found = session.run(network.policies())
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    rows = []
    for one in found:
        marks = " ".join(f"{key}={value}" for key, value in one["match"].items() if value is not None)
        state = "programmed" if one["programmed_at"] else "waiting" if one["wanted"] else "given up"
        state += ", moved" if one["moved_at"] else ""
        rows.append((one["name"], " ".join(one["nodes"]), marks, one["owner"], state, one["error"]))
    screen.table(("POLICY", "PATH", "MARKS", "OWNER", "STATE", "ERROR"), rows)
    return exits.OK


@command(
    "steer",
    examples="""
    isthmus net steer backup alpha r1 r3 r2 beta
    isthmus net steer backup alpha r1 r3 r2 beta --dscp 10
    """,
    help=_(
        "Lead packets with some marks from one site over routers to another. Without a mark the service chooses a DSCP that no other "
        "policy of the pair has, and says which. When a link of the path fails, the policy moves to another path and stays there."
    ),
)
@click.argument("name")
@click.argument("nodes", nargs=-1, required=True)
@click.option("--dscp", type=click.IntRange(0, 63), help=_("Packets with this DSCP."))
@click.option("--flow-label", type=click.IntRange(0, 0xFFFFF), help=_("IPv6 packets with this flow label."))
@click.option("--application-id", type=click.IntRange(0, 0xFFFFFFFF), help=_("IPv6 packets with this application id in an option."))  # fmt: skip
@click.option("--from", "from_prefix", metavar="PREFIX", help=_("Packets from these addresses."))
@answers
def steer(
    session: Session,
    name: str,
    nodes: tuple[str, ...],
    dscp: int | None,
    flow_label: int | None,
    application_id: int | None,
    from_prefix: str | None,
) -> int:
    from isthmus.client import network

    steps = network.steer(
        name, nodes, dscp=dscp, flow_label=flow_label, application_id=application_id, from_prefix=from_prefix
    )
    made = session.run(steps)
    marks = ", ".join(f"{key} {value}" for key, value in made["match"].items() if value is not None)
    session.answer(made, _("Packets with {marks} are led over {path}.").format(marks=marks, path=" ".join(nodes)))
    if not session.as_json:
        screen.suggest("isthmus net policies")
    return exits.OK


@command("unsteer", examples="isthmus net unsteer backup", help=_("Give a policy up; its routers forget it."))
@click.argument("name")
@answers
def unsteer(session: Session, name: str) -> int:
    from isthmus.client import network

    session.run(network.unsteer(name))
    session.answer({"name": name}, _("The policy {name} is given up.").format(name=name))
    return exits.OK


@command(
    "operators",
    examples="""
    isthmus net operators --add ada
    isthmus net operators --remove ada
    """,
    help=_("Let users declare the network, or no longer. For administrators; the user's token needs the scope network:operate."),
)  # fmt: skip
@click.option("--add", "added", multiple=True, metavar="USER", help=_("Make this user operator; may be repeated."))
@click.option("--remove", "removed", multiple=True, metavar="USER", help=_("Take the network from this user."))
@answers
def operators(session: Session, added: tuple[str, ...], removed: tuple[str, ...]) -> int:
    from isthmus.client import network

    if not added and not removed:
        raise click.UsageError(_("Say whom: --add USER or --remove USER."))
    for user in added:
        session.run(network.add_operator(user))
    for user in removed:
        session.run(network.remove_operator(user))
    text = _("Operators of the network: added {added}, removed {removed}.")
    session.answer(
        {"added": list(added), "removed": list(removed)},
        text.format(added=", ".join(added) or "-", removed=", ".join(removed) or "-"),
    )
    return exits.OK
