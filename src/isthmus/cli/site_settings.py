"""`isthmus site join|enrol|set|map`: what an operator says of a site."""

from __future__ import annotations

import json
from typing import Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers


def _settings(given: tuple[str, ...], flag: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise click.BadParameter(_("{text!r} has no value; write KEY=VALUE.").format(text=text), param_hint=flag)
        place = found
        *above, last = key.split(".")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = _value(value)
    return found


def _value(text: str) -> Any:
    """JSON where it is JSON (numbers, true, lists), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _texts(given: tuple[str, ...], flag: str) -> dict[str, str]:
    found = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise click.BadParameter(_("{text!r} is not USER=ACCOUNT.").format(text=text), param_hint=flag)
        found[key] = value
    return found


def _prices(given: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """`[POOL:]cpu_hour=0.01` as prices."""
    found: dict[str, dict[str, str]] = {}
    for text in given:
        key, separator, value = text.partition("=")
        pool, _colon, name = key.rpartition(":")
        if not separator or not name:
            raise click.BadParameter(
                _("{text!r} is not [POOL:]cpu_hour=AMOUNT.").format(text=text), param_hint="--price"
            )
        found.setdefault(pool or "*", {})[name] = value
    return found


@command(
    "join",
    examples="""
    isthmus site join local here
    isthmus site join ssh lab1 --set host=lab1.example --set user=alice --set key_file=/etc/isthmus/lab1.key
    isthmus site join slurm alpha --set host=login.alpha.example --account alice=al01 --account '*=guest' --region eu-north
    isthmus site join slurm beta --agent
    """,
    help=_(
        "Join a site. KIND is local, ssh, slurm, slurmrestd, gridengine or another that is installed. Settings are those of the "
        "kind; they name files that hold secrets, never a secret. With --agent the site dials out; a one-time token is printed."
    ),
)
@click.argument("kind")
@click.argument("name")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help=_("A setting of the kind; may be repeated.")
)
@click.option(
    "--account",
    "accounts",
    multiple=True,
    metavar="USER=LOCAL",
    help=_("Who runs as whom there; '*' is everybody else."),
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="[POOL:]cpu_hour=N",
    help=_(
        "What it costs: cpu_hour, accelerator_hour, and preemptible_share, the part (0 to 1) of it that preemptible tasks pay; and draws: cpu_watts, accelerator_watts, pue, carbon_grams_per_kwh. Prices and carbon also by the hour of "
        "the day (24 numbers, UTC) or week (168, from Monday), separated by commas."
    ),
)
@click.option("--region", default="", help=_("Where it is."))
@click.option("--trust", default="", help=_("Its level of trust."))
@click.option("--agent", is_flag=True, help=_("The site's own agent dials in; nothing here reaches out to it."))
@answers
def join(
    session: Session,
    kind: str,
    name: str,
    settings: tuple[str, ...],
    accounts: tuple[str, ...],
    prices: tuple[str, ...],
    region: str,
    trust: str,
    agent: bool,
) -> int:
    from isthmus.client import administration

    steps = administration.join_site(
        kind,
        name,
        config=_settings(settings, "--set"),
        accounts=_texts(accounts, "--account"),
        prices=_prices(prices),
        region=region,
        trust=trust,
        mode="agent" if agent else "direct",
    )
    made = session.run(steps)
    if not agent:
        if session.as_json:
            screen.put_json(made)
        else:
            screen.say(_("{name} joined.").format(name=made.name))
            screen.suggest(f"isthmus site show {made.name}")
        return exits.OK
    token = session.run(administration.enrol_site(made.name))
    if session.as_json:
        screen.put_json({"site": screen.plain(made), "enrolment": token})
    else:
        _tell_enrolment(made.name, token, session)
    return exits.OK


def _tell_enrolment(name: str, token: dict[str, Any], session: Session) -> None:
    screen.say(_("The agent's one-time token follows on stdout; it is shown once and ends {when}.").format(when=token.get("expires_at", "")))  # fmt: skip
    screen.put(str(token.get("token", "")))
    screen.say(_("At the site, with the token in a file of mode 600:"))
    screen.say(
        f"  isthmus agent --url {session.client.profile.url} --site-config {name}.yaml --state DIR --enrol-token-file FILE"
    )


@command("enrol", examples="isthmus site enrol beta > token", help=_("A one-time token for a site's agent, on stdout."))
@click.argument("name")
@answers
def enrol(session: Session, name: str) -> int:
    from isthmus.client import administration

    token = session.run(administration.enrol_site(name))
    if session.as_json:
        screen.put_json(token)
    else:
        _tell_enrolment(name, token, session)
    return exits.OK


@command("set", examples="isthmus site set alpha --set max_commands=4\nisthmus site set alpha --price cpu_hour=0.02", help=_("Change what an operator set of a site; what is not named stays."))  # fmt: skip
@click.argument("name")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=_("A setting of the kind."))
@click.option("--price", "prices", multiple=True, metavar="[POOL:]cpu_hour=N", help=_("What it costs."))
@click.option("--region", default=None, help=_("Where it is."))
@click.option("--trust", default=None, help=_("Its level of trust."))
@answers
def set_(
    session: Session,
    name: str,
    settings: tuple[str, ...],
    prices: tuple[str, ...],
    region: str | None,
    trust: str | None,
) -> int:
    from isthmus.client import administration

    now = session.client.site(name)
    changes: dict[str, Any] = {}
    if settings:
        changes["config"] = {**now.config, **_settings(settings, "--set")}
    if prices:
        changes["prices"] = {**now.prices, **_prices(prices)}
    changes |= {key: value for key, value in (("region", region), ("trust", trust)) if value is not None}
    if not changes:
        raise click.UsageError(_("What should change? Give --set, --price, --region or --trust."))
    session.answer(session.run(administration.change_site(name, changes)), _("{name} changed.").format(name=name))
    return exits.OK


@command(
    "map",
    examples="isthmus site map alpha\nisthmus site map alpha alice=al01 '*=guest'\nisthmus site map alpha --remove alice",
    help=_("Show or change which user is which local account at a site."),
)
@click.argument("name")
@click.argument("pairs", nargs=-1, metavar="[USER=LOCAL...]")
@click.option("--remove", multiple=True, metavar="USER", help=_("Take a user out."))
@answers
def map_(session: Session, name: str, pairs: tuple[str, ...], remove: tuple[str, ...]) -> int:
    from isthmus.client import administration

    now = session.client.site(name)
    accounts = dict(now.accounts)
    if pairs or remove:
        accounts |= _texts(pairs, "USER=LOCAL")
        for user in remove:
            accounts.pop(user, None)
        accounts = dict(session.run(administration.change_site(name, {"accounts": accounts})).accounts)
    if session.as_json:
        screen.put_json(accounts)
    else:
        rows = [[user, local or _("(the adapter's own)")] for user, local in sorted(accounts.items())]
        screen.table([_("USER"), _("ACCOUNT")], rows)
    return exits.OK
