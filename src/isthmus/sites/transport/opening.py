"""Opens the transport that an operator's settings describe: ssh when there is a `host`, this host otherwise."""

from __future__ import annotations

from typing import Final

from isthmus.domain.errors import Invalid
from isthmus.sites.settings import Settings
from isthmus.sites.transport.local import LocalTransport
from isthmus.sites.transport.port import SWITCHES, Transport
from isthmus.sites.transport.ssh import SshTransport

TRANSPORT_HELP: Final[dict[str, str]] = {
    "host": "Host to reach over ssh; without it commands run on this host.",
    "port": "Port of its ssh server (22).",
    "user": "Account to log in with (an ordinary one).",
    "key_file": "Path here of the private key to log in with.",
    "known_hosts": "Path here of the file with the host's key (~/.ssh/known_hosts); it is always checked.",
    "connect_timeout_seconds": "Seconds to wait for a connection (15).",
    "max_commands": "Commands at the site at once, at most (8).",
    "switch_account": "How to act as a user's own account: none, sudo (sudo -n -u) or runuser (as root) (none).",
    "env": 'Extra environment of every command, not secret, e.g. {"SLURM_CONF": "/etc/slurm/b.conf"}.',
}


def open_transport(settings: Settings) -> Transport:
    """The transport; Invalid names the wrong setting. No connection is made yet."""
    max_commands = settings.integer("max_commands", 8, least=1, most=1000)
    switch = settings.choice("switch_account", SWITCHES, "none")
    env = settings.mapping("env")
    if not settings.has("host"):
        return LocalTransport(max_commands=max_commands, switch_account=switch, env=env)
    user = settings.text("user")
    if not user:
        raise Invalid("user", "is missing.", remedy="Name the account to log in with at the host.")
    return SshTransport(
        host=settings.text("host"),
        port=settings.integer("port", 22, least=1, most=65535),
        user=user,
        key_file=settings.text("key_file"),
        known_hosts=settings.text("known_hosts"),
        max_commands=max_commands,
        connect_timeout_seconds=settings.seconds("connect_timeout_seconds", 15.0),
        switch_account=switch,
        env=env,
    )
