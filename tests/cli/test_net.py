"""`isthmus net` against a real service: load, show, paths, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Ask

WAN = """
routers: [r1, r2, r3]
sites:
  north: {}
  south: {daemons: {ssh: {}}}
links:
  - {ends: [north, r1], rate: 10 Gbit/s}
  - {ends: [south, r2], rate: 10 Gbit/s}
  - {ends: [r1, r2], rate: 100 Mbit/s, delay: 5 ms}
  - {ends: [r1, r3], rate: 1 Gbit/s, delay: 20 ms}
  - {ends: [r3, r2], rate: 1 Gbit/s, delay: 20 ms, loss: 0.1 %}
"""


def test_a_topology_is_loaded_changed_and_shown(ask: Ask, tmp_path: Path) -> None:
    """The file is loaded once; a change is shown as a difference; what would be removed wants a yes."""
    (tmp_path / "wan.yaml").write_text(WAN)
    assert "Nothing is declared" in ask("net", "show").err
    looked = ask("net", "load", "wan.yaml", "--dry-run")
    assert "+ node r1" in looked.out
    assert ask("net", "show", "--json").document["nodes"] == []
    ask("net", "load", "wan.yaml")
    assert "Nothing changes." in ask("net", "load", "wan.yaml").err
    shown = ask("net", "show")
    line = next(line for line in shown.out.splitlines() if line.startswith("r1-r3") and " r1 " in line)
    assert line.split() == ["r1-r3", "r1", "r3", "up", "20", "ms", "0", "%", "1", "Gbit/s", "declared"]
    best = ask("net", "paths", "north", "south").out.splitlines()[1]
    assert best.startswith("north r1 r3 r2 south")
    assert "soonest" in best
    small = ask("net", "paths", "north", "south", "--size", "1000", "--json").document
    assert small["paths"][0]["nodes"] == ["north", "r1", "r2", "south"]
    (tmp_path / "wan.yaml").write_text(WAN.replace("rate: 100 Mbit/s", "rate: 2 Gbit/s"))
    changed = ask("net", "load", "wan.yaml")
    assert changed.out == "~ link r1-r2: capacity_bits_per_second 100000000.0 -> 2000000000.0\n"
    (tmp_path / "less.yaml").write_text("sites: {north: {}}\n")
    assert "--yes" in ask("net", "load", "less.yaml", code=64).err
    ask("net", "load", "less.yaml", "--yes")
    assert [node["name"] for node in ask("net", "show", "--json").document["nodes"]] == ["north"]


def test_what_is_wrong_is_named(ask: Ask, tmp_path: Path) -> None:
    """A wrong field with its place, a file that is not there, a node that is not there, nobody to make operator."""
    (tmp_path / "wrong.yaml").write_text(WAN.replace("5 ms", "5 miles"))
    assert "links.2.delay" in ask("net", "load", "wrong.yaml", code=65).err
    (tmp_path / "wrong.yaml").write_text(WAN.replace("routers", "ruoters"))
    assert "Did you mean routers?" in ask("net", "load", "wrong.yaml", code=65).err
    ask("net", "load", "none.yaml", code=66)
    ask("net", "paths", "north", "nowhere", code=66)
    ask("net", "operators", code=64)
    ask("net", "operators", "--add", "nobody", code=66)
