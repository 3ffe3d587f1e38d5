"""`isthmus user`, `project`, `token`."""

from __future__ import annotations

from typing import Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import Group, command
from isthmus.cli.messages import _
from isthmus.cli.session import Session, answers, confirm

_HERE = "isthmus.cli.people:"
_SETTINGS = {"help_option_names": ["-h", "--help"]}
user = Group(
    name="user",
    lazy={
        "add": (_HERE + "user_add", "Make (or enable) a user", "Commands"),
        "ls": (_HERE + "user_ls", "List users", "Commands"),
        "disable": (_HERE + "user_disable", "Shut a user out and end their tokens", "Commands"),
    },
    examples="isthmus user add alice\nisthmus token create --user alice > alice.token",
    help=_("Users."),
    context_settings=_SETTINGS,
)
project = Group(
    name="project",
    lazy={
        "add": (_HERE + "project_add", "Make a project", "Commands"),
        "ls": (_HERE + "project_ls", "List your projects", "Commands"),
        "show": (_HERE + "project_show", "Show a project's share and use", "Commands"),
        "share": (_HERE + "project_share", "Set a project's share", "Commands"),
        "home": (_HERE + "project_home", "Set the site of a project's people", "Commands"),
        "member": (_HERE + "member", "Members of a project", "Commands"),
    },
    examples="isthmus project add climate\nisthmus project share climate 2\nisthmus project member add climate alice",
    help=_("Projects and their members."),
    context_settings=_SETTINGS,
)
member = Group(
    name="member",
    lazy={
        "add": (_HERE + "member_add", "Make a user a member, or change the role", "Commands"),
        "ls": (_HERE + "member_ls", "List members", "Commands"),
        "rm": (_HERE + "member_rm", "Take a member out", "Commands"),
    },
    examples="isthmus project member add climate alice --role manager",
    help=_("Members of a project."),
    context_settings=_SETTINGS,
)
token = Group(
    name="token",
    lazy={
        "create": (_HERE + "token_create", "Make a token; its secret is printed once", "Commands"),
        "ls": (_HERE + "token_ls", "List your tokens", "Commands"),
        "revoke": (_HERE + "token_revoke", "End a token at once", "Commands"),
    },
    examples="isthmus token create --description laptop --expires 90d > token && chmod 600 token",
    help=_("Your tokens."),
    context_settings=_SETTINGS,
)


def _rows(session: Session, found: list[dict[str, Any]], names: list[str], empty: str) -> int:
    if session.as_json:
        screen.put_json(found)
    elif not found:
        screen.say(empty)
    else:
        headers = [name.replace("_", " ").upper() for name in names]
        screen.table(headers, [[_cell(row.get(name)) for name in names] for row in found])
    return exits.OK


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return _("yes") if value else ""
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return "" if value is None else str(value)


def _made(session: Session, answer: Any, text: str) -> int:
    session.answer(answer, text)
    return exits.OK


@command("add", examples="isthmus user add alice", help=_("Make a user, or enable one again (administrators)."))
@click.argument("name")
@click.option("--admin", is_flag=True, help=_("May do everything."))
@answers
def user_add(session: Session, name: str, admin: bool) -> int:
    from isthmus.client import administration

    answer = session.run(administration.add_user(name, is_admin=admin))
    screen.suggest(f"isthmus token create --user {name}")
    return _made(session, answer, _("user {name}").format(name=name))


@command("ls", examples="isthmus user ls", help=_("List users (administrators)."))
@answers
def user_ls(session: Session) -> int:
    from isthmus.client import administration

    found = session.run(administration.users())
    return _rows(session, found, ["name", "is_admin", "disabled", "created_at"], _("No users."))


@command("disable", examples="isthmus user disable alice", help=_("Shut a user out and end their tokens."))
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help=_("Do not ask."))
@answers
def user_disable(session: Session, name: str, yes: bool) -> int:
    from isthmus.client import administration

    confirm(_("Shut {name} out and end their tokens?").format(name=name), yes=yes)
    session.run(administration.disable_user(name))
    return _made(session, {"name": name, "disabled": True}, _("{name} is shut out.").format(name=name))


@command(
    "add",
    examples="isthmus project add climate\nisthmus project add climate --home alpha",
    help=_("Make a project (administrators)."),
)
@click.argument("name")
@click.option("--home", default="", metavar="SITE", help=_("The site of its people, where they come first."))
@answers
def project_add(session: Session, name: str, home: str) -> int:
    from isthmus.client import administration

    steps = administration.add_project(name, home=home)
    return _made(session, session.run(steps), _("project {name}").format(name=name))


@command("ls", examples="isthmus project ls", help=_("List your projects."))
@answers
def project_ls(session: Session) -> int:
    from isthmus.client import administration

    return _rows(
        session, session.run(administration.projects()), ["name", "role", "home", "created_at"], _("No projects.")
    )


@command(
    "show",
    examples="isthmus project show climate",
    help=_("Show a project's share of the processors, and how much of it the project has used lately."),
)
@click.argument("name")
@answers
def project_show(session: Session, name: str) -> int:
    from isthmus.client import administration

    return _show_project(session, session.run(administration.project(name)))


@command(
    "share",
    examples="isthmus project share climate 2",
    help=_(
        "Set a project's share (administrators): while both have work, a project of share 2 gets twice the processor time of one "
        "of share 1, which is every project's at first."
    ),
)
@click.argument("name")
@click.argument("share", type=float, metavar="N")
@answers
def project_share(session: Session, name: str, share: float) -> int:
    from isthmus.client import administration

    return _show_project(session, session.run(administration.share_project(name, share)))


