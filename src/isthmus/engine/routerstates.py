"""What every router shall do, from the declared network, the policies that are wanted and the slices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from isthmus.domain.network import NetworkView, NodeKind
from isthmus.engine.steering import Wanted
from isthmus.network.control.desired import DesiredState, Repair, SlicedInterface
from isthmus.network.control.plan import Attachment, Fabric, Router, Steering, Way


class RouterStates:
    """Makes the states; remembers the repairs for as long as the declaration stays."""

    def __init__(self) -> None:
        self._declared: object = None
        self._repairs: Mapping[str, tuple[Repair, ...]] = {}

    def __call__(
        self, view: NetworkView, wanted: Sequence[Wanted], sliced: Mapping[str, tuple[SlicedInterface, ...]]
    ) -> dict[str, DesiredState]:
        """The desired state of every router that has a locator, by its name."""
        declared = (view.nodes, tuple(one.link for one in view.links))
        if declared != self._declared:
            from isthmus.network.control.repair import repairs

            self._declared, self._repairs = declared, repairs(view)
        locators = {node.name: node.locator for node in view.nodes if node.locator}
        sites = {node.name: node for node in view.nodes if node.kind is NodeKind.SITE and node.prefixes}
        attachments = [
            Attachment(
                site=_at(link.source, link.target),
                router=link.target,
                prefixes=tuple(
                    prefix for prefix in sites[link.source].prefixes if ":" in prefix or sites[link.source].address4
                ),
                neighbour4=sites[link.source].address4 or None,
            )
            for link in sorted(view.links, key=lambda link: (link.source, link.target))
            if link.source in sites and link.target in locators
        ]
        from isthmus.network.candidates import waypoints

        fabric = Fabric([Router(name=name, locator=locator) for name, locator in locators.items()], attachments)
        known = {attachment.site for attachment in attachments}
        steerings = [
            Steering(
                name=_short(one.name),
                source=_at(one.source, one.nodes[1]),
                target=_at(one.target, one.nodes[-2]),
                ways=(Way(via=via),),
                match=one.match,
                dscp=one.slice_dscp or None,
            )
            for one in wanted
            if (via := waypoints(view, one.nodes[1:-1])) is not None
            and {_at(one.source, one.nodes[1]), _at(one.target, one.nodes[-2])} <= known
        ]
        return fabric.states(steerings, sliced, self._repairs)


def _short(name: str) -> str:
    """A name of at most 17 characters for a router, which adds the prefix to it."""
    return name if len(name) <= 17 else f"{name[:8]}-{hashlib.blake2s(name.encode()).hexdigest()[:8]}"


def _at(site: str, router: str) -> str:
    """A site where it is joined to one router; it may be joined to several."""
    return f"{site}@{router}"
