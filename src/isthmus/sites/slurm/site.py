"""The kind of site `slurm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid
from isthmus.sites.batch.pace import QUERY_HELP
from isthmus.sites.batch.site import BatchSite
from isthmus.sites.settings import Settings, read_user_options
from isthmus.sites.slurm.scheduler import SlurmCommands
from isthmus.sites.slurm.submission import NATIVE, check_native
from isthmus.sites.transport import TRANSPORT_HELP, open_transport
from isthmus.sites.workspace import WORKSPACE_HELP, Workspace

ACCOUNTING: Final = ("auto", "sacct", "none")
SUBMISSION_HELP: Final[dict[str, str]] = {
    "options": 'Options of every job: account, qos, constraint, reservation and the like, e.g. {"account": "phys"}.',
    "user_options": "Options, separated by commas, that users may set for their own tasks, e.g. qos,constraint (none).",
    "gpu_gres": "Name of the generic resource that counts accelerators (gpu).",
    "accounting": "Whether sacct can be asked: auto, sacct or none (auto).",
    "describe_seconds": "Seconds for which a look at the cluster's load is used again (5).",
}


class SlurmSite(BatchSite):
    """A Slurm cluster, asked through sbatch, squeue, sacct, scancel, sinfo and scontrol."""

    CONFIG_HELP: ClassVar[dict[str, str]] = {
        **TRANSPORT_HELP,
        **WORKSPACE_HELP,
        **SUBMISSION_HELP,
        "bin": "Directory of Slurm's commands at the site (found by PATH).",
        "query_seconds": QUERY_HELP,
        "command_timeout_seconds": "Seconds that one of Slurm's commands may take (60).",
        "submit_timeout_seconds": "Seconds that one sbatch may take (30).",
    }

    def __init__(self, name: str, config: Mapping[str, Any], blobs: BlobStore) -> None:
        """Read the operator's settings; Invalid names the wrong one. Nothing is contacted yet."""
        settings = Settings(config, self.CONFIG_HELP)
        transport = open_transport(settings)
        scheduler = SlurmCommands(
            transport,
            accounting=settings.choice("accounting", ACCOUNTING, "auto"),
            defaults=read_options(settings),
            user_options=read_user_options(settings, NATIVE),
            gpu_gres=settings.text("gpu_gres", "gpu"),
            bin_directory=settings.text("bin"),
            timeout_seconds=settings.seconds("command_timeout_seconds", 60.0),
            submit_timeout_seconds=settings.integer("submit_timeout_seconds", 30, least=1, most=3600),
            query_seconds=settings.seconds("query_seconds", 2.0, least=0.0),
        )
        super().__init__(
            name,
            transport=transport,
            workspace=Workspace(transport, blobs, settings, site=name),
            scheduler=scheduler,
            describe_seconds=settings.seconds("describe_seconds", 5.0),
        )


def read_options(settings: Settings) -> dict[str, str]:
    """The setting `options`; Invalid for an option that may not be set."""
    options = settings.mapping("options")
    wrong = check_native(options)
    if wrong:
        raise Invalid("options", wrong, remedy="Remove it.")
    return options
