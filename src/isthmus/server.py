"""The process that serves: wires store, content, engine and API, and runs them until it is told to stop.

python -m isthmus.server --state DIR --listen 127.0.0.1:8800
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import orjson
import sqlalchemy as sa
import uvicorn

from isthmus.api.agent import serve_agents
from isthmus.api.app import create_app
from isthmus.api.joining import Join, insert_site
from isthmus.api.service import ApiSettings, Service
from isthmus.data.delivery import Delivery, origin_of
from isthmus.data.directory import DirectoryBlobStore
from isthmus.data.s3 import S3, read_account
from isthmus.domain.errors import Conflict, Invalid, IsthmusError, Refused
from isthmus.domain.ids import is_name
from isthmus.engine.agentblobs import AgentBlobs
from isthmus.engine.agentsite import AgentSite
from isthmus.engine.clock import SystemClock
from isthmus.engine.engine import Engine
from isthmus.engine.mailbox import Mailbox
from isthmus.engine.settings import EngineSettings
from isthmus.listening import Address, open_listener, parse_address
from isthmus.loglines import log_to_stderr
from isthmus.store import schema, tables
from isthmus.store.database import Database
from isthmus.trust import first
from isthmus.trust.authority import Authority
from isthmus.trust.oidc import SignIn, read_provider
from isthmus.trust.passes import Passes
from isthmus.trust.sealing import Sealer

log = logging.getLogger("isthmus.server")
GRACE_SECONDS = 2
SERVICE_FILE = "service.json"
S3_FILE = "s3.json"
OIDC_FILE = "oidc.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the process is told."""

    state: Path
    addresses: tuple[Address, ...]
    database: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    join_local: bool = False
    open_metrics: bool = False
    local_images: str = "auto"
    tes_files: tuple[Path, ...] = ()
    http_outputs: tuple[str, ...] = ()
    routers: tuple[Path, ...] = ()
    measure_seconds: float = 60.0
    region: str = ""
    fair_half_life_hours: float = 24.0
    home_first: bool = True

    @property
    def url(self) -> str:
        """Where the service is found, by its first address; port 0 is replaced once it is known."""
        return self.url_at(self.addresses[0].port)

    def url_at(self, port: int) -> str:
        """The first address with this port."""
        where = replace(self.addresses[0], port=port).written
        return f"{'https' if self.tls_certificate else 'http'}://{where}"


