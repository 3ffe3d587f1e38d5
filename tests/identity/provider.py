"""An identity provider on loopback: `oidc-provider-mock`, a stand-in for a university's own, built on Authlib."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx


@contextmanager
def running_provider(people: Mapping[str, str]) -> Iterator[str]:
    """Its address; `people` are subjects with the name that it claims for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        import oidc_provider_mock

        with oidc_provider_mock.run_server_in_thread() as server:
            address = f"http://localhost:{server.server_port}"
            for subject, name in people.items():
                httpx.put(f"{address}/users/{subject}", json={"preferred_username": name}).raise_for_status()
            yield address
