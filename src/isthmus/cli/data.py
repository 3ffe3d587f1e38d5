"""`isthmus data`: datasets, their copies at sites, and transfers between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli import exits, screen
from isthmus.cli.grammar import Group, command
from isthmus.cli.messages import _, _n
from isthmus.cli.session import Session, answers, confirm

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.client.datasets import Dataset, Transfer
    from isthmus.domain.dataset import DatasetRef

_HERE = "isthmus.cli.data:"
_MOVE, _KEEP = "Move", "Keep"
data = Group(
    name="data",
    lazy={
        "put": (_HERE + "put", "Make a local file or directory a dataset", _MOVE),
        "get": (_HERE + "get", "Fetch a dataset, or a part of it", _MOVE),
        "cp": (_HERE + "cp", "Have a copy at a site as well", _MOVE),
        "transfers": (_HERE + "transfers", "What moves, and what has moved", _MOVE),
        "ls": (_HERE + "ls", "List datasets", _KEEP),
        "show": (_HERE + "show", "Show a dataset, its copies and where it comes from", _KEEP),
        "pin": (_HERE + "pin", "Keep copies from being evicted", _KEEP),
        "unpin": (_HERE + "unpin", "Let copies be evicted again", _KEEP),
        "verify": (_HERE + "verify", "Read copies again and compare; bring spoiled ones anew", _KEEP),
        "label": (_HERE + "label", "Say how sensitive it is and which regions it may not leave", _KEEP),
        "rm": (_HERE + "rm", "Let a copy go, or forget a dataset", _KEEP),
    },
    examples="""
    isthmus data put ./era5 climate/era5
    isthmus data cp climate/era5 bergen
    isthmus run --in data:climate/era5=input --out result.nc=data:climate/means -- ./means input
    """,
    help=_("Named content in versions: where copies of it lie, and how they move."),
    context_settings={"help_option_names": ["-h", "--help"]},
)
_name = click.argument("name", metavar="[PROJECT/]NAME[@VERSION]")


def _ref(session: Session, text: str) -> DatasetRef:
    from isthmus.domain.dataset import DatasetRef

    return DatasetRef.parse(text.removeprefix("data:"), session.project)


def _place(site: str) -> str:
    from isthmus.domain.dataset import HOME

    return _("the service") if site == HOME else site


@command(
    "put",
    examples="""
    isthmus data put ./era5 climate/era5
    isthmus data put scans.tar hospital/scans --stay-in north --sensitivity personal
    isthmus data put ./era5 climate/era5 --to bergen
    isthmus data put bergen:/archive/era5 climate/era5
    """,
    help=_(
        "Make a local file or directory the newest version of a dataset. What the service has already is not sent; a broken put "
        "goes on where it stopped. The same content again makes no new version. SITE:/PATH stays where it is: the site's agent "
        "hashes it there, and nothing is copied; so does SITE:s3://BUCKET/PREFIX, SITE:sftp://HOST/DIR, SITE:https://HOST/FILE."
    ),
)
@click.argument("source", metavar="LOCAL|SITE:/PATH")
@click.argument("name", metavar="[PROJECT/]NAME")
@click.option("--to", "site", default="", metavar="SITE", help=_("Have a copy at this site too, and wait for it."))
@click.option(
    "--stay-in", "regions", multiple=True, metavar="REGION", help=_("No copy may leave it; may be given again.")
)
@click.option("--sensitivity", default=None, metavar="WORD", help=_("How sensitive it is, in a word of yours."))
@click.option("--pin", "pinned", is_flag=True, help=_("Keep the copy from being evicted."))
@answers
def put(
    session: Session,
    source: str,
    name: str,
    site: str,
    regions: tuple[str, ...],
    sensitivity: str | None,
    pinned: bool,
) -> int:
    from isthmus.client import datasets
    from isthmus.domain.units import show_size

    ref = _ref(session, name)
    labels: dict[str, Any] = {"sensitivity": sensitivity, "regions": regions or None, "pinned": pinned and not site}
    with _status(session, _("reading {path}").format(path=source)) as status:
        if (there := _at_site(source)) is not None:
            progress = _reading(status, _("reading at {site}").format(site=there[0]))
            made = session.run(datasets.register(*there, ref, progress=progress, **labels))
        else:
            sending = _bytes(status, _("sending"))
            made = session.run(datasets.put(Path(source), ref, progress=sending, say=screen.say, **labels))
    size = show_size(made.size_bytes)
    said = _n("{ref}: {files} file, {size}", "{ref}: {files} files, {size}", made.files)
    screen.say(said.format(ref=made.ref.versioned, files=made.files, size=size))
    if site:
        transfer = session.run(datasets.copy(made.ref, site, pinned=pinned))
        if transfer is not None:
            _wait(session, transfer)
        made = session.run(datasets.dataset(made.ref))
    if session.as_json:
        screen.put_json(made)
    else:
        screen.put(made.ref.versioned)
    return exits.OK


def _at_site(source: str) -> tuple[str, str] | None:
    """Site and path of SITE:/PATH; None for what is here. An error for what is neither."""
    from isthmus.domain.ids import is_name

    if Path(source).exists():
        return None
    site, colon, path = source.partition(":")
    if colon and is_name(site) and (path.startswith("/") or "://" in path):
        return site, path
    raise click.BadParameter(
        _("there is no {path} here; write SITE:/PATH for what lies at a site.").format(path=repr(source)),
        param_hint="LOCAL",
    )


def _reading(status: Any, what: str) -> Callable[[int, int, float | None], None]:
    from isthmus.domain.units import show_duration, show_size

    def tell(done: int, whole: int, left: float | None) -> None:
        if status is not None:
            ends = "" if left is None else ", " + _("{time} left").format(time=show_duration(left))
            status.update(f"{what} {show_size(done)} / {show_size(whole)}{ends}")

    return tell


@command(
    "get",
    examples="""
    isthmus data get climate/era5
    isthmus data get climate/era5@2:2026/01 --to january
    """,
    help=_(
        "Fetch a dataset, or one file or directory of it. Goes on where an earlier try stopped, checks every hash, and leaves "
        "alone what is here already."
    ),
)
@click.argument("name", metavar="[PROJECT/]NAME[@VERSION][:PATH]")
@click.option(
    "--to", type=click.Path(path_type=Path), default=None, metavar="DIR", help=_("Where to (a directory of its name).")
)
@answers
def get(session: Session, name: str, to: Path | None) -> int:
    from isthmus.client import datasets

    ref = _ref(session, name)
    with _status(session, _("fetching")) as status:
        paths = session.run(
            datasets.get(ref, to or Path(ref.name), progress=_bytes(status, _("fetching")), watch=_watch(status))
        )
    if session.as_json:
        screen.put_json([str(path) for path in paths])
    else:
        for path in paths:
            screen.put(str(path))
    return exits.OK


@command(
    "cp",
    examples="""
    isthmus data cp climate/era5 bergen
    isthmus data cp climate/era5 bergen turin poznan
    isthmus data cp climate/era5@2 bergen --pin --no-wait
    isthmus data cp climate/era5 bergen turin --by +6h
    """,
    help=_(
        "Have a copy of a version at a site as well: directly from a site that has one where that can be, else through the service. To "
        "several sites it goes as a tree: those that receive it pass on what they have. --by TIME: parts of the links are promised to it, so that "
        "it is there by then; where that cannot be, nothing is copied, and the soonest time is named."
    ),
)
@_name
@click.argument("sites", metavar="SITE...", nargs=-1, required=True)
@click.option("--pin", "pinned", is_flag=True, help=_("Keep the copy from being evicted."))
@click.option("--rate", default="", metavar="SIZE", help=_("At most so many bytes a second, such as 20M."))
@click.option("--by", default=None, metavar="TIME", help=_("To be there by: 2026-12-01T18:00 or +6h."))
@click.option("--wait/--no-wait", "waits", default=True, help=_("Wait until it is there (the default)."))
@answers
def cp(
    session: Session, name: str, sites: tuple[str, ...], pinned: bool, rate: str, by: str | None, waits: bool
) -> int:
    from isthmus.client import datasets
    from isthmus.domain.units import parse_size

    ref = _ref(session, name)
    most = parse_size(rate, "rate") if rate else 0
    asked = session.run(datasets.copies(ref, sites, pinned=pinned, bytes_per_second=most, by=by))
    for site, transfer in zip(sites, asked, strict=True):
        if transfer is None:
            screen.say(_("{ref} is at {site} already").format(ref=ref, site=site))
    moving = [transfer for transfer in asked if transfer is not None]
    for transfer in moving:
        if transfer.by is not None:
            told = _("promised: {ref} at {site} by {time}")
            named = f"{transfer.project}/{transfer.dataset}@{transfer.version}"
            screen.say(told.format(ref=named, site=transfer.target, time=screen.moment(transfer.by)))
    if waits:
        moving = [_wait(session, transfer) for transfer in moving]
    if session.as_json:
        shown = {one.target: one for one in moving}
        documents: list[object] = [shown.get(site, {"transfer": None}) for site in sites]
        screen.put_json(documents[0] if len(sites) == 1 else documents)
    elif not waits:
        for transfer in moving:
            screen.put(transfer.id)
        screen.suggest("isthmus data transfers --open")
    return exits.OK


def _wait(session: Session, transfer: Transfer) -> Transfer:
    from isthmus.cli.plans import way_in_words
    from isthmus.client import datasets
    from isthmus.domain.units import show_size

    with _status(session, _("moving")) as status:
        done = session.run(datasets.wait(transfer, watch=_watch(status)))
    how = way_in_words(done.through, done.relay, done.multipath, done.ways)
    screen.say(
        _("{size} from {source} to {target}, {how}, in {time}").format(
            size=show_size(done.size_bytes),
            source=_place(done.source),
            target=_place(done.target),
            how=how,
            time=screen.span(done.started_at, done.ended_at),
        )
    )
    return done


def _status(session: Session, text: str) -> Any:
    from isthmus.cli.run import _status as made

    return made(not session.as_json, text)


def _bytes(status: Any, what: str) -> Callable[[int, int], None]:
    from isthmus.domain.units import show_size

    def tell(done: int, whole: int) -> None:
        if status is not None:
            status.update(f"{what} {show_size(done)} / {show_size(whole)}")

    return tell


def _watch(status: Any) -> Callable[[Transfer], None]:
    def tell(transfer: Transfer) -> None:
        if status is not None:
            status.update(_going(transfer))

    return tell


def _going(transfer: Transfer) -> str:
    """How a transfer goes: bytes, rate, when it should end."""
    from isthmus.domain.units import show_size

    said = f"{show_size(transfer.done_bytes)} / {show_size(transfer.size_bytes)}"
    if transfer.bytes_per_second:
        said += f", {show_size(int(transfer.bytes_per_second))}/s"
    if transfer.ends_at is not None and not transfer.ended:
        said += ", " + _("until {time}").format(time=transfer.ends_at.astimezone().strftime("%H:%M:%S"))
    return f"{said}. {transfer.message}" if transfer.message else said


@command("ls", examples="isthmus data ls\nisthmus data ls --project climate -o wide", help=_("List the project's datasets with their newest versions and the places that hold them."))  # fmt: skip
@answers
def ls(session: Session) -> int:
    from isthmus.client import datasets
    from isthmus.domain.units import show_size

    found = session.run(datasets.all_datasets(project=session.project))
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    headers = [_("DATASET"), _("VERSION"), _("FILES"), _("SIZE")]
    headers += [_("OWNER"), _("SENSITIVITY"), _("STAYS IN"), _("AGE")] if session.wide else []
    rows = []
    for one in found:
        row: list[Any] = [f"{one.project}/{one.name}", str(one.version), str(one.files), show_size(one.size_bytes)]
        if session.wide:
            row += [one.owner, one.sensitivity, ", ".join(one.regions), screen.age(one.updated_at)]
        rows.append([*row, ", ".join(map(_place, one.places))])
    screen.table([*headers, _("AT")], rows, right=(1, 2, 3))
    return exits.OK


@command("show", examples="isthmus data show climate/era5\nisthmus data show climate/era5@2 --files", help=_("Show a version of a dataset: its copies, its labels, which task made it out of what; or its files."))  # fmt: skip
@_name
@click.option("--files", "list_files", is_flag=True, help=_("List its files."))
@answers
def show(session: Session, name: str, list_files: bool) -> int:
    from isthmus.client import datasets

    ref = _ref(session, name)
    if list_files:
        files = session.run(datasets.files(ref))
        if session.as_json:
            screen.put_json(files)
        else:
            screen.table([_("PATH"), _("BYTES"), "BLAKE3"], [[f.path, str(f.size_bytes), f.blake3] for f in files])
        return exits.OK
    found = session.run(datasets.dataset(ref))
    if session.as_json:
        screen.put_json(found)
        return exits.OK
    _show(found, session.wide)
    return exits.OK


def _show(found: Dataset, wide: bool) -> None:
    from isthmus.domain.units import show_size

    screen.pairs(
        [
            (_("dataset"), found.ref.versioned),
            (_("owner"), found.owner),
            (_("files"), str(found.files)),
            (_("size"), show_size(found.size_bytes)),
            (_("sensitivity"), found.sensitivity),
            (_("stays in"), ", ".join(found.regions)),
            (_("made by task"), found.made_by),
            (_("made from"), ", ".join(found.made_from)),
            (_("made at"), screen.moment(found.created_at)),
            (_("versions"), ", ".join(str(item["version"]) for item in found.versions)),
            (_("manifest"), found.manifest if wide else ""),
        ]
    )
    screen.put("")
    rows = []
    for copy in found.replicas:
        kept = _("pinned") if copy.pinned else _("cached") if copy.cached else _("kept")
        kept = f"{kept}, {_('in place')}" if copy.in_place else kept
        rows.append(
            [
                _place(copy.site),
                copy.state,
                copy.tier,
                kept,
                str(copy.uses),
                f"{copy.heat:.1f}",
                screen.age(copy.used_at),
            ]
        )
    screen.table([_("AT"), _("STATE"), _("TIER"), _("KEPT"), _("USES"), _("HEAT"), _("LAST USED")], rows, right=(4, 5))


@command("transfers", examples="isthmus data transfers --open\nisthmus data transfers climate/era5 -o wide", help=_("List transfers of the project's datasets, newest first."))  # fmt: skip
@click.argument("name", required=False, default="", metavar="[[PROJECT/]NAME]")
@click.option("--open", "open_only", is_flag=True, help=_("Only those that are not over."))
@click.option("--cancel", "cancelled", default="", metavar="ID", help=_("End this one."))
@answers
def transfers(session: Session, name: str, open_only: bool, cancelled: str) -> int:
    from isthmus.client import datasets

    if cancelled:
        ended = session.run(datasets.cancel_transfer(cancelled, project=session.project))
        session.answer(ended, _("transfer {id} is {state}").format(id=ended.id, state=ended.state))
        return exits.OK
    from isthmus.cli.plans import way_in_words

    ref = _ref(session, name) if name else None
    page = session.run(
        datasets.transfers(
            project=ref.project if ref else session.project, dataset=ref.name if ref else "", open_only=open_only
        )
    )
    if session.as_json:
        screen.put_json(page.items)
        return exits.OK
    headers = [_("TRANSFER"), _("DATASET"), _("FROM"), _("TO"), _("STATE")]
    headers += [_("THROUGH"), _("PROMISED"), _("BY"), _("FOR TASK"), _("AGE")] if session.wide else []
    rows = []
    for one in page.items:
        row = [one.id, f"{one.dataset}@{one.version}", _place(one.source) if one.source else "", _place(one.target)]
        row.append(one.state)
        if session.wide:
            how = way_in_words(one.through, one.relay, one.multipath, one.ways) if one.through else ""
            by = screen.moment(one.by) if one.by is not None else ""
            row += [how, _promised(one), _("{time}, late").format(time=by) if one.late else by]
            row += [one.task_id, screen.age(one.created_at)]
        rows.append([*row, _going(one)])
    screen.table([*headers, _("PROGRESS")], rows)
    return exits.OK


def _promised(transfer: Transfer) -> str:
    """The window that a transfer was promised, its highest rate, and the links."""
    from datetime import UTC, datetime

    from isthmus.domain.units import show_size

    if not transfer.stretches:
        return ""
    begins, ends = (
        screen.moment(datetime.fromtimestamp(at, UTC))
        for at in (transfer.stretches[0]["begins"], transfer.stretches[-1]["ends"])
    )
    rate = show_size(int(max(part["bytes_per_second"] for part in transfer.stretches)))
    links = " ".join(link.rpartition("/")[2].partition(">")[0] for link in transfer.links)
    return f"{begins} - {ends}, {rate}/s, {links}"


@command("pin", examples="isthmus data pin climate/era5 --at bergen", help=_("Keep a version's copies (at one site, or all) from being evicted."))  # fmt: skip
@_name
@click.option("--at", "site", default="", metavar="SITE", help=_("Only the copy at this site."))
@answers
def pin(session: Session, name: str, site: str) -> int:
    return _pin(session, name, site, pinned=True)


@command("unpin", examples="isthmus data unpin climate/era5 --at bergen", help=_("Let a version's copies be evicted again."))  # fmt: skip
@_name
@click.option("--at", "site", default="", metavar="SITE", help=_("Only the copy at this site."))
@answers
def unpin(session: Session, name: str, site: str) -> int:
    return _pin(session, name, site, pinned=False)


def _pin(session: Session, name: str, site: str, *, pinned: bool) -> int:
    from isthmus.client import datasets

    ref = _ref(session, name)
    found = session.run(datasets.pin(ref, site=site, pinned=pinned))
    said = _("{ref} is pinned") if pinned else _("{ref} is no longer pinned")
    session.answer(found, said.format(ref=found.ref.versioned) + (f" ({site})" if site else ""))
    return exits.OK


@command("label", examples="isthmus data label hospital/scans --stay-in north --sensitivity personal\nisthmus data label climate/era5 --anywhere", help=_("Set a dataset's labels. Refused while a copy lies where they would not let it be."))  # fmt: skip
@_name
@click.option(
    "--stay-in", "regions", multiple=True, metavar="REGION", help=_("No copy may leave it; may be given again.")
)
@click.option("--anywhere", is_flag=True, help=_("Copies may be anywhere."))
@click.option("--sensitivity", default=None, metavar="WORD", help=_("How sensitive it is, in a word of yours."))
@answers
def label(session: Session, name: str, regions: tuple[str, ...], anywhere: bool, sensitivity: str | None) -> int:
    from isthmus.client import datasets

    if bool(regions) == anywhere and (regions or sensitivity is None):
        raise click.UsageError(_("Give --stay-in, --anywhere or --sensitivity."))
    wanted = () if anywhere else regions or None
    found = session.run(datasets.label(_ref(session, name), sensitivity=sensitivity, regions=wanted))
    stays = ", ".join(found.regions) or _("anywhere")
    session.answer(found, _("{ref} stays in: {regions}").format(ref=f"{found.project}/{found.name}", regions=stays))
    return exits.OK


@command("rm", examples="isthmus data rm climate/era5 --at bergen\nisthmus data rm climate/era5@1 --yes", help=_("Let the copy at one site go, or, without --at, forget a version (or all of a dataset) and every copy."))  # fmt: skip
@_name
@click.option(
    "--at", "site", default="", metavar="SITE", help=_("Only the copy at this site (@service: the service's).")
)
@click.option("--yes", is_flag=True, help=_("Do not ask."))
@answers
def rm(session: Session, name: str, site: str, yes: bool) -> int:
    from isthmus.client import datasets

    ref = _ref(session, name)
    if not site:
        confirm(_("Forget {ref} and every copy of it?").format(ref=ref), yes=yes)
    session.run(datasets.remove(ref, site=site))
    said = _("the copy of {ref} at {site} goes") if site else _("{ref} is forgotten; its copies go")
    session.answer({"removed": str(ref), "site": site}, said.format(ref=ref, site=site))
    return exits.OK


@command("verify", examples="isthmus data verify climate/era5\nisthmus data verify climate/era5@2 --at bergen", help=_("Have every copy of a version read where it lies and compared with its hashes. A spoiled one is out of use at once, and comes again from a good one. Ends with 1 when one was spoiled or could not be read."))  # fmt: skip
@_name
@click.option(
    "--at", "site", default="", metavar="SITE", help=_("Only the copy at this site (@service: the service's).")
)
@click.option(
    "--wait/--no-wait", "waits", default=True, help=_("Wait until spoiled copies are there again (the default).")
)
@answers
def verify(session: Session, name: str, site: str, waits: bool) -> int:
    from isthmus.client import datasets

    ref = _ref(session, name)
    with _status(session, _("reading")) as status:
        found = session.run(datasets.verify(ref, site=site, watch=_checks(status)))
    if session.as_json:
        screen.put_json(found)
    else:
        rows = []
        for one in found:
            wrong = ", ".join(one.wrong[:5]) + (f" +{one.wrong_files - 5}" if one.wrong_files > 5 else "")
            after = (
                _("comes again") if one.transfer else _("no good copy elsewhere") if one.wrong_files else one.message
            )
            rows.append([_place(one.site), one.state, str(one.wrong_files), wrong, after])
        screen.table([_("AT"), _("STATE"), _("WRONG"), _("FILES"), ""], rows, right=(2,))
    for one in found:
        if waits and one.transfer:
            _wait(session, session.run(datasets.one_transfer(one.transfer, project=ref.project)))
    return exits.OK if all(one.state == "good" for one in found) else 1


def _checks(status: Any) -> Callable[[list[Any]], None]:
    from isthmus.domain.units import show_size

    def tell(found: list[Any]) -> None:
        if status is not None:
            parts = [
                f"{_place(one.site)} {show_size(one.done_bytes)} / {show_size(one.size_bytes)}"
                for one in found
                if one.state == "reading"
            ]
            status.update("; ".join(parts))

    return tell
