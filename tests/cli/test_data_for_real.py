"""`isthmus data` and datasets in tasks, against the real service and its real local site, which keeps no data itself."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Ask


def _tree(root: Path) -> Path:
    (root / "in" / "deep").mkdir(parents=True)
    (root / "in" / "a.txt").write_text("alpha\n")
    (root / "in" / "deep" / "b.txt").write_text("beta\n")
    tool = root / "in" / "tool"
    tool.write_text("#!/bin/sh\ncat a.txt deep/b.txt\n")
    tool.chmod(0o755)
    return root / "in"


def test_a_dataset_is_put_listed_shown_and_fetched(ask: Ask, tmp_path: Path) -> None:
    """What was put comes back byte for byte with its modes; the same again makes no version, another content the next."""
    source = _tree(tmp_path)
    assert ask("data", "put", str(source), "default/greek").out.strip() == "default/greek@1"
    assert ask("data", "put", str(source), "default/greek").out.strip() == "default/greek@1"
    (source / "a.txt").write_text("alpha again\n")
    assert ask("data", "put", str(source), "greek", "--json").document["version"] == 2
    (row,) = [one for one in ask("data", "ls", "--json").document if one["name"] == "greek"]
    assert (row["version"], row["files"], row["places"]) == (2, 3, ["@service"])
    assert "the service" in ask("data", "ls", "-o", "wide").out
    shown = ask("data", "show", "greek").out
    assert "default/greek@2" in shown
    assert "2, 1" in shown
    assert "deep/b.txt" in ask("data", "show", "greek@1", "--files").out
    ask("data", "get", "greek@1", "--to", "back")
    assert (tmp_path / "back" / "a.txt").read_text() == "alpha\n"
    assert (tmp_path / "back" / "tool").stat().st_mode & 0o100
    ask("data", "get", "greek:deep/b.txt", "--to", "one")
    assert [path.name for path in (tmp_path / "one").rglob("*.txt")] == ["b.txt"]


def test_a_task_takes_datasets_in_and_leaves_one_with_its_origin(ask: Ask, tmp_path: Path) -> None:
    """A tree and a file of datasets are where the task wants them; what it leaves is a version that knows what it is made from."""
    ask("data", "put", str(_tree(tmp_path)), "default/letters")
    ran = ask(
        *("run", "--json", "--input", "data:default/letters=tree", "--input", "data:default/letters@1:deep/b.txt=b"),
        *(
            "--out",
            "all.txt=data:default/joined",
            "--",
            "sh",
            "-c",
            "cd tree && ./tool > ../all.txt && cat ../b >> ../all.txt",
        ),
    )
    task = ran.document["id"]
    made = ask("data", "show", "default/joined", "--json").document
    assert made["made_by"] == task
    assert made["made_from"] == ["default/letters@1"]
    ask("data", "get", "default/joined", "--to", "joined")
    assert (tmp_path / "joined" / "all.txt").read_text() == "alpha\nbeta\nbeta\n"
    used = ask("data", "show", "default/letters", "--json").document["replicas"][0]
    assert used["uses"] == 1


def test_what_cannot_be_is_refused_by_name(ask: Ask, tmp_path: Path) -> None:
    """Unknown datasets, the last copy, data bound to a region where the service is not, a copy at a site that keeps no data."""
    source = _tree(tmp_path)
    assert "data ls" in ask("data", "show", "default/nothing", code=66).err
    told = ask("submit", "--in", "data:default/nothing=x", "--", "true", code=None)
    assert told.code != 0
    assert "there is no dataset default/nothing" in told.err
    told = ask("data", "put", str(source), "default/bound", "--stay-in", "north", "--json", code=None)
    assert told.code != 0
    assert "data_may_not_leave" in told.out + told.err
    ask("data", "put", str(source), "default/kept")
    told = ask("data", "cp", "default/kept", "local", code=None)
    assert "keeps no data" in told.err
    told = ask("data", "cp", "default/kept", "@service", "--by", "soon", code=65)
    assert "by: 'soon' is not a time" in told.err
    told = ask("data", "cp", "default/kept", "@service", "--by", "2020-01-01T00:00", code=65)
    assert "by: is over" in told.err
    told = ask("data", "cp", "default/kept", "@service", "--by", "+1h")
    assert "default/kept is at @service already" in told.err
    told = ask("data", "cp", "default/kept", "@service", "local", "--by", "+1h", code=65)
    assert "keeps no data" in told.err
    told = ask("data", "rm", "default/kept", "--at", "@service", code=None)
    assert "last one" in told.err
    ask("data", "pin", "default/kept")
    assert "pinned" in ask("data", "rm", "default/kept", "--yes", code=None).err
    ask("data", "unpin", "default/kept")
    assert "--yes" in ask("data", "rm", "default/kept", code=64).err
    ask("data", "rm", "default/kept", "--yes")
    ask("data", "show", "default/kept", code=66)


def test_copies_are_verified_and_places_are_named(ask: Ask, tmp_path: Path) -> None:
    """A good copy is told as good; a spoiled only one ends with 1 and names its file; what is neither here nor at a site is told so."""
    source = _tree(tmp_path)
    (source / "a.txt").write_text(f"{tmp_path}\n")
    ask("data", "put", str(source), "default/checked")
    assert "good" in ask("data", "verify", "default/checked").out
    told = ask("data", "verify", "default/checked", "--at", "elsewhere", code=66)
    assert "no whole copy" in told.err
    assert "SITE:/PATH" in ask("data", "put", str(tmp_path / "nothing"), "default/none", code=64).err
    told = ask("data", "put", "local:/etc", "default/none", code=None)
    assert "local keeps no data" in told.err
    assert "There is no site nowhere" in ask("data", "put", "nowhere:/etc", "default/none", code=66).err
