"""Which file goes to which address (GA4GH TES 1.1)."""

from __future__ import annotations

import pytest

from isthmus.domain.task import Output
from isthmus.engine.delivering import address

URL = "s3://b/to"


@pytest.mark.parametrize(
    ("output", "path", "expected"),
    [
        (Output(path="/out/x", url=URL), "/out/x", URL),
        (Output(path="/out/x", url=URL), "/out/y", None),
        (Output(path="/out", url=URL, directory=True), "/out/a/b", f"{URL}/a/b"),
        (Output(path="/out", url=URL, directory=True), "/outer/a", None),
        (Output(path="/out/*/*.?am", url=f"{URL}/", path_prefix="/out"), "/out/s/1.sam", f"{URL}/s/1.sam"),
        (Output(path="/out/*/*.?am", url=URL, path_prefix="/out"), "/out/s/t/1.sam", None),
        (Output(path="/out/*/*.?am", url=URL, path_prefix="/out/s"), "/out/t/1.sam", f"{URL}/1.sam"),
        (Output(path="/out/*", url=URL, path_prefix="/out", directory=True), "/out/d/e/f", f"{URL}/d/e/f"),
        (Output(path="/out/*", url=URL, path_prefix="/out", directory=True), "/out/f", None),
        (Output(path="/out/w[*]ld[?]", url=URL), "/out/w*ld?", URL),
        (Output(path="/out/w[*]ld[?]", url=URL), "/out/world?", None),
    ],
)
def test_address(output: Output, path: str, expected: str | None) -> None:
    """A file goes to the address itself, those of a directory or a pattern below it, without the prefix."""
    assert address(output, path) == expected
