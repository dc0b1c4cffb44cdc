"""The labels of rows, columns and boxes: short, and never of more or of others than they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from policy_strategies import inventory, node

from meshctl.cli import run
from meshctl.policy.naming import Party


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (("*", "!a"), "*, !a"),
        (("*", "!a", "!b", "!c"), "* less a, b, c"),
        (("*", "!a", "!b", "!c", "!d"), "* less 4"),
        (("a", "b", "c", "d"), "a and 3 more"),
        (("web", "db", "!a", "!b"), "web, db less a, b"),
        (("a", "b", "c", "d", "!e"), "a and 3 more less e"),
    ],
)
def test_what_is_cut_out_is_no_more(names: tuple[str, ...], label: str) -> None:
    assert Party(names, ()).label == label


@pytest.mark.parametrize(("others", "label"), [(3, "* less n7, n8, n9"), (4, "* less 4")])
@pytest.mark.parametrize("words", ["matrix", "matrix --format html", "graph"])
def test_everybody_but_a_few_is_called_so_in_every_picture(
    words: str, others: int, label: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alike = [f"n{i}" for i in range(1, 7)]
    apart = [f"n{i}" for i in range(7, 7 + others)]
    nodes = {name: node(n, ("corp",), endpoint=True) for n, name in enumerate([*alike, *apart], 1)}
    rules = [{"name": f"to-{name}", "from": alike, "to": name, "allow": [f"tcp/{name[1:]}"]} for name in apart]
    path = tmp_path / "inventory.yml"
    path.write_text(yaml.safe_dump(inventory(nodes, groups={}, policies=rules), sort_keys=False))
    assert run(["policy", *words.split(), str(path)]) == 0
    out = capsys.readouterr().out
    assert label in out
    assert " more" not in out
