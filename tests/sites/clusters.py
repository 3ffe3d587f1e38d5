"""Sites of the session's clusters, with the settings that all tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isthmus.data.directory import DirectoryBlobStore
from isthmus.lab.slurm import SlurmCluster
from isthmus.sites.slurm import SlurmSite


def open_site(cluster: SlurmCluster, directory: Path, blobs: Path, **settings: Any) -> SlurmSite:
    """The cluster through its commands on this host, jobs run as ordinary accounts with roots below `directory`."""
    config = {
        "switch_account": "runuser",
        "env": cluster.environment,
        "root": f"{directory}/roots-{cluster.name}/{{account}}",
        "describe_seconds": 0.1,
        "query_seconds": 0,
    }
    return SlurmSite(cluster.name, config | settings, DirectoryBlobStore(blobs))