def parse(argv: Sequence[str]) -> Options:
    """Options from arguments; refuses to be reached from elsewhere without TLS."""
    parser = argparse.ArgumentParser(prog="python -m isthmus.server", description="Run the Isthmus control plane.")
    parser.add_argument(
        "--state", type=Path, required=True, help="directory for everything that must outlive the process"
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="default: 127.0.0.1:8800; fd:NUMBER for a bound socket that the process was given; may be given again, the "
        "first is the address by which the service is found",
    )
    parser.add_argument(
        "--database",
        default=os.environ.get("ISTHMUS_DATABASE", ""),
        metavar="URL",
        help="postgresql+psycopg://USER@HOST/NAME (put a password into ISTHMUS_DATABASE or ~/.pgpass, not here); "
        "default: SQLite in the state directory",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    parser.add_argument(
        "--insecure", action="store_true", help="listen beyond this machine without TLS (behind a proxy)"
    )
    parser.add_argument(
        "--join-local", action="store_true", help="join this machine as the site `local` if there is no site"
    )
    parser.add_argument("--open-metrics", action="store_true", help="/metrics without a token")
    parser.add_argument(
        "--local-images",
        choices=("auto", "host", "pull", "none"),
        default="auto",
        help="how --join-local satisfies container images: pull them, or (host) run on this machine's own system in a "
        "bubblewrap sandbox; auto: pull where podman or docker works, else host where bwrap is installed",
    )
    parser.add_argument(
        "--tes-files",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="let file:// addresses of GA4GH TES tasks read and write below DIR, for every user; may be given again",
    )
    parser.add_argument(
        "--http-outputs",
        action="append",
        default=[],
        metavar="URL",
        help="let outputs be put at https://HOST:PORT although it is not on the public internet; may be given again",
    )
    parser.add_argument(
        "--router",
        type=Path,
        action="append",
        default=[],
        metavar="SOCKET",
        help="speak to the router's daemon (isthmus.network.control.daemon) at this socket; may be given again",
    )
    parser.add_argument(
        "--measure-every",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="between two rounds in which agents measure the network (60)",
    )
    parser.add_argument(
        "--fair-half-life",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="what a project used this long ago counts half in its fair share (24)",
    )
    parser.add_argument(
        "--no-home-first",
        dest="home_first",
        action="store_false",
        help="let guests start at a home site although its own users then wait longer than they would alone",
    )
    parser.add_argument(
        "--region",
        default="",
        metavar="NAME",
        help="where this service keeps content: data that may not leave its regions is kept here only if this is one of them",
    )
    arguments = parser.parse_args(argv)
    if not arguments.measure_every >= 1:
        raise Invalid("--measure-every", "is less than a second.", remedy="Give 1 or more.")
    if not 0 < arguments.fair_half_life <= 87_600:
        raise Invalid(
            "--fair-half-life", f"{arguments.fair_half_life:g} hours.", remedy="Give more than 0, at most 87600."
        )
    if arguments.region and not is_name(arguments.region):
        raise Invalid("--region", f"{arguments.region[:80]!r} is no name.", remedy="Use a-z, 0-9, . _ - as sites do.")
    addresses = tuple(parse_address(text) for text in arguments.listen or ["127.0.0.1:8800"])
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise Invalid("--tls-cert", "goes with --tls-key.", remedy="Give both or none.")
    for address in addresses:
        if not address.is_loopback and not arguments.tls_cert and not arguments.insecure:
            raise Invalid(
                "--listen",
                f"{address.host} can be reached from other machines and there is no TLS: tokens would travel readable.",
                remedy="Give --tls-cert and --tls-key, or --insecure behind a proxy that has TLS.",
            )
    for path in arguments.tes_files:
        if arguments.state.resolve().is_relative_to(path.resolve()) or path.resolve().is_relative_to(
            arguments.state.resolve()
        ):
            raise Invalid(
                "--tes-files",
                f"{path} holds the state directory, or lies in it.",
                remedy="Name a directory apart from it.",
            )
    return Options(
        state=arguments.state.resolve(),
        addresses=addresses,
        database=arguments.database,
        tls_certificate=arguments.tls_cert,
        tls_key=arguments.tls_key,
        insecure=arguments.insecure,
        join_local=arguments.join_local,
        open_metrics=arguments.open_metrics,
        local_images=arguments.local_images,
        tes_files=tuple(directory(path) for path in arguments.tes_files),
        region=arguments.region,
        fair_half_life_hours=arguments.fair_half_life,
        home_first=arguments.home_first,
        http_outputs=tuple(origin_of(url) for url in arguments.http_outputs),
        routers=tuple(arguments.router),
        measure_seconds=arguments.measure_every,
    )


def close_to_others(state: Path) -> None:
    """Make the state directory, or see that only this account can look into one that is there: it holds the key and every
    user's content. Refused when it belongs to somebody else."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = state.stat()
    if found.st_uid != os.geteuid():
        raise Refused(f"{state} belongs to another account.", remedy="Give it to this one, or use another --state.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        state.chmod(0o700)
        log.warning("%s could be read by others; its mode is 0700 now", state)


def lock(state: Path) -> TextIO:
    """Hold the state directory for this process, until the file is closed; Conflict when another one has it."""
    file = (state / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Conflict(
            f"Another process serves from {state}.", remedy="Stop it first, or use another --state directory."
        ) from None
    return file


def instance_of(state: Path) -> str:
    """The name under which this instance holds leases; it stays the same from start to start."""
    path = state / "instance"
    if not path.exists():
        fresh = state / "instance.new"
        fresh.write_text(secrets.token_hex(16))
        fresh.replace(path)
    return path.read_text().strip()


def directory(path: Path) -> Path:
    """An existing directory, links resolved; Invalid otherwise."""
    if not path.is_dir():
        raise Invalid("--tes-files", f"{path} is not a directory.", remedy="Make it first.")
    return path.resolve()


def local_images(wanted: str) -> dict[str, str]:
    """The setting `images` of the site that `--join-local` joins."""
    if wanted == "auto":
        if any(_works(name) for name in ("podman", "docker")):
            wanted = "pull"
        else:
            wanted = "host" if shutil.which("bwrap") else "none"
    return {} if wanted == "none" else {"*": wanted}


def _works(runtime: str) -> bool:
    program = shutil.which(runtime)
    if program is None:
        return False
    try:
        return subprocess.run([program, "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def join_local(connection: sa.Connection, state: Path, now: float, images: Mapping[str, str]) -> bool:
    """Join this machine as the site `local`, when there is no site; whether it did."""
    if connection.execute(sa.select(tables.sites.c.name).limit(1)).first() is not None:
        return False
    root = state / "sites" / "local"
    root.mkdir(parents=True, exist_ok=True)
    join = Join(name="local", kind="local", config={"root": str(root), "images": dict(images)}, accounts={"*": ""})
    insert_site(connection, join, user=first.ADMIN, now=now)
    return True


class _Server(uvicorn.Server):
    """Says where it is once it listens, and ends open event streams before it waits for connections."""

    def __init__(self, config: uvicorn.Config, service: Service, mailbox: Mailbox, options: Options) -> None:
        super().__init__(config)
        self._service = service
        self._mailbox = mailbox
        self._options = options

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT on the loop. uvicorn's own way raises them again after the last answer, which would
        end the process before the engine gave its leases back."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield  # the handlers stay: a second signal must not cut the rest of the stop short

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            url = self._options.url_at(sockets[0].getsockname()[1])
            fresh = self._options.state / f"{SERVICE_FILE}.new"
            fresh.write_bytes(orjson.dumps({"url": url, "pid": os.getpid()}))
            fresh.replace(self._options.state / SERVICE_FILE)
            log.info("serving at %s, state in %s", url, self._options.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.feed.cut_all()
        self._mailbox.end_takes()
        await super().shutdown(sockets)


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT."""
    state = options.state
    close_to_others(state)
    held = lock(state)
    database = Database(options.database or f"sqlite:///{state / 'isthmus.db'}")
    try:
        await asyncio.to_thread(schema.prepare, database)
        now = time.time()
        if first.prepare(database, state, now):
            log.info("first start: the administrator's token is in %s", state / first.TOKEN_FILE)
        images = await asyncio.to_thread(local_images, options.local_images) if options.join_local else {}
        if options.join_local and await database.write(join_local, state, now, images):
            log.info("joined this machine as the site local")
        sealer = Sealer.open(state / "key")
        blobs = DirectoryBlobStore(state / "blobs")
        mailbox = Mailbox(database, sealer, SystemClock())
        account = read_account(state / S3_FILE)
        s3 = S3(account) if account is not None else None
        passes = Passes(Authority.open(state / "authority"))
        engine = Engine(
            database,
            blobs,
            EngineSettings(
                home_region=options.region,
                measure_interval=options.measure_seconds,
                fair_half_life=3600.0 * options.fair_half_life_hours,
                home_first=options.home_first,
            ),
            routers=options.routers,
            owner=instance_of(state),
            unseal=sealer.unseal,
            presign=s3,
            deliver=Delivery(s3=s3, directories=options.tes_files, origins=options.http_outputs).deliver,
            agent_site=lambda name: AgentSite(name, mailbox, unproven=agent_blobs.unproven),
            passes=passes,
        )
        provider = read_provider(state / OIDC_FILE)
        agent_blobs = AgentBlobs(mailbox, database, SystemClock(), engine.home)
        service = Service(
            database=database,
            blobs=blobs,
            engine=engine,
            sealer=sealer,
            state=state,
            sign_in=SignIn(provider) if provider is not None else None,
            settings=ApiSettings(
                open_metrics=options.open_metrics,
                tes_files=options.tes_files,
                region=options.region,
                fair_half_life=3600.0 * options.fair_half_life_hours,
                is_local=all(address.is_loopback for address in options.addresses),
            ),
            passes=passes,
        )
        app = create_app(service)
        serve_agents(app, mailbox, agent_blobs)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ssl_certfile=options.tls_certificate,
            ssl_keyfile=options.tls_key,
        )
        listeners: list[socket.socket] = []
        try:
            listeners.extend(open_listener(address) for address in options.addresses)
            await engine.start()
            try:
                await _Server(config, service, mailbox, options).serve(sockets=listeners)
            finally:
                try:
                    await asyncio.wait_for(engine.stop(), GRACE_SECONDS)
                except TimeoutError:
                    log.warning("the engine did not stop in time; its leases are taken over at the next start")
        finally:
            await mailbox.close()
            for listener in listeners:
                listener.close()
    finally:
        (state / SERVICE_FILE).unlink(missing_ok=True)
        database.close()
        held.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service; 0 after a wanted stop, 1 when it could not start."""
    log_to_stderr(os.environ.get("ISTHMUS_LOG_LEVEL", "INFO").upper())
    os.umask(0o077)
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        # Not uvloop: it gives its end of a child's pipes to the child, so that a job that a local site started keeps the
        # launching command's output open, and that command seems to last as long as the job.
        asyncio.run(serve(options))
    except IsthmusError as error:
        print(f"isthmus.server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
