"""Runs commands at a site: here, over ssh, as another local account; with a cap and a time-out on each; knows no scheduler.

There is deliberately no file interface: files go through standard input and output of shell commands, so that every
transport and every account works the same.
"""

from isthmus.sites.transport.local import LocalTransport
from isthmus.sites.transport.opening import TRANSPORT_HELP, open_transport
from isthmus.sites.transport.port import Command, CommandFailed, CommandResult, Stdin, TimedOut, Transport
from isthmus.sites.transport.scripted import ScriptedTransport
from isthmus.sites.transport.ssh import SshTransport
from isthmus.sites.transport.turns import Carries

__all__ = [
    "TRANSPORT_HELP",
    "Carries",
    "Command",
    "CommandFailed",
    "CommandResult",
    "LocalTransport",
    "ScriptedTransport",
    "SshTransport",
    "Stdin",
    "TimedOut",
    "Transport",
    "open_transport",
]
