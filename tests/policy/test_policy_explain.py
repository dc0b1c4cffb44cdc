"""`meshctl policy explain`, `matrix` and `graph`."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator
from policy_strategies import inventory, node

from meshctl.cli import run
from meshctl.inventory.schema import load_schema

INVENTORY = """\
version: 1
networks: {corp: {cidr: 10.42.0.0/16}, lab: {cidr: 10.43.0.0/16}}
defaults: {networks: [corp]}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}
  gate: {roles: [gateway], routes: [192.168.10.0/24], relay: routed}
  exit: {roles: [gateway], endpoint: "203.0.113.3:51820", exit_node: true}
  web1: {relay: routed, exit_via: exit, address: 10.42.0.9}
  both: {networks: [corp, lab]}
  two: {networks: [corp, lab], endpoint: {corp: "203.0.113.4:51820", lab: "203.0.113.4:51821"}}
  far: {networks: [lab]}
groups: {web: {nodes: [web1]}}
policies:
  - {name: lan, from: web1, to: 192.168.10.0/25, allow: [tcp/22], owner: ops, reason: backup}
  - {name: no-lan, from: web1, to: 192.168.10.0/28, deny: [any], priority: 1}
  - {name: out, from: web1, to: internet, allow: [udp/443]}
  - {name: in-lab, from: lab, to: two, allow: [icmp]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MESHCTL_INVENTORY", raising=False)
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    return tmp_path


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(["policy", "explain", *words, "-o", "json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    Draft202012Validator(load_schema("explain")).validate(answer)
    return answer


def test_an_answer_names_the_rule_its_place_and_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(capsys, "web1", "192.168.10.99", "tcp/22") == {
        "allowed": True, "rule": "lan", "file": "inventory.yml", "line": 14,
        "path": ["web1", "hub", "gate", "192.168.10.0/25"], "network": "corp", "owner": "ops", "reason": "backup",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "allowed", "rule", "path"),
    [
        (("web1", "192.168.10.9", "tcp/22"), False, "no-lan", []),
        (("web1", "192.168.10.200", "tcp/22"), False, None, []),
        (("10.42.0.9", "192.168.10.64/26", "tcp/22"), True, "lan", ["web1", "hub", "gate", "192.168.10.0/25"]),
        (("web1", "internet", "udp/443"), True, "out", ["web1", "exit", "internet"]),
        (("gate", "internet", "udp/443"), False, None, []),
        (("both", "two", "icmp"), True, "in-lab", ["both", "two"]),
        (("both", "two", "tcp/22"), False, None, []),
        (("far", "web1", "icmp"), False, None, []),
        (("web1", "web1", "icmp"), False, None, []),
        (("internet", "web1", "tcp/22"), False, None, []),
    ],
)
def test_what_is_decided_and_by_which_nodes_it_goes(
    words: tuple[str, ...], allowed: bool, rule: str | None, path: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = explained(capsys, *words)
    assert (answer["allowed"], answer["rule"], answer["path"]) == (allowed, rule, path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("wbe1", "two", "icmp"), "did you mean `web1`"),
        (("web", "two", "icmp"), "`web` is not one node"),
        (("web1", "192.168.10.0/24", "icmp"), "not judged as one"),
        (("web1", "172.16.0.1", "icmp"), "behind a gateway"),
        (("web1", "two", "tcp"), "tcp/22, udp/53"),
        (("web1", "two", "tcp/1-9"), "tcp/22, udp/53"),
        (("web1", "two", "tcp/70000"), "65535"),
        (("web1", "two", "gre/1"), "not a protocol"),
    ],
)
def test_a_question_that_cannot_be_answered_says_how_to_ask(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["policy", "explain", *words]) == 64
    assert said in capsys.readouterr().err


def test_an_address_is_asked_about_in_its_own_network(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = INVENTORY.replace("both: {networks: [corp, lab]", "both: {networks: [corp, lab], address: {lab: 10.43.0.7}")
    addresses = "{corp: 10.42.0.8, lab: 10.43.0.8}"
    text = text.replace("two: {networks: [corp, lab],", f"two: {{networks: [corp, lab], address: {addresses},")
    (folder / "inventory.yml").write_text(text)
    assert explained(capsys, "both", "10.43.0.8", "icmp")["allowed"] is True
    assert explained(capsys, "10.43.0.7", "10.43.0.8", "icmp")["network"] == "lab"
    assert explained(capsys, "both", "10.42.0.8", "icmp")["allowed"] is False
    assert explained(capsys, "10.43.0.7", "10.42.0.8", "icmp")["network"] == ""


def test_a_gateway_uses_the_network_by_which_what_is_behind_it_reaches_a_prefix(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A route to a prefix leads into one network: what policy allows in the other comes nowhere."""
    rules = (
        {"name": "lans", "from": "192.168.10.0/24", "to": "192.168.20.0/24", "allow": ["tcp/22"]},
        {"name": "dns", "from": "lab", "to": "192.168.20.0/24", "allow": ["udp/53"]},
    )
    networks = ("corp", "lab")
    gates = {
        f"gate{n}": node(n, networks, endpoint=True, roles=["gateway"], routes=[f"192.168.{n}0.0/24"]) for n in (1, 2)
    }
    for policies, allowed in ((rules, False), (rules[1:], True)):
        (folder / "inventory.yml").write_text(json.dumps(inventory(gates, networks, policies=list(policies))))
        assert explained(capsys, "gate1", "192.168.20.9", "udp/53")["allowed"] is allowed


def test_a_route_of_which_rules_name_all_parts_is_told_by_its_parts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(
        INVENTORY.replace("to: 192.168.10.0/25, allow", "to: [192.168.10.0/25, 192.168.10.128/25], allow").replace(
            "192.168.10.0/28", "192.168.10.128/26"
        )
    )
    assert run(["policy", "matrix", "--network", "corp"]) == 0
    heads = cells_of(capsys.readouterr().out.splitlines()[0])
    assert "192.168.10.0/24" not in heads
    assert {"192.168.10.0/25", "192.168.10.128/25", "192.168.10.128/26"} <= set(heads)


def test_an_exit_node_that_only_an_anchor_reaches_is_no_way_to_the_internet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = INVENTORY.replace('endpoint: "203.0.113.3:51820", exit_node', "relay: routed, exit_node")
    (folder / "inventory.yml").write_text(text)
    answer = explained(capsys, "web1", "internet", "udp/443")
    assert (answer["allowed"], answer["path"]) == (False, [])


def test_the_human_answer_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "explain", "web1", "internet", "udp/443"]) == 0
    assert capsys.readouterr().out == (
        "web1 -> internet udp/443: allowed by policy `out` (inventory.yml:16) in corp\npath: web1 -> exit -> internet\n"
    )


def test_the_matrix_says_traffic_nothing_and_same_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "matrix", "--network", "lab"]) == 0
    table = capsys.readouterr().out
    assert [cells_of(line) for line in table.splitlines()] == [
        ["lab", "both, far", "two"], ["both, far", "-", "icmp"], ["two", "-"],
    ]  # fmt: skip


def cells_of(line: str) -> list[str]:
    return re.split(r"\s{2,}", line)


def test_nodes_that_are_alike_are_one_row_unless_asked_otherwise(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = INVENTORY.replace("groups: {web: {nodes: [web1]}}", "groups: {web: {nodes: [w1, w2, w3]}}").replace(
        "  far:", "  w1: {relay: routed}\n  w2: {relay: routed}\n  w3: {relay: routed}\n  far:"
    )
    fleet += "  - {name: among, from: web, to: web, allow: [tcp/80]}\n"
    fleet += "  - {name: up, from: web, to: hub, allow: [icmp]}\n"
    (folder / "inventory.yml").write_text(fleet)
    assert run(["policy", "matrix", "--network", "corp"]) == 0
    rows = {cells[0]: cells for cells in map(cells_of, capsys.readouterr().out.splitlines())}
    heads, web = rows["corp"], rows["web"]
    assert (web[heads.index("web")], web[heads.index("hub")]) == ("tcp/80", "icmp")
    assert "w1" not in heads
    assert run(["policy", "matrix", "--network", "corp", "--expand"]) == 0
    expanded = capsys.readouterr().out.splitlines()
    assert {"w1", "w2", "w3"} <= set(expanded[0].split())
    assert run(["policy", "graph", "--network", "corp"]) == 0
    graph = capsys.readouterr().out
    assert '"web" -> "web" [label="tcp/80"];' in graph
    assert '"web" -> "hub" [label="icmp"];' in graph


def test_the_csv_has_a_line_for_each_pair(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "matrix", "--format", "csv"]) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert rows[0] == ["network", "source", "destination", "allowed"]
    assert ["lab", "far", "two", "icmp"] in rows
    assert ["lab", "two", "far", ""] in rows
    assert not [row for row in rows if row[1] == row[2]]


def test_the_html_shows_what_is_allowed_and_closes_what_it_opens(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "matrix", "--format", "html"]) == 0
    page = capsys.readouterr().out
    assert "<td class=allowed>udp/443</td>" in page
    assert all(page.count(f"<{tag}") == page.count(f"</{tag}>") for tag in ("html", "body", "table", "tr", "td"))


def test_the_graph_has_an_arrow_for_each_pair_that_may_talk(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "graph", "--network", "corp"]) == 0
    arrows = [line.strip() for line in capsys.readouterr().out.splitlines() if "->" in line]
    assert arrows == [
        '"web1" -> "192.168.10.0/25" [label="tcp/22"];',
        '"web1" -> "internet" [label="udp/443"];',
    ]


def test_a_picture_is_what_dot_makes_of_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "graph", "--network", "corp", "--format", "svg"]) == 0
    picture = ElementTree.fromstring(capsys.readouterr().out)  # noqa: S314 - dot's own
    drawn = {"".join(title.itertext()) for title in picture.iter("{http://www.w3.org/2000/svg}title")}
    assert {"web1->internet", "web1->192.168.10.0/25"} <= drawn


def test_a_picture_without_dot_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert run(["policy", "graph", "--format", "svg"]) == 1
    assert "install graphviz" in capsys.readouterr().err


def test_an_unknown_network_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "matrix", "--network", "crop"]) == 64
    assert "did you mean `corp`" in capsys.readouterr().err
