"""Scenarios from YAML: an edge, which opens files. Any figure may be written as {value: ..., source: ...}."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isthmus.domain.errors import Invalid, NotFound
from isthmus.domain.task import Goal
from isthmus.domain.units import parse_duration
from isthmus.twin.federation import Router, SitePolicy, Workload
from isthmus.twin.readers import SwfLog, read_swf
from isthmus.twin.readers.carbon import read_carbon
from isthmus.twin.runnable import runnable
from isthmus.twin.scenario.model import MICROSECONDS_PER_KM, Brain, Link, Scenario, Shapes, Site, Source, Synthetic
from isthmus.twin.schedulers.outages import Outage

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Series = float | Annotated[list[float], Field(min_length=24)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Site(_Part):
    name: Annotated[str, Field(min_length=1)]
    processors: Annotated[int, Field(ge=1, le=10_000_000)]
    policy: SitePolicy = "easy"
    region: str = ""
    latitude: Annotated[float, Field(ge=-90, le=90)] = 0.0
    longitude: Annotated[float, Field(ge=-180, le=180)] = 0.0
    pue: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    watts_per_processor: NotNegative = 0.0
    tariff: Series = 0.0
    intensity: Series | str = 0.0
    price_per_processor: Positive | None = None


class _Link(_Part):
    ends: Annotated[list[str], Field(min_length=2, max_length=2)]
    gbit_per_second: Positive
    km: NotNegative | None = None
    fibre: Literal["solid", "hollow"] = "solid"
    latency_ms: NotNegative | None = None
    price_per_gbit: Positive | None = None


class _Outage(_Part):
    site: str
    begin: Annotated[int | str, Field(alias="from")]
    finish: Annotated[int | str, Field(alias="to")]
    processors: Annotated[int, Field(ge=1)] | None = None
    drain: bool = False


class _Synthetic(_Part):
    jobs_per_day: Positive
    days: Positive
    mean_run_seconds: Positive = 3600.0
    run_spread: NotNegative = 1.5
    most_processors: Annotated[int, Field(ge=1)] = 64
    mean_input_bytes: NotNegative = 0.0
    overestimate: Annotated[float, Field(ge=1)] = 3.0
    like: str | None = None


class _Work(_Part):
    home: str
    swf: str | None = None
    days: Positive | None = None
    synthetic: _Synthetic | None = None


class _Scenario(_Part):
    name: Annotated[str, Field(min_length=1)]
    router: Router = "holes"
    rational: bool = True
    brain: Brain = "fast"
    goal: Literal["soonest", "cheapest", "greenest"] = "soonest"
    round_seconds: Annotated[int, Field(ge=1)] = 1
    arrivals: Positive = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    sites: Annotated[list[_Site], Field(min_length=1)]
    links: list[_Link] = []
    outages: list[_Outage] = []
    workload: Annotated[list[_Work], Field(min_length=1)]


def load_scenario(place: str) -> Scenario:
    """The scenario in a YAML file, or one of the package by its name (`east-data-west-compute`).

    Paths of logs are relative to the file. NotFound, or Invalid with the dotted path of what is wrong.
    """
    path = Path(place)
    packaged = resources.files("isthmus.twin.scenario") / "packaged" / f"{place}.yaml"
    if path.is_file():
        text, folder = path.read_text("utf-8"), path.parent
    elif "/" not in place and packaged.is_file():
        text, folder = packaged.read_text("utf-8"), Path()
    else:
        raise NotFound(
            f"There is no scenario {place}.", remedy=f"Give a YAML file, or one of: {', '.join(packaged_names())}."
        )
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid("scenario", f"{place} is no YAML: {error}", remedy="Correct it.") from error
    return scenario_of(tree, folder)


def packaged_names() -> list[str]:
    """The scenarios that come with the package."""
    folder = resources.files("isthmus.twin.scenario") / "packaged"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def scenario_of(tree: Any, folder: Path) -> Scenario:
    """The scenario in a parsed document."""
    sources: list[Source] = []
    try:
        given = _Scenario.model_validate(_with_kinds(_without_sources(tree, "", sources)))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "scenario"
        raise Invalid(field, f"{first['msg']}.", remedy="See docs/twin.md.") from error
    names = [site.name for site in given.sites]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise Invalid(f"sites.{index}.name", f"There are two sites {name}.", remedy="Give each its own name.")
    left_out: list[str] = []
    sites = tuple(
        Site(
            **(
                site.model_dump()
                | {"tariff": _series(site.tariff), "intensity": _intensity(site.intensity, folder, left_out)}
            )
        )
        for site in given.sites
    )
    links = tuple(_link(link, index, names) for index, link in enumerate(given.links))
    synthetic: list[Synthetic] = []
    traced: list[Workload] = []
    for index, part in enumerate(given.workload):
        if part.home not in names:
            raise Invalid(
                f"workload.{index}.home", f"There is no site {part.home}.", remedy=f"Use one of {', '.join(names)}."
            )
        if (part.swf is None) == (part.synthetic is None):
            raise Invalid(f"workload.{index}", "It needs swf or synthetic, one of the two.", remedy="Give one.")
        if part.synthetic is not None:
            like = part.synthetic.like
            size = sites[names.index(part.home)].processors
            shapes = shapes_of(_log(folder / like, size, None, left_out), like) if like else None
            synthetic.append(Synthetic(home=part.home, **(part.synthetic.model_dump() | {"like": shapes})))
        elif part.swf is not None:
            home = names.index(part.home)
            traced.append(_traced(folder / part.swf, home, sites[home].processors, part.days, left_out))
    fields = Workload.__dataclass_fields__
    joined = Workload(**{f: np.concatenate([getattr(w, f) for w in traced]) for f in fields}) if traced else None
    if not links and any(part.mean_input_bytes for part in synthetic) and len(sites) > 1:
        raise Invalid("links", "Jobs have inputs, and there are no links.", remedy="Give links.")
    return Scenario(
        name=given.name,
        sites=sites,
        links=links,
        outages=tuple(_outage(outage, index, sites) for index, outage in enumerate(given.outages)),
        router=given.router,
        rational=given.rational,
        brain=given.brain,
        goal=Goal(given.goal),
        round_seconds=given.round_seconds,
        arrivals=given.arrivals,
        seed=given.seed,
        synthetic=tuple(synthetic),
        traced=joined,
        sources=tuple(sources),
        left_out=tuple(left_out),
    )


def _without_sources(node: Any, path: str, sources: list[Source]) -> Any:
    if isinstance(node, dict):
        if set(node) == {"value", "source"}:
            sources.append(Source(path=path, source=str(node["source"])))
            return node["value"]
        return {key: _without_sources(item, f"{path}.{key}".lstrip("."), sources) for key, item in node.items()}
    if isinstance(node, list):
        return [_without_sources(item, f"{path}.{index}", sources) for index, item in enumerate(node)]
    return node


def _with_kinds(tree: Any) -> Any:
    """The document with each site's `kind` written out: what the site says itself counts more."""
    if not (isinstance(tree, dict) and isinstance(tree.get("sites"), list)):
        return tree
    kinds = tree.get("kinds", {})
    if not (isinstance(kinds, dict) and all(isinstance(kind, dict) for kind in kinds.values())):
        raise Invalid("kinds", "They are no names with figures.", remedy="Write kinds: {western: {pue: 1.2}}.")
    sites = []
    for index, site in enumerate(tree["sites"]):
        kind = site.get("kind") if isinstance(site, dict) else None
        if kind is None:
            sites.append(site)
        elif kind not in kinds:
            raise Invalid(
                f"sites.{index}.kind", f"There is no kind {kind}.", remedy=f"Use one of {', '.join(kinds) or 'kinds:'}."
            )
        else:
            sites.append({**kinds[kind], **{name: value for name, value in site.items() if name != "kind"}})
    return {**{name: value for name, value in tree.items() if name != "kinds"}, "sites": sites}


