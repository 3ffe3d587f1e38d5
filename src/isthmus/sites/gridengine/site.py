"""The kind of site `gridengine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid
from isthmus.sites.batch.pace import QUERY_HELP
from isthmus.sites.batch.site import BatchSite
from isthmus.sites.gridengine.scheduler import GridEngineCommands
from isthmus.sites.gridengine.submission import NATIVE, Resources, check_native
from isthmus.sites.settings import Settings, read_user_options
from isthmus.sites.transport import TRANSPORT_HELP, open_transport
from isthmus.sites.workspace import WORKSPACE_HELP, Workspace


class GridEngineSite(BatchSite):
    """A Grid Engine cell, asked through qsub, qstat, qacct, qdel and qhost; a pool is a cluster queue."""

    CONFIG_HELP: ClassVar[dict[str, str]] = {
        **TRANSPORT_HELP,
        **WORKSPACE_HELP,
        "options": 'Options of every job: project, priority, resources, reservation, account, e.g. {"project": "phys"}.',
        "user_options": "Options, separated by commas, that users may set for their own tasks, e.g. project (none).",
        "bin": "Directory of Grid Engine's commands at the site (found by PATH).",
        "pe": "Parallel environment for several processors on one node (smp).",
        "pe_nodes": "Parallel environment for several nodes (none: such jobs are rejected).",
        "gpu_resource": "Consumable that counts accelerators (gpu).",
        "gpu_kind": "Kind of the accelerators, e.g. a100; Grid Engine does not know it.",
        "gpu_per_slot": "Whether the accelerators are counted for each slot, not for each job (false).",
        "memory_resource": "Resource that limits memory, e.g. h_vmem or mem_free (none: memory is not asked for).",
        "memory_per_slot": "Whether memory is counted for each slot (true).",
        "query_seconds": QUERY_HELP,
        "command_timeout_seconds": "Seconds that one of Grid Engine's commands may take (60).",
        "submit_timeout_seconds": "Seconds that one qsub may take (30).",
        "describe_seconds": "Seconds for which a look at the cell's load is used again (5).",
    }
    usage_source = "qacct"

    def __init__(self, name: str, config: Mapping[str, Any], blobs: BlobStore) -> None:
        """Read the operator's settings; Invalid names the wrong one. Nothing is contacted yet."""
        settings = Settings(config, self.CONFIG_HELP)
        options = settings.mapping("options")
        wrong = check_native(options)
        if wrong:
            raise Invalid("options", wrong, remedy="Remove it.")
        transport = open_transport(settings)
        scheduler = GridEngineCommands(
            transport,
            resources=Resources(
                environment=settings.text("pe", "smp"),
                nodes_environment=settings.text("pe_nodes"),
                gpu=settings.text("gpu_resource", "gpu"),
                gpu_per_slot=settings.flag("gpu_per_slot", False),
                memory=settings.text("memory_resource"),
                memory_per_slot=settings.flag("memory_per_slot", True),
            ),
            defaults=options,
            user_options=read_user_options(settings, NATIVE),
            gpu_kind=settings.text("gpu_kind"),
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
