"""The documents say what is there: commands, options, fields, settings and codes exist, and links lead somewhere."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from isthmus import checking
from isthmus.agent.main import parser as agent_parser
from isthmus.cli.main import isthmus
from isthmus.client import taskfile
from isthmus.domain import task as tasks
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.placement import Why
from isthmus.lab.network.reading import read_text
from isthmus.sites import registry

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
PAGES = [TOP / "README.md", *sorted(DOCS.rglob("*.md"))]
SPEC_TYPES = (
    tasks.TaskSpec,
    tasks.Demand,
    tasks.Accelerators,
    tasks.Objective,
    tasks.Constraints,
    tasks.Input,
    tasks.Output,
    tasks.Executor,
    tasks.Array,
    tasks.Together,
    tasks.Dependency,
)


def _name(page: Path) -> str:
    return str(page.relative_to(TOP))


def _command_lines() -> Iterator[tuple[str, str]]:
    """Every line of a fenced block, and every inline code, that begins with `isthmus`."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S):
            for line in block.splitlines():
                found = re.match(r"(?:\$ )?(?:ISTHMUS_\w+=\S+ )*(isthmus [a-z-].*)", line)
                if found:
                    yield _name(page), found[1]
        inline = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        for code in re.findall(r"`(isthmus [a-z-][^`]*)`", inline):
            if not code.startswith("isthmus COMMAND"):
                yield _name(page), code


def _until_shell(words: list[str]) -> list[str]:
    """A command line without its pipe or redirection."""
    for index, word in enumerate(words):
        if word in ("|", ">", "<", ";", "&&") or word.startswith((">", "<")):
            return words[:index]
    return words


def _parse(command: click.Command, words: list[str], info: str) -> None:
    context = click.Context(command, info_name=info)
    if isinstance(command, click.Group):
        if not words or words[0].startswith("-"):
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"{info} has no command {words[0]!r}"
        _parse(found, words[1:], f"{info} {words[0]}")
        return
    if getattr(command, "keep_tail", False) and "--" in words:
        words = words[: words.index("--")]
    command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize(("page", "line"), sorted(set(_command_lines())))
def test_every_command_line_exists(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command and all its options are known to the command line."""
    optional = re.sub(r"\[(--[^\]]*)\]", r"\1", line)  # `[--flag VALUE]`: it may be left out
    words = _until_shell(shlex.split(optional, comments=True))[1:]
    if words[:1] == ["agent"] and len(words) > 1:
        _argparse(agent_parser(), words[1:])
    elif words[:1] == ["check"] and len(words) > 1:
        with pytest.raises(SystemExit) as end:
            checking.main(["--state", "none", *words[1:], "--help"])
        assert end.value.code == 0, capsys.readouterr().err
    else:
        _parse(isthmus, words, "isthmus")


def _argparse(parser: argparse.ArgumentParser, words: list[str]) -> None:
    _, unknown = parser.parse_known_args(words)
    assert not unknown


def _anchor(heading: str) -> str:
    text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return text.strip().replace(" ", "-")


def _links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+://|mailto:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), sorted(set(_links())), ids=lambda value: str(value).split("/")[-1])
def test_every_internal_link_leads_somewhere(page: Path, target: str) -> None:
    """The file is there, and so is its heading."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists(), f"{_name(page)} points to {target}"
    if anchor:
        headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
        assert anchor in {_anchor(heading) for heading in headings}


@pytest.mark.parametrize("kind", SPEC_TYPES, ids=lambda kind: kind.__name__)
def test_every_field_of_a_task_is_documented(kind: type) -> None:
    """docs/task-reference.md names every field in the section of its type."""
    text = (DOCS / "task-reference.md").read_text(encoding="utf-8")
    heading = "Task" if kind is tasks.TaskSpec else kind.__name__
    section = re.search(rf"^##+ {heading}\n(.*?)(?=^##|\Z)", text, re.M | re.S)
    assert section, heading
    missing = [item.name for item in fields(kind) if f"`{item.name}`" not in section[1]]  # type: ignore[arg-type]
    assert missing == []


def test_every_human_form_of_a_task_is_documented() -> None:
    """docs/task-reference.md names every key that a task file takes."""
    text = (DOCS / "task-reference.md").read_text(encoding="utf-8")
    assert [key for key in taskfile.KEYS if not re.search(rf"`{key}[`:]", text)] == []


@pytest.mark.parametrize("kind", sorted(entry.name for entry in entry_points(group="isthmus.sites")))
def test_every_setting_of_a_site_is_documented(kind: str) -> None:
    """docs/joining-a-site.md has a table of the kind with all its settings (write it anew: python docs/settings.py)."""
    (entry,) = entry_points(group="isthmus.sites", name=kind)
    text = (DOCS / "joining-a-site.md").read_text(encoding="utf-8")
    section = re.search(rf"^### {kind}\n(.*?)(?=^### |\Z)", text, re.M | re.S)
    shared = re.search(r"^### Several kinds\n(.*?)(?=^### )", text, re.M | re.S)
    assert section, kind
    assert shared
    told = section[1] + "".join(line for line in shared[1].splitlines() if kind in line or "| all |" in line)
    assert [key for key in entry.load().CONFIG_HELP if f"| `{key}` |" not in told] == []


def _codes() -> set[str]:
    """Every code that the source gives to an error or a finding."""
    found: set[str] = set()
    for path in (TOP / "src" / "isthmus").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                given = [item.value for item in node.body if isinstance(item, ast.Assign) and _is_code(item.targets)]
            elif isinstance(node, ast.Call):
                given = [word.value for word in node.keywords if word.arg == "code"]
            else:
                continue
            found |= {
                value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)
            }
    return found


