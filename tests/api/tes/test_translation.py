"""What TES documents mean in Isthmus's own words."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api.tes.models import TesTask
from isthmus.api.tes.translation import Translation, translate
from isthmus.domain.errors import Invalid
from isthmus.domain.task import Accelerators


def meaning(**more: Any) -> Translation:
    """The meaning of a document with one executor."""
    document = {"executors": [{"image": "alpine", "command": ["true"]}], **more}
    return translate(TesTask.model_validate(document), {}, walltime_seconds=77)


def test_resources() -> None:
    """Sizes are decimal, zones are regions, and what is not asked for has a default."""
    asked = meaning(resources={"cpu_cores": 3, "ram_gb": 1.5, "disk_gb": 2, "zones": ["north"]}).spec
    assert (asked.demand.cpus, asked.demand.memory_bytes, asked.demand.disk_bytes) == (3, 1_500_000_000, 2_000_000_000)
    assert asked.constraints.regions_allow == ("north",)
    plain = meaning().spec
    assert (plain.demand.cpus, plain.demand.memory_bytes, plain.demand.walltime_seconds) == (1, 2_000_000_000, 77)
    assert meaning(resources={"cpu_cores": 0, "ram_gb": 0}).spec.demand == plain.demand


def test_backend_parameters() -> None:
    """Own parameters, in any case, become demand and constraints; those of a scheduler are handed on."""
    parameters = {
        "Walltime_Seconds": "60",
        "SITE": "alpha,beta",
        "accelerators": "2",
        "accelerator_kind": "a100",
        "accelerator_memory_gb": "40",
        "qos": "long",
        "project": "genomes",
        "unheard": "x",
    }
    found = meaning(resources={"backend_parameters": parameters})
    assert found.spec.demand.walltime_seconds == 60
    assert found.spec.demand.accelerators == Accelerators(count=2, kind="a100", memory_bytes=40_000_000_000)
    assert found.spec.constraints.sites_allow == ("alpha", "beta")
    assert (found.spec.backend_parameters, found.project) == ({"qos": "long"}, "genomes")
    assert found.kept.resources is not None
    assert "unheard" not in (found.kept.resources.backend_parameters or {})
    assert any("unheard" in line for line in found.warnings)


@pytest.mark.parametrize(
    ("path", "pattern", "required"),
    [
        ("/a/b", "/a/b", True),
        ("/a//b/", "/a/b", True),
        ("/a/*.txt", "/a/*.txt", False),
        ("/a/**", "/a/*", False),
        ("/a/x\\*\\?", "/a/x[*][?]", True),
        ("/a/\\b[0-9]", "/a/b[0-9]", False),
    ],
)
def test_output_patterns(path: str, pattern: str, required: bool) -> None:
    """POSIX patterns become ours; a quoted mark is itself, and such an output is one file that must be there."""
    (output,) = meaning(outputs=[{"path": path, "path_prefix": "/a", "url": "s3://b/c"}]).spec.outputs
    assert (output.path, output.required, bool(output.path_prefix)) == (pattern, required, not required)


def test_content_wins_over_url() -> None:
    """If content is not empty, url is ignored; an empty content with a url is not looked at."""
    (item,) = meaning(inputs=[{"path": "/a/b", "content": "x", "url": "s3://b/c"}]).spec.inputs
    assert (item.content, item.url) == ("x", "")
    (item,) = meaning(inputs=[{"path": "/a/b", "content": "", "url": "s3://b/c"}]).spec.inputs
    assert (item.content, item.url) == (None, "s3://b/c")
    (item,) = meaning(inputs=[{"path": "/a/b", "content": ""}]).spec.inputs
    assert item.content == ""


def test_http_directories_are_refused() -> None:
    """There is no listing by HTTP, so a DIRECTORY cannot come from there."""
    with pytest.raises(Invalid) as caught:
        meaning(inputs=[{"path": "/a/b", "url": "https://x/y/", "type": "DIRECTORY"}])
    assert caught.value.field == "inputs.0.url"
