"""A topology from YAML: every error names the field and says what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from isthmus.domain.errors import Invalid, Refused
from isthmus.domain.quantities import read_rate, read_share, read_time
from isthmus.lab.network.topology import Link, SiteNode, Topology

_NAME = re.compile(r"[a-z][a-z0-9-]{0,11}")
_NAME_REMEDY = "Use 1 to 12 of a-z, 0-9 and -, a letter first: an interface's name is made of it."
_SITE_MTU, _CORE_MTU = 1500, 2000
"""Between routers there is room for the headers of segment routing around a packet of 1500 bytes."""
DAEMONS: dict[str, dict[str, int]] = {
    "ssh": {},
    "s3": {},
    "slurm": {"nodes": 2, "cpus_per_node": 8, "gpu_nodes": 0, "accounting": False},
}
"""Kind of daemon -> its settings with their defaults: numbers of things, or yes and no."""
MOST_NODES = 500


class _Problems:
    """Collects wrong fields, so that all are told at once."""

    def __init__(self) -> None:
        self.found: list[Invalid] = []

    def add(self, field: str, cause: str, remedy: str = "") -> None:
        self.found.append(Invalid(field, cause, remedy=remedy))

    def take(self, read: Callable[[object, str], Any], value: object, field: str, default: Any) -> Any:
        try:
            return read(value, field)
        except Invalid as error:
            self.found.append(error)
            return default

    def mapping(self, value: object, field: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            self.add(field, f"{value!r} is not a mapping.", "Write names with values, one on a line.")
            return {}
        if known is not None:
            for key in value:
                if key not in known:
                    near = get_close_matches(key, known, 1, 0.5)
                    remedy = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(known)}."
                    self.add(f"{field}.{key}" if field else key, "There is no such field.", remedy)
        return {key: item for key, item in value.items() if known is None or key in known}

    def end(self) -> None:
        if self.found:
            first = self.found[0]
            error = Invalid(first.field, first.cause, remedy=first.remedy)
            error.__dict__["fields"] = self.found
            raise error


def read_file(path: Path) -> Topology:
    """The topology in a YAML file; raises Invalid (all wrong fields are in its `fields`) or Refused."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(
            f"{path} cannot be read: {error.strerror}.", remedy="Name a file that holds a topology."
        ) from None
    return read_text(text)