def _is_code(targets: list[ast.expr]) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "code" for target in targets)


def test_every_error_code_is_documented() -> None:
    """docs/errors.md has a heading for every code, and none for a code that is not there."""
    headings = set(re.findall(r"^### (\w+)$", (DOCS / "errors.md").read_text(encoding="utf-8"), re.M))
    codes = _codes()
    assert sorted(codes - headings) == []
    assert sorted(headings - codes - {"malformed", "method_not_allowed"}) == []


@pytest.mark.parametrize("reasons", [EndReason, Why], ids=lambda reasons: reasons.__name__)
def test_every_reason_is_documented(reasons: type[EndReason] | type[Why]) -> None:
    """docs/errors.md explains every reason of an end and of a decision."""
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert [reason.value for reason in reasons if f"`{reason.value}`" not in text] == []


def test_every_kind_of_site_is_found() -> None:
    """The kinds that the documents speak of are installed."""
    assert registry.__name__ == "isthmus.sites.registry"
    names = {entry.name for entry in entry_points(group="isthmus.sites")}
    assert {"local", "ssh", "slurm", "slurmrestd", "gridengine"} <= names


@pytest.mark.parametrize("picture", sorted((DOCS / "pictures").glob("*.svg")), ids=lambda path: path.name)
def test_every_picture_has_a_title_and_both_themes(picture: Path) -> None:
    """A picture is well-formed, says what it shows, and has colours for light and dark."""
    text = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)  # noqa: S314 - our own file
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"(href|src)=.https?:", text)


def test_the_topology_in_the_documents_is_read() -> None:
    """docs/lab.md shows a topology that `isthmus lab up` takes."""
    text = (DOCS / "lab.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    assert len(read_text(block).links) == 7


def test_make_bench_runs_every_benchmark() -> None:
    """Each module of benchmarks/ that is a command of its own is one that `make bench` runs."""
    named = re.search(r"^BENCHMARKS := (.*)$", (TOP / "Makefile").read_text(encoding="utf-8"), re.M)
    assert named is not None
    commands = {page.stem for page in (TOP / "benchmarks").glob("*.py") if '"--json"' in page.read_text("utf-8")}
    assert set(named[1].split()) == commands


@pytest.mark.parametrize("page", [page for page in PAGES if "-m benchmarks." in page.read_text("utf-8")], ids=_name)
def test_every_benchmark_that_is_named_exists(page: Path) -> None:
    """The module is there, and knows each option that it is given."""
    for module, options in re.findall(r"python -m benchmarks\.(\w+)([^`]*)`", page.read_text(encoding="utf-8")):
        source = (TOP / "benchmarks" / f"{module}.py").read_text(encoding="utf-8")
        for option in options.split():
            if not option.isdigit():
                assert f'"{option}"' in source, f"benchmarks.{module} has no {option}"


def test_every_level_names_its_benchmark() -> None:
    """No service level without the command that measures it."""
    rows = [line.split("|") for line in (DOCS / "slo.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert len(rows) > 10
    assert all(re.fullmatch(r" `python -m benchmarks\.\w+[^`]*` ", row[3]) for row in rows[1:])


def test_every_fault_has_a_test_that_exists() -> None:
    """F1 to F13, F15 to F32, F43 and F44 are each in a row, and each test that a row names is there."""
    text = (DOCS / "faults-covered.md").read_text(encoding="utf-8")
    there = set(
        re.findall(r"^def (test_\w+)", "".join(p.read_text("utf-8") for p in (TOP / "tests/faults").glob("*.py")), re.M)
    )
    covered: set[int] = set()
    for line in text.splitlines():
        found = re.match(r"\| F(\d+)(?: to F(\d+))?", line)
        if found:
            named = set(re.findall(r"`(test_\w+)`", line))
            assert named, line
            assert named <= there, named - there
            covered.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    assert covered >= {*range(1, 14), *range(15, 33), 43, 44}
