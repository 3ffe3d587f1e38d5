"""A site behind an agent passes the suite: every call goes through mailbox, HTTP and agent to the real adapter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from isthmus.data.port import BlobStore
from isthmus.sites.plain import LocalSite
from isthmus.sites.port import JobFile, LogStream, Site
from tests.agent.remote import RemoteSite
from tests.conformance import Centre, SiteConformance
from tests.conformance.bench import BreakingBlobs, finish, job_at, ref_of
from tests.conformance.suite import blobs, site
from tests.conformance.test_plain_sites import _commands, _hidden, scratch

__all__ = ["blobs", "scratch", "site"]


class TestAgentSite(SiteConformance):
    """This host behind an agent, as the caller's own account."""

    @pytest.fixture
    def centre(self, scratch: Any) -> Centre:
        """Jobs run as this process does."""
        root = scratch / "root"
        config = {"root": str(root), "grace_seconds": 2}

        def make_site(store: BlobStore) -> Site:
            return cast(Site, RemoteSite(lambda at_site: LocalSite("here", config, at_site), store))

        return Centre(
            make_site=make_site,
            pool="local",
            scratch=scratch,
            outage=lambda: _hidden(root),
            commands=lambda remote: _commands(cast(RemoteSite, remote).adapter),
            walltime_seconds=1,
            memory_is_limited=True,
        )

    async def test_a_large_input_resumes_after_a_broken_stream(
        self, site: Site, centre: Centre, tmp_path: Path
    ) -> None:
        """A transfer that breaks goes on from what had arrived, within the same call: the way to the agent resumes itself."""
        store = BreakingBlobs(tmp_path / "breaking", breaks_after=9 * 1024**2)
        big = os.urandom(12 * 1024**2)
        sha256 = await store.put_bytes(big)
        adapter = centre.make_site(store)
        try:
            job = job_at(centre, "sha256sum <big", files=[JobFile(path="big", blob=sha256, size_bytes=len(big))])
            await finish(adapter, centre, job)
            said = await adapter.logs(ref_of(job), LogStream.STDOUT, 0, 100)
        finally:
            await adapter.close()
        assert said.decode().split()[0] == sha256
        assert store.offsets[0] == 0
        assert store.offsets[-1] > 0