def read_text(text: str) -> Topology:
    """The topology in a YAML text; raises Invalid (all wrong fields are in its `fields`) or Refused."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refused(f"This is not YAML: {error}", remedy="See docs/lab.md for an example.") from None
    problems = _Problems()
    top = problems.mapping(raw, "", ("name", "routers", "control", "sites", "links"))
    name = problems.take(_read_name, top.get("name", "lab"), "name", "lab")
    routers = _read_routers(top.get("routers"), problems)
    sites = [_read_site(site, value, problems) for site, value in problems.mapping(top.get("sites"), "sites").items()]
    for site in sites:
        if site.name in routers:
            problems.add(f"sites.{site.name}", "A router has this name already.", "Give every node its own name.")
    nodes = (*routers, *(site.name for site in sites))
    if not sites:
        problems.add("sites", "There is no site.", "Name at least one under `sites:`.")
    if len(nodes) > MOST_NODES:
        problems.add("routers", f"{len(nodes)} nodes are too many.", f"Use at most {MOST_NODES}.")
    links = _read_links(top.get("links"), nodes, frozenset(routers), problems)
    control = top.get("control", False)
    if not isinstance(control, bool):
        problems.add("control", f"{control!r} is neither true nor false.", "Write true or false.")
    problems.end()
    return Topology(name=name, routers=tuple(routers), sites=tuple(sites), links=tuple(links), control=bool(control))


def describe(topology: Topology) -> dict[str, Any]:
    """A topology in the form that `read_text` reads."""
    return {
        "name": topology.name,
        "routers": list(topology.routers),
        "control": topology.control,
        "sites": {
            site.name: {
                "daemons": {kind: dict(settings) for kind, settings in site.daemons.items()},
                "programs": {name: list(words) for name, words in site.programs.items()},
            }
            for site in topology.sites
        },
        "links": [
            {
                "name": link.name,
                "ends": list(link.ends),
                **({"rate": f"{link.rate_bits_per_second:f} bit/s"} if link.rate_bits_per_second else {}),
                "delay": f"{link.delay_seconds:f} s",
                "jitter": f"{link.jitter_seconds:f} s",
                "loss": link.loss,
                "mtu": link.mtu_bytes,
                "offload": link.offload,
                "price_per_gb": str(link.price_per_gb),
            }
            for link in topology.links
        ],
    }


def _read_name(value: object, field: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Invalid(field, f"{value!r} is not a name.", remedy=_NAME_REMEDY)
    return value


def _read_routers(value: object, problems: _Problems) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        problems.add("routers", f"{value!r} is not a list.", "Write [r1, r2].")
        return []
    names = [problems.take(_read_name, item, f"routers.{index}", "") for index, item in enumerate(value)]
    for index, name in enumerate(names):
        if name and name in names[:index]:
            problems.add(f"routers.{index}", f"{name} is named twice.", "Give every node its own name.")
    return [name for name in names if name]


def _read_site(name: str, value: object, problems: _Problems) -> SiteNode:
    where = f"sites.{name}"
    problems.take(_read_name, name, where, "")
    fields = problems.mapping(value, where, ("daemons", "programs"))
    daemons: dict[str, Mapping[str, int]] = {}
    given = problems.mapping(fields.get("daemons"), f"{where}.daemons", tuple(DAEMONS))
    for kind, settings in given.items():
        place = f"{where}.daemons.{kind}"
        known = problems.mapping(settings, place, tuple(DAEMONS[kind]))
        for key, found in known.items():
            if isinstance(DAEMONS[kind][key], bool):
                if not isinstance(found, bool):
                    problems.add(f"{place}.{key}", f"{found!r} is neither yes nor no.", "Write true or false.")
            elif not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= 256:
                problems.add(f"{place}.{key}", f"{found!r} is not a number of things.", "Write 0 to 256.")
        daemons[kind] = DAEMONS[kind] | known
    programs: dict[str, tuple[str, ...]] = {}
    for program, words in problems.mapping(fields.get("programs"), f"{where}.programs").items():
        place = f"{where}.programs.{program}"
        problems.take(_read_name, program, place, "")
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            problems.add(
                place, f"{words!r} is not a command.", 'Write a list of words: ["isthmus", "agent", "--url", "..."].'
            )
        else:
            programs[program] = tuple(words)
    return SiteNode(name=name, daemons=daemons, programs=programs)


def _read_links(value: object, nodes: tuple[str, ...], routers: frozenset[str], problems: _Problems) -> list[Link]:
    if not isinstance(value, list):
        if value is not None:
            problems.add("links", f"{value!r} is not a list.", "Write one link on a line, as `- ends: [r1, r2]`.")
        return []
    links: list[Link] = []
    for index, item in enumerate(value):
        where = f"links.{index}"
        known = ("name", "ends", "rate", "delay", "jitter", "loss", "mtu", "offload", "price_per_gb")
        fields = problems.mapping(item, where, known)
        ends = _read_ends(fields.get("ends"), f"{where}.ends", nodes, problems)
        if ends is None:
            continue
        if any(set(ends) == set(link.ends) for link in links):
            problems.add(f"{where}.ends", f"{ends[0]} and {ends[1]} are joined already.", "Put a router between them.")
        name = fields.get("name", "-".join(ends))
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,25}", name):
            problems.add(f"{where}.name", f"{name!r} is not a name.", "Use up to 26 of a-z, 0-9 and -.")
        elif name in nodes or any(name == link.name for link in links):
            problems.add(f"{where}.name", f"{name} is the name of something else.", "Give every link its own name.")
        both_routers = routers.issuperset(ends)
        delay = problems.take(read_time, fields.get("delay", 0), f"{where}.delay", None)
        jitter = problems.take(read_time, fields.get("jitter", 0), f"{where}.jitter", 0.0)
        if delay is not None and jitter > delay:
            problems.add(
                f"{where}.jitter", "The jitter is larger than the delay.", "A packet cannot come before it left."
            )
        rate = fields.get("rate")
        offload = fields.get("offload", False)
        if not isinstance(offload, bool):
            problems.add(f"{where}.offload", f"{offload!r} is neither true nor false.", "Write true or false.")
        elif offload and fields.get("loss"):
            problems.add(
                f"{where}.offload", "A loss would take whole trains of packets.", "Let the next link have the loss."
            )
        links.append(
            Link(
                name=str(name),
                ends=ends,
                rate_bits_per_second=None if rate is None else problems.take(read_rate, rate, f"{where}.rate", None),
                delay_seconds=delay or 0.0,
                jitter_seconds=jitter,
                loss=problems.take(read_share, fields.get("loss", 0), f"{where}.loss", 0.0),
                mtu_bytes=problems.take(
                    _read_mtu, fields.get("mtu", _CORE_MTU if both_routers else _SITE_MTU), f"{where}.mtu", 1500
                ),
                offload=offload is True,
                price_per_gb=problems.take(_read_price, fields.get("price_per_gb", 0), f"{where}.price_per_gb", 0),
            )
        )
    return links


def _read_ends(value: object, where: str, nodes: tuple[str, ...], problems: _Problems) -> tuple[str, str] | None:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(end, str) for end in value):
        problems.add(where, f"{value!r} are not the two ends of a link.", "Write [r1, r2].")
        return None
    unknown = [end for end in value if end not in nodes]
    for end in unknown:
        near = get_close_matches(end, nodes, 1, 0.5)
        problems.add(
            where, f"There is no node {end}.", f"Did you mean {near[0]}?" if near else "Name it in routers or sites."
        )
    if value[0] == value[1] and not unknown:
        problems.add(where, "Both ends are the same node.", "Join two nodes.")
        return None
    return None if unknown else (value[0], value[1])


def _read_mtu(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1280 <= value <= 9216:
        raise Invalid(
            field, f"{value!r} is not a size of packets.", remedy="Write bytes, 1280 (least of IPv6) to 9216."
        )
    return value


def _read_price(value: object, field: str) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        price = Decimal(-1)
    if isinstance(value, bool) or not price.is_finite() or price < 0:
        raise Invalid(field, f"{value!r} is not a price.", remedy="Write an amount for 10^9 bytes, such as 0.02.")
    return price
