"""`isthmus lab`: an emulated network of sites, routers and links on this machine, made worse and better on command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import Group, command, tail_of
from isthmus.cli.messages import _
from isthmus.domain.errors import Conflict, Forbidden, IsthmusError, NotFound, Unavailable

_HERE = "isthmus.cli.lab:"
_KINDS = {kind.code: kind for kind in (Conflict, Forbidden)}
_MAKE, _SEE, _CHANGE = "Start and stop", "See and use", "Make worse and better"
lab = Group(
    name="lab",
    lazy={
        "up": (_HERE + "up", "Start the network of a YAML file", _MAKE),
        "down": (_HERE + "down", "Remove it to the last namespace, also after a crash", _MAKE),
        "show": (_HERE + "show", "Nodes, links and daemons as they are now", _SEE),
        "topology": (_HERE + "topology", "The network as `isthmus net load` takes it", _SEE),
        "exec": (_HERE + "exec_", "Run a command at a node", _SEE),
        "fail": (_HERE + "fail", "Cut links, take nodes down", _CHANGE),
        "partition": (_HERE + "partition", "Cut all links between some nodes and the others", _CHANGE),
        "brownout": (_HERE + "brownout", "Give a link a worse rate, delay or loss", _CHANGE),
        "heal": (_HERE + "heal", "End failures and brown-outs", _CHANGE),
        "reroute": (_HERE + "reroute", "Let the shortest paths avoid what has failed", _CHANGE),
    },
    examples="""
    isthmus lab up wan.yaml
    isthmus lab fail r1-r2
    isthmus lab down
    """,
    help=_("An emulated network on this machine: network namespaces of the kernel, joined by links with rate, delay and loss. Needs root."),
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _loaded(function: Callable[..., int]) -> Callable[..., int]:
    """The command, which says what is missing where the library for the kernel's network is not installed."""

    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> int:
        if find_spec("pyroute2") is None:
            raise Unavailable(_("The library pyroute2 is not installed."), remedy="pip install 'isthmus[network]'")
        return function(*arguments, **named)

    return checked


_network = click.option("--network", default=None, metavar="NAME", help=_("Which network, when several are up."))
_json = click.option("--json", "as_json", is_flag=True, help=_("Answer JSON."))


