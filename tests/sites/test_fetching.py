"""Inputs by address are fetched at the site, from a real HTTP server."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from isthmus.domain.errors import Invalid
from isthmus.domain.lifecycle import EndReason
from isthmus.sites.fetching import curl_config, show_url
from isthmus.sites.plain import LocalSite
from isthmus.sites.port import JobFile, LogStream, Rejected, Staged, Uncertain
from isthmus.sites.transport import LocalTransport
from tests.conformance.bench import Centre, finish, job_at, ref_of


@dataclass
class Web:
    """A server; `listings` are the process lists taken while it answered."""

    address: str
    listings: list[str] = field(default_factory=list)


@pytest.fixture
def web() -> Iterator[Web]:
    """A server that wants a header for /guarded and has nothing elsewhere."""
    state = Web(address="")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listing = subprocess.run(["ps", "axww", "-o", "args"], check=False, capture_output=True, text=True).stdout
            state.listings.append(listing)
            path = self.path.partition("?")[0]
            allowed = self.headers.get("Authorization") == 'Bearer "s3cret\\'
            status = {"/open": 200, "/guarded": 200 if allowed else 403, "/broken": 500}.get(path, 404)
            self.send_response(status)
            self.end_headers()
            if status == 200:
                self.wfile.write(b"fetched")

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["curl", "wget"])
def fetching_site(request: pytest.FixtureRequest, local_site: Callable[..., LocalSite], scratch: Path) -> LocalSite:
    """A site that has only curl, or only wget."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    tools = scratch / "tools"
    tools.mkdir()
    hidden = "wget" if request.param == "curl" else "curl"
    for folder in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(folder).iterdir():
            link = tools / program.name
            if program.name != hidden and not link.exists() and not link.is_symlink():
                link.symlink_to(program)
    return local_site(env={"PATH": str(tools)})


async def test_a_file_is_fetched_with_headers_that_no_process_list_shows(
    fetching_site: LocalSite, centre: Centre, web: Web
) -> None:
    """The file is there before the job starts; neither token nor signed address was on a command line."""
    headers = {"Authorization": 'Bearer "s3cret\\'}
    job = job_at(
        centre,
        "cat in; test -x in && echo x",
        files=[JobFile(path="in", url=f"{web.address}/guarded?signature=h1dden", headers=headers, executable=True)],
    )
    ended = await finish(fetching_site, centre, job)
    assert ended.exit_code == 0
    assert await fetching_site.logs(ref_of(job), LogStream.STDOUT, 0, 100) == b"fetchedx\n"
    assert web.listings
    assert not any("s3cret" in listing or "h1dden" in listing for listing in web.listings)
    directory = centre.scratch / "root" / "attempts" / job.key
    assert not any(b"s3cret" in path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_what_is_not_there_is_rejected_and_what_fails_is_uncertain(
    local_site: Callable[..., LocalSite], centre: Centre, web: Web
) -> None:
    """A clear no is the end of it; a server's failure, or no server, may be tried again. No message holds the query."""
    site = local_site()
    gone, forbidden, broken, nobody = jobs = [
        job_at(centre, files=[JobFile(path="in", url=f"{address}?signature=h1dden")])
        for address in (
            f"{web.address}/gone",
            f"{web.address}/guarded",
            f"{web.address}/broken",
            "http://127.0.0.1:9/x",
        )
    ]
    outcomes = await site.stage(jobs)
    for job in (gone, forbidden):
        outcome = outcomes[job.key]
        assert isinstance(outcome, Rejected)
        assert outcome.reason is EndReason.INPUT_MISSING
    for job in (broken, nobody):
        assert isinstance(outcomes[job.key], Uncertain)
    assert "h1dden" not in str(outcomes)
    again = job_at(centre, key=broken.key, files=[JobFile(path="in", url=f"{web.address}/open")])
    assert isinstance((await site.stage([again]))[again.key], Staged)


async def test_a_file_that_did_not_arrive_lets_no_job_start(
    local_site: Callable[..., LocalSite], centre: Centre, web: Web
) -> None:
    """An attempt whose fetch failed is not staged, and its submission is rejected."""
    site = local_site()
    job = job_at(centre, files=[JobFile(path="in", url=f"{web.address}/gone")])
    await site.stage([job])
    assert isinstance((await site.submit([job]))[job.key], Rejected)


def test_addresses_and_headers_cannot_break_out_of_the_configuration() -> None:
    """A line break in a header would be another option of curl."""
    with pytest.raises(Invalid):
        curl_config(JobFile(path="x", url="http://h/", headers={"A": "b\noutput = /etc/x"}))
    with pytest.raises(Invalid):
        curl_config(JobFile(path="x", url="http://h/\nurl = file:///etc/passwd"))
    assert show_url("https://user:word@host:8443/a/b?token=x#y") == "https://host:8443/a/b"


async def test_a_site_without_curl_and_wget_says_so(
    local_site: Callable[..., LocalSite], centre: Centre, scratch: Path
) -> None:
    """The rejection names what is missing."""
    tools = scratch / "few"
    tools.mkdir()
    for name in (
        "sh",
        "mkdir",
        "tar",
        "mktemp",
        "mv",
        "rm",
        "cat",
        "wc",
        "sha256sum",
        "touch",
        "uname",
        "tr",
        "tail",
        "cp",
    ):
        (tools / name).symlink_to(shutil.which(name) or name)
    site = local_site(env={"PATH": str(tools)})
    job = job_at(centre, files=[JobFile(path="in", url="http://127.0.0.1:9/x")])
    outcome = (await site.stage([job]))[job.key]
    assert isinstance(outcome, Rejected)
    assert "neither curl nor wget" in outcome.message
    assert LocalTransport().is_local
