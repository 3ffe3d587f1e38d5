"""Whether a network can be emulated here: root, the programs, and a kernel that does what is needed."""

from __future__ import annotations

import functools
import os
import shutil

from pyroute2.netlink.exceptions import NetlinkError

from isthmus.domain.errors import Forbidden
from isthmus.lab import packages, registry
from isthmus.lab.errors import LabError
from isthmus.lab.network.places import namespace_of
from isthmus.lab.network.plant import Plant
from isthmus.lab.network.topology import Link, SiteNode, Topology
from isthmus.lab.processes import Daemons


def check_root() -> None:
    """Raise Forbidden without root, LabError without the programs."""
    if os.geteuid():
        raise Forbidden(
            "The emulated network makes network namespaces, which only root may do.", remedy="Run the same as root."
        )
    reason = packages.missing()["network"]
    if reason:
        raise LabError(reason, "Run as root: python -m isthmus.lab.packages")


@functools.cache
def kernel_reason() -> str | None:
    """What the kernel, or a container around us, refuses of what a network needs; None when it refuses nothing."""
    link = Link(name="probe", ends=("r", "s"), rate_bits_per_second=1e6, delay_seconds=0.001, loss=0.5)
    name = f"p{os.getpid()}"
    topology = Topology(name=name, routers=("r",), sites=(SiteNode(name="s"),), links=(link,))
    spaces = [namespace_of(topology, node) for node in topology.nodes]
    directory = registry.new_directory("isthmus-probe-")
    daemons = Daemons(directory)
    try:
        daemons.make_namespaces(spaces)
        with Plant(topology) as plant:
            plant.build()
            plant.queue()
    except (LabError, NetlinkError, OSError) as error:
        return f"the kernel refuses what an emulated network needs: {error}"
    finally:
        daemons.close()
        shutil.rmtree(directory, ignore_errors=True)
    return None
