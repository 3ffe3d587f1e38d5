"""A declared network from a document: the lab's own topology file, and what real routers and sites need beside it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, TypeVar

from isthmus.domain.errors import Invalid
from isthmus.domain.network import Control, DeclaredNetwork, NetLink, NetNode, NodeKind
from isthmus.domain.quantities import read_rate, read_share, read_time

_TOP = ("name", "routers", "control", "sites", "links")
_ROUTER = ("address", "port", "locator", "control", "longitude", "latitude")
_SITE = ("address", "address4", "port", "prefixes", "daemons", "programs", "longitude", "latitude")
_LINK = ("name", "ends", "rate", "delay", "jitter", "loss", "mtu", "price_per_gb", "interfaces", "offload")
_LEAST_MTU, _GREATEST_MTU = 1280, 65_535
_Value = TypeVar("_Value")


def read_network(document: object) -> DeclaredNetwork:
    """The network in a document; raises Invalid, which names the field. What only the lab needs is passed over."""
    top = _mapping(document, "", _TOP)
    routers = top.get("routers") or {}
    if isinstance(routers, list):
        routers = dict.fromkeys(_text(name, f"routers.{place}") for place, name in enumerate(routers))
    nodes = [_router(name, value) for name, value in _mapping(routers, "routers").items()]
    nodes += [_site(name, value) for name, value in _mapping(top.get("sites") or {}, "sites").items()]
    links = top.get("links") or []
    if not isinstance(links, list):
        raise Invalid("links", "is not a list.", remedy="Write one link on a line, as `- ends: [r1, r2]`.")
    return DeclaredNetwork(nodes=tuple(nodes), links=tuple(_link(item, place) for place, item in enumerate(links)))


def _router(name: str, value: object) -> NetNode:
    where = f"routers.{name}"
    given = _mapping(value or {}, where, _ROUTER)
    return _node(
        where,
        name=name,
        kind=NodeKind.ROUTER,
        address=_take(given, "address", where, _address, ""),
        port=_take(given, "port", where, _port, 862),
        locator=_take(given, "locator", where, _locator, ""),
        control=_take(given, "control", where, _control, None),
        longitude=_take(given, "longitude", where, _degrees, None),
        latitude=_take(given, "latitude", where, _degrees, None),
    )


def _site(name: str, value: object) -> NetNode:
    where = f"sites.{name}"
    given = _mapping(value or {}, where, _SITE)
    prefixes = given.get("prefixes") or []
    if not isinstance(prefixes, list):
        raise Invalid(f"{where}.prefixes", "is not a list.", remedy="Write [fd10:1::/64, 10.65.1.0/24].")
    return _node(
        where,
        name=name,
        kind=NodeKind.SITE,
        address=_take(given, "address", where, _address, ""),
        port=_take(given, "port", where, _port, 862),
        address4=_take(given, "address4", where, _address4, ""),
        prefixes=tuple(_prefix(item, f"{where}.prefixes.{place}") for place, item in enumerate(prefixes)),
        longitude=_take(given, "longitude", where, _degrees, None),
        latitude=_take(given, "latitude", where, _degrees, None),
    )


def _node(where: str, **fields: Any) -> NetNode:
    try:
        return NetNode(**fields)
    except Invalid as error:
        raise Invalid(where, error.cause, remedy=error.remedy) from None


def _link(value: object, place: int) -> NetLink:
    where = f"links.{place}"
    given = _mapping(value, where, _LINK)
    ends = _two(given.get("ends"), f"{where}.ends", "[r1, r2]")
    interfaces = (
        _two(given["interfaces"], f"{where}.interfaces", "[eth0, eth1]") if given.get("interfaces") else ("", "")
    )
    try:
        return NetLink(
            name=_text(given.get("name", "-".join(ends)), f"{where}.name"),
            ends=ends,
            capacity_bits_per_second=_take(given, "rate", where, read_rate, None),
            delay_seconds=_take(given, "delay", where, read_time, None),
            jitter_seconds=_take(given, "jitter", where, read_time, 0.0),
            loss=_take(given, "loss", where, read_share, 0.0),
            mtu_bytes=_take(given, "mtu", where, _mtu, 1500),
            price_per_gb=_take(given, "price_per_gb", where, _price, Decimal(0)),
            interfaces=interfaces,
        )
    except Invalid as error:
        field = error.field if error.field.startswith(where) else f"{where}.{error.field}"
        raise Invalid(field, error.cause, remedy=error.remedy) from None


def _control(value: object, where: str) -> Control:
    given = _mapping(value, where, ("socket", "agent"))
    socket = _text(given.get("socket"), f"{where}.socket")
    if not socket.startswith("/"):
        raise Invalid(f"{where}.socket", f"{socket!r} is not an absolute path.", remedy="Name the daemon's socket.")
    return Control(socket=socket, agent=_text(given.get("agent", ""), f"{where}.agent"))


def _take(
    given: Mapping[str, Any], key: str, where: str, read: Callable[[object, str], _Value], default: _Value
) -> _Value:
    return default if given.get(key) is None else read(given[key], f"{where}.{key}")


def _mapping(value: object, where: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Invalid(where or "network", "is not a mapping.", remedy="Write names with values, one on a line.")
    for key in value:
        if known is not None and key not in known:
            near = get_close_matches(key, known, 1, 0.5)
            remedy = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(known)}."
            raise Invalid(f"{where}.{key}" if where else key, "There is no such field.", remedy=remedy)
    return value


def _two(value: object, where: str, example: str) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise Invalid(where, f"{value!r} are not two names.", remedy=f"Write {example}.")
    return _text(value[0], f"{where}.0"), _text(value[1], f"{where}.1")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise Invalid(
            where, f"{value!r} is not a text.", remedy="Write a name, in quotes where it looks like a number."
        )
    return value


def _address(value: object, where: str) -> str:
    try:
        return str(ipaddress.ip_address(_text(value, where)))
    except ValueError:
        raise Invalid(where, f"{value!r} is not an address.", remedy="Such as 10.65.1.1 or fd10:1::1.") from None


def _address4(value: object, where: str) -> str:
    found = _address(value, where)
    if ":" in found:
        raise Invalid(where, f"{value!r} is not IPv4.", remedy="Such as 10.65.1.1.")
    return found


def _prefix(value: object, where: str) -> str:
    try:
        return str(ipaddress.ip_network(_text(value, where)))
    except ValueError:
        raise Invalid(where, f"{value!r} is not a prefix.", remedy="Such as fd10:5::/64, without host bits.") from None


def _locator(value: object, where: str) -> str:
    found = _prefix(value, where)
    if ":" not in found:
        raise Invalid(where, f"{value!r} is not IPv6.", remedy="Such as fc00:1::/32.")
    return found


def _port(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65_535:
        raise Invalid(where, f"{value!r} is no port.", remedy="1 to 65535.")
    return value


def _mtu(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not _LEAST_MTU <= value <= _GREATEST_MTU:
        raise Invalid(where, f"{value!r} is no size of packets.", remedy=f"Bytes, {_LEAST_MTU} to {_GREATEST_MTU}.")
    return value


def _degrees(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Invalid(
            where, f"{value!r} is not a number.", remedy="Degrees, such as 114.9; west and south are negative."
        )
    return float(value)


def _price(value: object, where: str) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        price = Decimal(-1)
    if isinstance(value, bool) or not price.is_finite() or price < 0:
        raise Invalid(where, f"{value!r} is not a price.", remedy="An amount for 10^9 bytes, such as 0.02.")
    return price
