"""`isthmus agent`: enrols once, then serves the site's adapter until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from isthmus.agent.accounts import AccountGuard
from isthmus.agent.config import SiteConfig, read_site_config
from isthmus.agent.dataserver import keeping_data
from isthmus.agent.journal import Journal
from isthmus.agent.keeping import Keeping
from isthmus.agent.link import Backoff, Link, make_client
from isthmus.agent.network import NetworkDoor
from isthmus.agent.service import Agent, AgentSettings
from isthmus.agent.shelf import SiteBlobs
from isthmus.agent.state import Identity, StateDirectory
from isthmus.data.http import HttpBlobStore
from isthmus.domain.errors import Conflict, Invalid, IsthmusError, Unavailable
from isthmus.loglines import log_to_stderr
from isthmus.sites.port import Site
from isthmus.sites.registry import build

log = logging.getLogger(__name__)
MakeSite = Callable[[SiteConfig, str, HttpBlobStore], Site]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="isthmus agent", description="Serve a site to the control plane, from the site."
    )
    found.add_argument("--url", required=True, help="the control plane, https://HOST[:PORT]")
    found.add_argument("--site-config", required=True, type=Path, help="kind, settings, accounts_allowed; YAML or JSON")
    found.add_argument("--state", required=True, type=Path, help="a directory for the agent's token and journal")
    found.add_argument("--enrol-token-file", type=Path, help="a file with the one-time token, for the first start")
    found.add_argument("--ca-file", type=Path, help="certificates to trust, PEM; the system's when not given")
    found.add_argument(
        "--reflect",
        action="append",
        default=[],
        metavar="PREFIX",
        help="answer path measurements (STAMP, RFC 8762) from this prefix; may be given again",
    )
    found.add_argument("--reflect-port", type=int, default=862, help="the UDP port for that; below 1024 needs root")
    found.add_argument(
        "--measure",
        action="append",
        default=[],
        metavar="PREFIX",
        help="measure paths to addresses in this prefix when the control plane asks; may be given again",
    )
    found.add_argument(
        "--router",
        action="append",
        default=[],
        type=Path,
        metavar="SOCKET",
        help="pass the control plane's requests on to the router's daemon at this socket; may be given again",
    )
    found.add_argument("--data-root", type=Path, metavar="DIR", help="keep datasets in this directory")
    found.add_argument(
        "--data-in-place",
        action="append",
        default=[],
        metavar="DIR|URL",
        help="files below this directory, or this address (s3, sftp, http, https), may become datasets where they lie; {account} in it is the local account of the one who "
        "asks; may be given again",
    )
    found.add_argument(
        "--data-listen",
        metavar="HOST:PORT",
        help="let sites with a ticket of the control plane read datasets from here; nobody may otherwise",
    )
    found.add_argument(
        "--data-address", metavar="HOST:PORT", help="where other sites dial that, if elsewhere than it listens"
    )
    found.add_argument(
        "--relay",
        metavar="HOST:PORT",
        help="pass on transfers of other sites that the control plane signed, from here; needs --data-root",
    )
    found.add_argument("--relay-address", metavar="HOST:PORT", help="where other sites dial that, if elsewhere")
    found.add_argument(
        "--data-quota", default="0", metavar="SIZE", help="room for datasets, such as 20T; else the disk's"
    )
    found.add_argument(
        "--data-cold-region",
        metavar="REGION",
        help="the region that a bucket or an SFTP server of --data-cold is in; data bound to regions goes there only if it is one of them",
    )
    found.add_argument(
        "--data-cold",
        metavar="URL",
        help="a slow store for what is seldom used: file:///DIR, s3://BUCKET/PREFIX, sftp://HOST/DIR",
    )
    found.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent; 0 after a stop that was asked for, 1 for an error at the start, 2 for a wrong command or setting."""
    arguments = parser().parse_args(argv)
    log_to_stderr(arguments.log_level.upper())
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with _reflecting(arguments.reflect, arguments.reflect_port):
            asyncio.run(serve(arguments))
    except Invalid as error:
        print(f"isthmus agent: {error}", file=sys.stderr)
        return 2
    except IsthmusError as error:
        print(f"isthmus agent: {error}", file=sys.stderr)
        return 1
    return 0


def _reflecting(prefixes: Sequence[str], port: int) -> AbstractContextManager[object]:
    if not prefixes:
        return nullcontext()
    from isthmus.network.measurement.reflector import reflecting

    return reflecting(prefixes, port=port)


async def serve(
    arguments: argparse.Namespace, *, make_site: MakeSite | None = None, settings: AgentSettings | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. `make_site` builds the adapter (by the registry of kinds when None)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    config = read_site_config(arguments.site_config)
    state = StateDirectory(arguments.state)
    try:
        identity = await _enrolled(state, arguments, stop)
        if identity is None:
            return
        log.info("agent of site %s (%s)", identity.site, config.kind)
        client = make_client(arguments.url, token=state.token(), ca_file=arguments.ca_file)
        link = Link(client)
        try:
            blobs = SiteBlobs(client, spool=state.spool)
            site = (make_site or _build)(config, identity.site, blobs)
            door = NetworkDoor(arguments.measure, arguments.router)
            async with keeping_data(arguments, identity.site, state, link, client, config.accounts_allowed) as keeping:
                if keeping is not None:
                    blobs.keep, blobs.tries = keeping.keep, keeping.tries
                await _work(link, site, config, state, settings, stop, keeping, door)
        finally:
            await link.close()
    finally:
        state.close()


async def _work(
    link: Link,
    site: Site,
    config: SiteConfig,
    state: StateDirectory,
    settings: AgentSettings | None,
    stop: asyncio.Event,
    keeping: Keeping | None,
    door: NetworkDoor,
) -> None:
    if config.accounts_allowed is not None:
        site = AccountGuard(site, config.accounts_allowed)
    try:
        journal = Journal(state.journal)
        try:
            await Agent(link, site, journal, settings, keeping, door).run(stop)
        finally:
            await journal.close()
    finally:
        await site.close()


def _build(config: SiteConfig, name: str, blobs: HttpBlobStore) -> Site:
    return build(config.kind, name, config.settings, blobs)


async def _enrolled(state: StateDirectory, arguments: argparse.Namespace, stop: asyncio.Event) -> Identity | None:
    """Who the agent is, after enrolling with a one-time token that it did not use before; None when it was told to stop."""
    identity = state.identity()
    token = _one_time_token(arguments.enrol_token_file)
    enrolment = hashlib.sha256(token.encode()).hexdigest()
    if identity is not None and (not token or identity.enrolment == enrolment):
        if identity.url != arguments.url:
            raise Conflict("The state directory belongs to another control plane.", remedy="Give another directory.")
        return identity
    if not token:
        raise Invalid("enrol-token-file", "is needed at the first start.", remedy="Ask the site's operator for one.")
    backoff = Backoff()
    link = Link(make_client(arguments.url, ca_file=arguments.ca_file))
    try:
        while not stop.is_set():
            try:
                site = await link.enrol(token, state.proposed_token(enrolment))
            except Unavailable as error:
                pause = backoff.next()
                log.warning("%s Next try to enrol in %.1f s.", error, pause)
                await _sleep(stop, pause)
                continue
            state.keep(Identity(site=site, url=arguments.url, enrolment=enrolment))
            return state.identity()
    finally:
        await link.close()
    return None


def _one_time_token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""  # removed after the first start, as it may be
    except OSError as error:
        raise Invalid("enrol-token-file", f"cannot be read ({error.strerror}).", remedy="Check the path.") from None


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


if __name__ == "__main__":
    sys.exit(main())