@command("up", examples="isthmus lab up wan.yaml", help=_("Start the network of a YAML file (docs/lab.md), with the daemons of its sites. It stays until `isthmus lab down`."))  # fmt: skip
@click.argument("topology", type=click.Path(path_type=Path))
@_loaded
def up(topology: Path) -> int:
    from isthmus.lab.network.possible import check_root
    from isthmus.lab.network.reading import read_file

    found = read_file(topology)
    check_root()
    keeper = subprocess.Popen(
        [sys.executable, "-m", "isthmus.lab.network.keeper", str(topology.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    assert keeper.stdout is not None
    try:
        answer = json.loads(keeper.stdout.readline() or b'{"cause": "the process ended without a word."}')
    except KeyboardInterrupt:
        keeper.send_signal(signal.SIGTERM)
        keeper.wait()
        raise
    if "ready" not in answer:
        keeper.wait()
        kind = _KINDS.get(answer.get("code", ""), IsthmusError)
        raise kind(answer["cause"], remedy=answer.get("remedy", ""), code=answer.get("code"))
    keeper.returncode = 0  # it lives on; this object must not warn about it
    screen.put(found.name)
    screen.say(_("Up after {seconds} s.").format(seconds=answer["ready"]))
    screen.suggest("isthmus lab show")
    return exits.OK


@command("down", examples="isthmus lab down", help=_("Remove the network: its processes, namespaces and files, and nothing else."))  # fmt: skip
@_network
@_loaded
def down(network: str | None) -> int:
    from isthmus.lab.network.network import remove
    from isthmus.lab.network.places import networks
    from isthmus.lab.network.possible import check_root

    check_root()
    if network is None and not networks():
        screen.say(_("No network is up."))
        return exits.OK
    name = _choose(network)
    screen.say(_("Removed {name}.").format(name=name) if remove(name) else _("There is no {name}.").format(name=name))
    return exits.OK


@command("show", examples="isthmus lab show\nisthmus lab show --json", help=_("Nodes, links and daemons as they are now."))  # fmt: skip
@_network
@_json
@_loaded
def show(network: str | None, as_json: bool) -> int:
    from isthmus.domain.quantities import show_rate, show_time
    from isthmus.lab.network import showing

    found = showing.show(_choose(network))
    if as_json:
        screen.put_json(found)
        return exits.OK
    if not found["up"]:
        screen.say(_("The process that kept this network is gone: isthmus lab down removes the rest."))
    rows = [[node["name"], "router", node["state"], node["address"], ""] for node in found["routers"]]
    for site in found["sites"]:
        daemons = " ".join(site["daemons"])
        rows.append([site["name"], "site", site["state"], " ".join(site["addresses"]), daemons])
    screen.table(["NODE", "KIND", "STATE", "ADDRESSES", "DAEMONS"], rows)
    screen.put("")
    links = [
        [
            *(link["name"], link["state"], show_rate(link["rate_bits_per_second"])),
            *(show_time(link["delay_seconds"]), show_time(link["jitter_seconds"])),
            *(f"{link['loss'] * 100:g} %", link["mtu_bytes"], link["price_per_gb"]),
        ]
        for link in found["links"]
    ]
    screen.table(["LINK", "STATE", "RATE", "DELAY", "JITTER", "LOSS", "MTU", "PRICE/GB"], links)
    return exits.OK


@command("topology", examples="isthmus lab topology | isthmus net load -", help=_("The network as YAML with the addresses that it has, for `isthmus net load`."))  # fmt: skip
@_network
@_json
@_loaded
def topology(network: str | None, as_json: bool) -> int:
    from isthmus.lab.network import showing

    found = showing.declared(_choose(network))
    if as_json:
        screen.put_json(found)
    else:
        import yaml

        screen.put(yaml.safe_dump(found, sort_keys=False).rstrip())
    return exits.OK


@command(
    "exec",
    examples="isthmus lab exec north -- ping -c 3 south",
    keep_tail=True,
    help=_("Run a command at a node: it sees that node's network, and sites by name where the site has daemons."),
)
@_network
@click.argument("node")
@click.pass_context
@_loaded
def exec_(ctx: click.Context, network: str | None, node: str) -> int:
    from isthmus.lab.network.showing import enter_command

    words = list(tail_of(ctx))
    if not words:
        raise click.UsageError(_("Name the command after `--`."), ctx)
    argv = enter_command(_choose(network), node, words)
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606  (the command takes the place of this process)


@command("fail", examples="isthmus lab fail r1-r2\nisthmus lab fail north", help=_("Cut links, or take nodes down: a node that is down has no link, and its processes stand still."))  # fmt: skip
@_network
@click.argument("names", nargs=-1, required=True, metavar="LINK|NODE...")
@_loaded
def fail(network: str | None, names: tuple[str, ...]) -> int:
    weather = _weather(network)
    for name in names:
        weather.fail(name)
    return exits.OK


@command("partition", examples="isthmus lab partition north r1", help=_("Cut all links between these nodes and the others; the cut links are named."))  # fmt: skip
@_network
@click.argument("nodes", nargs=-1, required=True)
@_loaded
def partition(network: str | None, nodes: tuple[str, ...]) -> int:
    for name in _weather(network).partition(nodes):
        screen.put(name)
    return exits.OK


@command("brownout", examples="isthmus lab brownout r1-r2 --rate '10 Mbit/s'\nisthmus lab brownout r1-r2 --loss 5% --delay '80 ms'", help=_("Give a link worse figures than its own, until `isthmus lab heal`."))  # fmt: skip
@_network
@click.argument("link")
@click.option("--rate", metavar="RATE", help=_("Such as '10 Mbit/s'."))
@click.option("--delay", metavar="TIME", help=_("One way, such as '80 ms'; for a link that was built with a delay."))
@click.option("--loss", metavar="SHARE", help=_("Such as 5% or 0.05."))
@_loaded
def brownout(network: str | None, link: str, rate: str | None, delay: str | None, loss: str | None) -> int:
    from isthmus.domain.quantities import read_rate, read_share, read_time
    from isthmus.lab.network.conditions import Brownout

    if rate is None and delay is None and loss is None:
        raise click.UsageError(_("Say what becomes worse: --rate, --delay, --loss."))
    worse = Brownout(
        rate_bits_per_second=None if rate is None else read_rate(rate, "rate"),
        delay_seconds=None if delay is None else read_time(delay, "delay"),
        loss=None if loss is None else read_share(loss, "loss"),
    )
    _weather(network).brown_out(link, worse)
    return exits.OK


@command("heal", examples="isthmus lab heal r1-r2\nisthmus lab heal --all", help=_("End the failures and brown-outs of links and nodes."))  # fmt: skip
@_network
@click.argument("names", nargs=-1, metavar="LINK|NODE...")
@click.option("--all", "everything", is_flag=True, help=_("All of them."))
@_loaded
def heal(network: str | None, names: tuple[str, ...], everything: bool) -> int:
    if bool(names) == everything:
        raise click.UsageError(_("Name links and nodes, or say --all."))
    weather = _weather(network)
    for name in names or (None,):
        weather.heal(name)
    return exits.OK


@command("reroute", examples="isthmus lab reroute", help=_("Let the shortest paths avoid what has failed, as routing protocols would some time later; after a heal, use it again."))  # fmt: skip
@_network
@_loaded
def reroute(network: str | None) -> int:
    _weather(network).reroute()
    return exits.OK


def _weather(network: str | None) -> Any:
    from isthmus.lab.network.possible import check_root
    from isthmus.lab.network.weather import Weather

    check_root()
    return Weather(_choose(network))


def _choose(network: str | None) -> str:
    """The network that is meant: the named one, else the only one."""
    from isthmus.lab.network.places import networks

    if network is not None:
        return network
    found = networks()
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(_("No network is up."), remedy="isthmus lab up TOPOLOGY.yaml")
    raise click.UsageError(_("Several networks are up: say --network {names}.").format(names="|".join(found)))
