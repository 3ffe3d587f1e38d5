"""Which packet belongs to which policy and slice: one table of nftables, a function of the desired state.

A policy has a number; its packets carry it in some bits of the packet mark, which a rule leads to the policy's own routing
table. A policy with more marks comes before one with fewer, a longer destination before a shorter one.
"""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.network.control.desired import DesiredState, Match, Policy

FAMILY, TABLE = "inet", "isthmus_control"
MARK_SHIFT = 16
MARK_MASK = 0x0FFF_0000
"""The bits of the packet mark that are ours; the others are left as they are."""
QDISC = 0x1575
"""Major number of our queueing discipline on a sliced interface."""
_OPTION = "0x1e04"
"""Type 0x1e, four bytes."""
# Right behind the IPv6 header of 40 bytes: next header, length, then the first option.
_OPTION_AT, _ID_AT = "@nh,336,16", "@nh,352,32"


def mark_of(number: int) -> int:
    """The packet mark of a policy's number."""
    return number << MARK_SHIFT


def ruleset(state: DesiredState, numbers: Mapping[str, int]) -> str:
    """The commands that put our table in place of the former one, in one transaction; without need, none is left."""
    table = f"table {FAMILY} {TABLE}"
    text = f"add {table}\ndelete {table}\n"
    if not state.policies and not state.interfaces:
        return text
    select = "".join(
        f"  {words} meta mark set meta mark & {~MARK_MASK & 0xFFFFFFFF:#010x} | {mark_of(numbers[policy.name]):#x} return\n"
        for policy in sorted(state.policies, key=_order)
        for words in _conditions(policy)
    )
    outer = "".join(
        f"  meta mark & {MARK_MASK:#010x} == {mark_of(numbers[policy.name]):#x} ip6 nexthdr {{ 4, 41, 43 }} "
        f"ip6 dscp set {policy.dscp}\n"
        for policy in state.policies
        if policy.dscp is not None
    )
    slices = "".join(
        f'  oifname "{interface.name}" {family} dscp {item.dscp} meta priority set {QDISC:x}:{number:x}\n'
        for interface in state.interfaces
        for number, item in enumerate(interface.slices, 2)
        for family in ("ip6", "ip")
    )
    return (
        f"{text}{table} {{\n"
        f" chain select {{\n{select} }}\n"
        " chain forwarded {\n  type filter hook prerouting priority mangle; policy accept;\n  jump select\n }\n"
        " chain own {\n  type route hook output priority mangle; policy accept;\n  jump select\n }\n"
        f" chain outer {{\n  type filter hook postrouting priority mangle; policy accept;\n{outer} }}\n"
        f" chain slices {{\n  type filter hook postrouting priority srcnat; policy accept;\n{slices} }}\n"
        "}\n"
    )


def _order(policy: Policy) -> tuple[int, int, str]:
    match = policy.match
    marks = sum(value is not None for value in (match.dscp, match.flow_label, match.application_id, match.source))
    return -policy.network.prefixlen, -marks, policy.name


def _conditions(policy: Policy) -> list[str]:
    """The words that select a policy's packets: two ways where the option may be in either of two headers."""
    family = f"ip{'6' if policy.network.version == 6 else ''}"
    words = f"{family} daddr {policy.destination}"
    match: Match = policy.match
    if match.source is not None:
        words += f" {family} saddr {match.source}"
    if match.dscp is not None:
        words += f" {family} dscp {match.dscp}"
    if match.flow_label is not None:
        words += f" ip6 flowlabel {match.flow_label:#x}"
    if match.application_id is None:
        return [words]
    return [
        f"{words} ip6 nexthdr {header} {_OPTION_AT} {_OPTION} {_ID_AT} {match.application_id:#x}" for header in (0, 60)
    ]