def _series(given: float | list[float]) -> np.ndarray:
    return np.full(24, float(given)) if isinstance(given, int | float) else np.array(given, dtype=np.float64)


def _intensity(given: float | list[float] | str, folder: Path, left_out: list[str]) -> np.ndarray:
    """A series as written, or that of a file of Electricity Maps, of the plants alone, from its first hour on."""
    if not isinstance(given, str):
        return _series(given)
    series = read_carbon(_file(folder / given))
    left_out += [f"{given}, line {line.number}: {line.cause}" for line in series.bad_lines]
    return series.direct


def _file(path: Path) -> Path:
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", remedy="Paths are relative to the scenario's file.")
    return path


def _link(link: _Link, index: int, names: list[str]) -> Link:
    for end in link.ends:
        if end not in names:
            raise Invalid(f"links.{index}.ends", f"There is no site {end}.", remedy=f"Use two of {', '.join(names)}.")
    if (link.km is None) == (link.latency_ms is None) or link.ends[0] == link.ends[1]:
        raise Invalid(f"links.{index}", "It needs two ends, and km or latency_ms.", remedy="Give one of the two.")
    seconds = (
        (link.km or 0) * MICROSECONDS_PER_KM[link.fibre] / 1e6 if link.latency_ms is None else link.latency_ms / 1e3
    )
    return Link(
        ends=(link.ends[0], link.ends[1]),
        bytes_per_second=link.gbit_per_second * 1e9 / 8,
        latency_seconds=seconds,
        km=link.km or 0.0,
        fibre=link.fibre,
        price_per_gbit=link.price_per_gbit,
    )


