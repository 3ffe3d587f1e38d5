"""The web page's files: served to anybody, packed, kept by their names, behind a strict policy; and current."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.api.console import POLICY
from isthmus.console import assets
from tests.api.conftest import House, problem_of

ROOT = Path(__file__).parents[2]
CATALOGUE = ROOT / "frontend" / "src" / "words"


async def test_the_page_names_files_that_are_there(house: House) -> None:
    """Every file that the page loads is served with its type, to be kept for ever."""
    client = house.client(None)
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    names = re.findall(r'(?:src|href)="\./assets/([^"]+)"', page.text)
    assert len(names) >= 3
    for name in names:
        answer = await client.get(f"/assets/{name}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"].startswith(("text/", "image/"))


async def test_the_policy_lets_no_foreign_and_no_inline_script_in(house: House) -> None:
    """The page carries the policy, and holds neither an inline script nor an address elsewhere."""
    page = await house.client(None).get("/")
    assert page.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert re.search(r"<script(?![^>]*\bsrc=)", page.text) is None
    assert "http" not in page.text
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_files_are_packed_and_known_files_are_not_sent_again(house: House) -> None:
    """brotli and gzip by what the caller takes; a known content costs a 304."""
    client = house.client(None)
    name = max((name for name in assets() if name.endswith(".js")), key=lambda one: len(assets()[one].content))
    for coding in ("br", "gzip", "identity"):
        async with client.stream("GET", f"/assets/{name}", headers={"Accept-Encoding": coding}) as answer:
            raw = b"".join([part async for part in answer.aiter_raw()])
            assert answer.headers.get("content-encoding") == (None if coding == "identity" else coding)
            etag = answer.headers["etag"]
        if coding == "gzip":
            assert gzip.decompress(raw) == assets()[name].content
        if coding == "br":
            assert len(raw) < len(assets()[name].content) / 2
    assert (await client.get(f"/assets/{name}", headers={"If-None-Match": f'"x", {etag}'})).status_code == 304


@pytest.mark.parametrize("name", ["nothing.js", "index.html.br", "sources.sha256"])
async def test_nothing_else_is_served(house: House, name: str) -> None:
    """A name that is no file of the page is not found, whatever lies beside."""
    problem_of(await house.client(None).get(f"/assets/{name}"), 404)


def test_the_built_files_are_of_these_sources() -> None:
    """The hashes beside them are those of the sources and of the files; `make check` also builds them again."""
    code = "import sys; sys.path.insert(0, 'frontend'); import build; print(build.STAMP.read_text() == build.stamp())"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "True", "run python frontend/build.py"


def test_the_catalogues_have_the_same_words_with_the_same_gaps() -> None:
    """Each word of one language is in the other, and names the same values."""
    found = []
    for name in ("en", "zh"):
        pairs = re.findall(r"^  '([\w.]+)': '(.*)',$", (CATALOGUE / f"{name}.ts").read_text(), re.MULTILINE)
        found.append({key: sorted(re.findall(r"\{\w+\}", text)) for key, text in pairs})
        assert len(found[-1]) > 150
    assert found[0] == found[1]


def test_the_lock_of_the_packages_holds_no_address() -> None:
    """Packages are found by name and hash at whatever registry the builder uses."""
    lock = (ROOT / "frontend" / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert '"integrity"' in lock
