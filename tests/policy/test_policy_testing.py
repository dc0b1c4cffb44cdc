"""`meshctl test`: what a failing test names, which pairs it is asked of, and files of tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asking import sound
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from policy_strategies import layouts, policies

from meshctl.cli import run
from meshctl.core.traffic import ANY, subtract
from meshctl.inventory.schema import load_schema
from meshctl.model.policy import PolicyTest, Side
from meshctl.policy import compile_policies
from meshctl.policy.testing import run_tests

INVENTORY = """\
version: 1
networks: {corp: {cidr: 10.42.0.0/16}}
services: {postgres: [tcp/5432]}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}
  gate: {roles: [gateway], routes: [192.168.10.0/24]}
  web1: {groups: [web]}
  web2: {groups: [web]}
  pg1: {groups: [db]}
groups: {web: {}, db: {}}
policies:
  - {name: web-db, from: web, to: db, allow: [postgres, tcp/80], owner: dba}
  - {name: no-web2, from: web2, to: db, deny: [tcp/5432], priority: 5}
  - {name: lan, from: web1, to: 192.168.10.0/25, allow: [tcp/22]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MESHCTL_INVENTORY", raising=False)
    return tmp_path


def outcome(capsys: pytest.CaptureFixture[str], *tests: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `meshctl test -o json` with these lines under `tests:`."""
    Path("inventory.yml").write_text(INVENTORY + "tests:\n" + "".join(f"  - {test}\n" for test in tests))
    code = run(["test", "-o", "json"])
    answer = json.loads(capsys.readouterr().out)
    Draft202012Validator(load_schema("test")).validate(answer)
    return code, answer


def failures(capsys: pytest.CaptureFixture[str], test: str) -> list[tuple[str, ...]]:
    code, answer = outcome(capsys, test)
    found = answer["tests"][0]["failures"]
    assert code == (1 if found else 0)
    return [(f["source"], f["destination"], *f["traffic"], f["rule"]) for f in found]


def test_a_failing_test_names_pair_traffic_and_rule_by_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("inventory.yml").write_text(f"{INVENTORY}tests:\n  - {{from: web, to: db, can: [postgres], cannot: [icmp]}}\n")
    assert run(["test"]) == 1
    assert capsys.readouterr().out == (
        "FAIL inventory.yml:16: web -> db\n"
        "     can postgres: web2 -> pg1 tcp/5432 is denied by policy `no-web2` (inventory.yml:13)\n"
        "1 tests: 0 passed, 1 failed\n"
    )


def test_tests_that_hold_end_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = outcome(capsys, "{from: web1, to: db, can: [postgres], cannot: [udp/5432]}")
    assert (code, answer["passed"], answer["failed"]) == (0, 1, 0)
    assert answer["tests"][0]["pairs"] == 1


def test_cannot_names_the_open_part_of_a_range_and_who_opened_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = failures(capsys, "{from: web1, to: db, cannot: [tcp/1-6000]}")
    assert found == [("web1", "pg1", "tcp/80", "tcp/5432", "web-db")]


def test_can_names_the_closed_part_of_a_range_and_that_no_rule_opens_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures(capsys, "{from: web1, to: db, can: [tcp/80-81]}") == [("web1", "pg1", "tcp/81", None)]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("192.168.10.0/24", [("web1", "192.168.10.0/24", "tcp/22", None)]),
        ("192.168.10.0/25", []),
        ("192.168.10.5/32", []),
        ("192.168.10.200/32", [("web1", "192.168.10.0/24", "tcp/22", None)]),
        ("[192.168.10.0/24, '!192.168.10.128/25']", []),
    ],
)
def test_a_prefix_is_tested_in_each_of_its_parts(
    prefix: str, expected: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failures(capsys, f"{{from: web1, to: {prefix}, can: [tcp/22]}}") == expected


def test_a_test_that_means_no_pair_fails(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = outcome(capsys, "{from: web1, to: web1, cannot: [any]}")
    assert code == 1
    assert answer["tests"][0]["pairs"] == 0


def test_test_files_are_read_with_the_inventory_s_services_and_places_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(INVENTORY)
    (folder / "db_test.yml").write_text("tests:\n\n  - {from: web2, to: db, can: [postgres]}\n")
    assert run(["test"]) == 1
    assert "FAIL db_test.yml:3: web2 -> db\n" in capsys.readouterr().out


def test_the_test_files_in_a_folder_belong_to_its_inventory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "inventory").mkdir()
    (folder / "inventory" / "all.yml").write_text(INVENTORY)
    (folder / "inventory" / "db_test.yml").write_text("tests: [{from: web1, to: db, can: [postgres]}]\n")
    assert run(["test"]) == 0
    assert "1 passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tests: [{from: wbe1, to: db, can: [icmp]}]\n", "a_test.yml:1:16"),
        ("tests: [{from: web1, to: db, can: [postgre]}]\n", "did you mean `postgres`"),
        ("tests: [{from: web1, to: db, can: [icmp], cannot: [icmp]}]\n", "both in `can` and in `cannot`"),
        ("tests: [{from: web1, to: db, cna: [icmp]}]\n", "`cna`"),
        ("polices: []\n", "`polices`"),
        ("tests: [\n", "a_test.yml"),
        ("", "a_test.yml"),
    ],
)
def test_a_wrong_test_file_is_explained_with_its_place(
    text: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(INVENTORY)
    (folder / "a_test.yml").write_text(text)
    assert run(["test"]) == 65
    assert said in capsys.readouterr().err


@st.composite
def inventories(draw: st.DrawFn) -> dict[str, Any]:
    layout = draw(layouts())
    return {**layout, "policies": draw(policies(layout))}


@settings(max_examples=30, deadline=None)
@given(inventories())
def test_a_pair_can_what_it_is_allowed_and_cannot_the_rest(data: dict[str, Any]) -> None:
    _, mesh = sound(data)
    decisions = compile_policies(mesh)
    for policy in decisions.networks.values():
        for source in policy.nodes:
            for destination in policy.nodes:
                if source == destination or sum(source in p.nodes for p in decisions.networks.values()) > 1:
                    continue
                allowed = policy.allowed(source, destination)
                denied = subtract(ANY, allowed)
                sides = [Side({policy.name: frozenset({end})}) for end in (source, destination)]
                good = PolicyTest(*sides, "", can=(("", allowed),), cannot=(("", denied),))
                bad = PolicyTest(*sides, "", can=(("", denied),), cannot=(("", allowed),))
                assert run_tests(decisions, [good])[0].passed
                failed = run_tests(decisions, [bad])[0].failures
                assert {f.expected for f in failed} == {True for _ in denied} | {False for _ in allowed}