def _outage(outage: _Outage, index: int, sites: tuple[Site, ...]) -> tuple[str, Outage]:
    place = next((site for site in sites if site.name == outage.site), None)
    if place is None:
        names = ", ".join(site.name for site in sites)
        raise Invalid(f"outages.{index}.site", f"There is no site {outage.site}.", remedy=f"Use one of {names}.")
    begin = parse_duration(outage.begin, f"outages.{index}.from")
    finish = parse_duration(outage.finish, f"outages.{index}.to")
    if not 0 <= begin < finish:
        raise Invalid(f"outages.{index}", "It does not last.", remedy="Give from, and a later to: 26h, 2d, seconds.")
    taken = outage.processors or place.processors
    if taken > place.processors:
        raise Invalid(f"outages.{index}.processors", f"{place.name} has {place.processors}.", remedy="Take no more.")
    return place.name, Outage(begin_seconds=begin, finish_seconds=finish, processors=taken, drain=outage.drain)


def shapes_of(log: SwfLog, name: str) -> Shapes:
    """What a log's jobs are like; Invalid where it holds none. Its first submission is taken for midnight of a Monday,
    where the header does not say when that was (UnixStartTime, in UTC)."""
    if not len(log):
        raise Invalid("like", f"{name} holds no job that the site can run.", remedy="Give another log.")
    begun = int(log.header.get("UnixStartTime", "0").split()[0] or 0)
    monday = 3 * 86400 if begun > 0 else 0  # 1970-01-01 was a Thursday
    hour = (log.submit_seconds - (0 if begun > 0 else log.submit_seconds.min()) + begun + monday) // 3600 % 168
    counts = np.bincount(hour, minlength=168).astype(np.float64)
    return Shapes(
        name=name,
        processors=log.requested_processors,
        run_seconds=log.run_seconds,
        requested_seconds=log.requested_seconds,
        hourly=counts / counts.mean(),
    )


def _traced(file: Path, home: int, processors: int, days: float | None, left_out: list[str]) -> Workload:
    log = _log(file, processors, days, left_out)
    none = np.zeros(len(log), dtype=np.int64)
    return Workload(
        submit_seconds=log.submit_seconds,
        run_seconds=log.run_seconds,
        processors=log.requested_processors,
        requested_seconds=log.requested_seconds,
        home=none + home,
        input_bytes=none,
    )


def _log(file: Path, processors: int, days: float | None, left_out: list[str]) -> SwfLog:
    log = read_swf(_file(file))
    left_out += [f"{file.name}, line {line.number}: {line.cause}" for line in log.bad_lines]
    log, left = runnable(log, processors, needs_request=True)
    left_out += [f"{file.name}: {len(one.job_ids)} jobs: {one.cause}" for one in left]
    if len(log):
        log = replace(log, submit_seconds=log.submit_seconds - log.submit_seconds.min())
    if days is not None:
        log = log.where(log.submit_seconds < days * 86400)
    return log