@command(
    "home",
    examples="isthmus project home climate alpha\nisthmus project home climate --none",
    help=_(
        "Set the site of a project's people (administrators). There they come first: tasks of others start only where they make no task "
        "or job of the site's own users wait longer than it would alone."
    ),
)
@click.argument("name")
@click.argument("site", required=False, default="")
@click.option("--none", "nowhere", is_flag=True, help=_("It has no home any more."))
@answers
def project_home(session: Session, name: str, site: str, nowhere: bool) -> int:
    from isthmus.client import administration

    if bool(site) == nowhere:
        raise click.UsageError(_("Name a site, or give --none."))
    return _show_project(session, session.run(administration.home_project(name, site)))


def _show_project(session: Session, found: dict[str, Any]) -> int:
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    from isthmus.domain.units import show_duration

    screen.put(_("{name}: share {share:g}").format(name=found["name"], share=found["share"]))
    if found["home"]:
        screen.put(_("Its people are at home at {site}, where they come first.").format(site=found["home"]))
    if found["of_share"] is None:
        screen.put(_("Nobody used anything lately."))
    else:
        screen.put(
            _(
                "It may have {part:.0%} beside {others} other active projects, and has used {times:.2g} times that."
            ).format(part=found["part"], others=found["active_projects"] - 1, times=found["of_share"])
        )
    screen.put(
        _(
            "Used {used:.1f} processor hours (half is forgotten in {time}), promised {promised:.1f}; {waiting} tasks wait."
        ).format(
            used=found["used_cpu_seconds"] / 3600,
            time=show_duration(found["half_life_seconds"]),
            promised=found["promised_cpu_seconds"] / 3600,
            waiting=found["waiting"],
        )
    )
    return exits.OK


@command(
    "add", examples="isthmus project member add climate alice", help=_("Make a user a member, or change the role.")
)
@click.argument("project_name", metavar="PROJECT")
@click.argument("user_name", metavar="USER")
@click.option("--role", type=click.Choice(["member", "manager"]), default="member", help=_("The role."))
@answers
def member_add(session: Session, project_name: str, user_name: str, role: str) -> int:
    from isthmus.client import administration

    answer = session.run(administration.add_member(project_name, user_name, role=role))
    return _made(
        session, answer, _("{user} is {role} of {project}").format(user=user_name, role=role, project=project_name)
    )


@command("ls", examples="isthmus project member ls climate", help=_("List the members of a project."))
@click.argument("project_name", metavar="PROJECT")
@answers
def member_ls(session: Session, project_name: str) -> int:
    from isthmus.client import administration

    return _rows(session, session.run(administration.members(project_name)), ["user", "role"], _("No members."))


@command("rm", examples="isthmus project member rm climate alice", help=_("Take a member out of a project."))
@click.argument("project_name", metavar="PROJECT")
@click.argument("user_name", metavar="USER")
@answers
def member_rm(session: Session, project_name: str, user_name: str) -> int:
    from isthmus.client import administration

    session.run(administration.remove_member(project_name, user_name))
    return _made(session, {}, _("{user} is out of {project}").format(user=user_name, project=project_name))


@command(
    "create",
    examples="""
    umask 077; isthmus token create --description laptop --expires 90d > ~/.config/isthmus/token
    isthmus token create --scope tasks:read --json
    """,
    help=_("Make a token. Its secret goes to stdout, once; talk goes to stderr."),
)
@click.option("--description", default="", help=_("What it is for."))
@click.option("--scope", "scopes", multiple=True, help=_("tasks:read, tasks:write, sites:operate, network:operate, metrics, admin; may be repeated (tasks:write)."))  # fmt: skip
@click.option("--expires", default="", metavar="TIME", help=_("Ends after: 90d, 12h."))
@click.option("--user", "for_user", default="", help=_("For another user (administrators)."))
@answers
def token_create(session: Session, description: str, scopes: tuple[str, ...], expires: str, for_user: str) -> int:
    from isthmus.client import administration
    from isthmus.domain.units import parse_duration

    seconds = parse_duration(expires, "expires") if expires else None
    steps = administration.create_token(
        description=description, scopes=scopes or ("tasks:write",), expires_in_seconds=seconds, user=for_user
    )
    answer = session.run(steps)
    if session.as_json:
        screen.put_json(answer)
        return exits.OK
    screen.say(_("token {id}; its secret follows on stdout and is never shown again").format(id=answer.get("id", "")))
    screen.put(str(answer.get("token", "")))
    return exits.OK


@command("ls", examples="isthmus token ls", help=_("List your tokens, without their secrets."))
@answers
def token_ls(session: Session) -> int:
    from isthmus.client import administration

    names = ["id", "user", "scopes", "description", "created_at", "expires_at", "revoked_at", "last_used_at"]
    return _rows(session, session.run(administration.tokens()), names, _("No tokens."))


@command("revoke", examples="isthmus token revoke ID", help=_("End a token at once."))
@click.argument("token_id", metavar="ID")
@answers
def token_revoke(session: Session, token_id: str) -> int:
    from isthmus.client import administration

    session.run(administration.revoke_token(token_id))
    return _made(session, {}, _("token {id} is ended").format(id=token_id))
