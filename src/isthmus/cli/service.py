"""`up`, `down`, `check`, `agent`: the processes of this machine, each in its own module and started from here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_state = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help=_("Where the service keeps everything (ISTHMUS_STATE)."),
)


def _directory(given: Path | None) -> Path:
    from isthmus.client.config import state_directory

    return (given or state_directory()).absolute()


@command(
    "up",
    examples="""
    isthmus up --detach
    isthmus up --listen 127.0.0.1:8800
    isthmus up --listen 0.0.0.0:8443 --tls-cert chain.pem --tls-key key.pem --database postgresql+psycopg://isthmus@db/isthmus
    """,
    help=_(
        "Start the service on this machine. This machine joins as the site `local` when there is no site yet. A database's "
        "password belongs into ISTHMUS_DATABASE, never on a command line."
    ),
)
@_state
@click.option(
    "--listen",
    multiple=True,
    default=["127.0.0.1:8800"],
    show_default=True,
    metavar="HOST:PORT",
    help=_("Where it answers; may be given again, the first is the service's own address."),
)
@click.option("--database", default="", metavar="URL", help=_("PostgreSQL (else SQLite in the state directory)."))
@click.option(
    "--tls-cert", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help=_("Certificate chain, PEM.")
)
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help=_("Its key, PEM."))
@click.option(
    "--insecure", is_flag=True, help=_("Listen beyond this machine without TLS (behind a proxy that has it).")
)
@click.option("--join-local/--no-join-local", default=True, help=_("Join this machine as a site (the default)."))
@click.option(
    "--local-images",
    type=click.Choice(["auto", "host", "pull", "none"]),
    default="auto",
    show_default=True,
    help=_("How this machine, once joined, satisfies container images."),
)
@click.option(
    "--tes-files",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help=_("Let file:// addresses of GA4GH TES tasks lead below DIR, for every user; may be given again."),
)
@click.option(
    "--http-outputs",
    multiple=True,
    metavar="URL",
    help=_("Let outputs be put at https://HOST:PORT although it is not on the public internet; may be given again."),
)
@click.option(
    "--region", default="", metavar="NAME", help=_("Where the service keeps content; datasets may be bound to it.")
)
@click.option(
    "--fair-half-life",
    type=float,
    metavar="HOURS",
    help=_("What a project used this long ago counts half in its fair share (24)."),
)
@click.option(
    "--home-first/--no-home-first",
    default=True,
    help=_("At a project's home its own users start no later because of guests (the default)."),
)
@click.option("--detach", "-d", is_flag=True, help=_("Return once it answers; `isthmus down` stops it."))
def up(
    state: Path | None,
    listen: tuple[str, ...],
    database: str,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool,
    join_local: bool,
    local_images: str,
    tes_files: tuple[str, ...],
    http_outputs: tuple[str, ...],
    region: str,
    fair_half_life: float | None,
    home_first: bool,
    detach: bool,
) -> int:
    where = _directory(state)
    if urlsplit(database).password:
        raise click.UsageError(
            _("A password on a command line can be read by others; put the URL into ISTHMUS_DATABASE.")
        )
    arguments = [sys.executable, "-m", "isthmus.server", "--state", str(where)]
    for address in listen:
        arguments += ["--listen", address]
    for flag, value in (("--database", database), ("--tls-cert", tls_cert), ("--tls-key", tls_key)):
        arguments += [flag, value] if value else []
    arguments += ["--region", region] if region else []
    arguments += ["--fair-half-life", f"{fair_half_life:g}"] if fair_half_life is not None else []
    arguments += [] if home_first else ["--no-home-first"]
    arguments += ["--insecure"] if insecure else []
    arguments += ["--join-local", "--local-images", local_images] if join_local else []
    for directory in tes_files:
        arguments += ["--tes-files", directory]
    for url in http_outputs:
        arguments += ["--http-outputs", url]
    if not detach:
        screen.say(_("The administrator's token will be in {file}.").format(file=where / "admin-token"))
        sys.stdout.flush()
        os.execv(sys.executable, arguments)  # noqa: S606  (the service takes the place of this process)
    return _start(where, arguments)


def _start(where: Path, arguments: list[str]) -> int:
    from isthmus.client.config import read_service_file

    if (pid := _serving(where)) is not None:
        screen.say(_("It runs already (process {pid}).").format(pid=pid))
        _tell(where)
        return exits.OK
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = where / "server.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
        )
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + START_SECONDS
    while read_service_file(where).get("pid") != process.pid:
        if process.poll() is not None:
            screen.say(_("error: the service ended at once (exit code {code}).").format(code=process.returncode))
            for line in log.read_text(errors="replace").splitlines()[-8:]:
                screen.say(f"  {line}")
            screen.say(_("  its log: {file}").format(file=log))
            return exits.UNAVAILABLE
        if time.monotonic() > deadline:
            screen.say(_("error: the service does not answer yet; its log: {file}").format(file=log))
            return exits.UNAVAILABLE
        time.sleep(0.05)
    process.returncode = 0  # it lives on; this object must not warn about it
    _tell(where)
    return exits.OK


def _tell(where: Path) -> None:
    from isthmus.client.config import read_service_file

    screen.put(str(read_service_file(where).get("url", "")))
    screen.say(_("The administrator's token is in {file}.").format(file=where / "admin-token"))
    screen.suggest("isthmus run -- hostname")


def _serving(where: Path) -> int | None:
    """The process that serves from a state directory: named by its file, alive, and really the service."""
    from isthmus.client.config import read_service_file

    pid = read_service_file(where).get("pid")
    if not isinstance(pid, int) or pid <= 1:
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return pid if b"isthmus.server" in words and str(where).encode() in words else None


@command("down", examples="isthmus down", help=_("Stop the service of this machine; tasks at sites go on."))
@_state
def down(state: Path | None) -> int:
    where = _directory(state)
    pid = _serving(where)
    if pid is None:
        screen.say(_("No service runs from {directory}.").format(directory=where))
        return exits.OK
    try:
        handle = os.pidfd_open(pid)  # so that no later process with the same number is meant
    except ProcessLookupError:
        return exits.OK
    try:
        if _serving(where) == pid:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        import select

        ended, _w, _x = select.select([handle], [], [], STOP_SECONDS)
    finally:
        os.close(handle)
    if not ended:
        screen.say(_("error: the service (process {pid}) did not stop in time.").format(pid=pid))
        return exits.UNAVAILABLE
    screen.say(_("Stopped. Tasks at sites go on; `isthmus up` takes them up again."))
    return exits.OK


@command(
    "check",
    examples="isthmus check\nisthmus check --content",
    help=_("Check what the service here has stored, against its own rules; --content reads every content too."),
    context_settings={"ignore_unknown_options": True},
)
@_state
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def check(state: Path | None, arguments: tuple[str, ...]) -> int:
    sys.stdout.flush()
    words = [sys.executable, "-m", "isthmus.checking", "--state", str(_directory(state)), *arguments]
    os.execv(sys.executable, words)  # noqa: S606


@command(
    "agent",
    examples="isthmus agent --url https://isthmus.example:8443 --site-config site.yaml --state /var/lib/isthmus-agent",
    help=_("Run the agent of a site that dials out; its own --help has the options."),
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def agent(arguments: tuple[str, ...]) -> int:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "isthmus.agent.main", *arguments])  # noqa: S606
