"""Whatever stands under `policies:`, `services:` and `tests:`, and in *_test.yml, gives an answer or findings.

The invariant: no exception but InventoryError leaves the loader, each finding has a place inside its file, and the
commands end with one of their exit codes. A traceback would be anything else.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshctl import inventory
from meshctl.cli import run
from meshctl.errors import EXIT_CHANGES, EXIT_FAILED, EXIT_INVENTORY, EXIT_OK, EXIT_USAGE, InventoryError
from meshctl.inventory.assertions import read_assertions
from meshctl.policy import compile_mesh
from meshctl.policy.testing import run_tests

LAYOUT = """\
version: 1
networks: {corp: {cidr: [10.42.0.0/16, "fd42::/64"]}, lab: {cidr: 10.43.0.0/16}}
defaults: {networks: [corp]}
groups: {web: {vars: {tags: [http]}}, none: {}}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}
  gate: {roles: [gateway], routes: [192.168.10.0/24, "fd99::/64"]}
  exit: {roles: [gateway], exit_node: true, endpoint: "203.0.113.3:51820"}
  both: {networks: [corp, lab]}
  web1: {groups: [web], exit_via: exit}
  phone: {client: true, peers: [hub]}
"""
POLICIES = """\
services: {postgres: [tcp/5432], dns: [udp/53, tcp/53]}
policies:
  - {name: web-db, from: [web, "!hub"], to: 192.168.10.0/25, allow: [postgres, icmp], owner: ops, reason: "#1"}
  - {name: no-dns, from: "*", to: "tag:http", deny: [dns], priority: 1, expires: 2999-12-31}
  - {name: out, from: web1, to: internet, allow: [tcp/1-65535], limits: {bandwidth: 10mbit}}
  - {name: both, from: "role:anchor", to: corp, allow: [any], both_ways: true, limits: {connections_per_second: 5}}
"""
TESTS = """\
tests:
  - {from: web, to: 192.168.10.9/32, can: [postgres], cannot: [tcp/22]}
  - {from: ["*", "!phone"], to: hub, cannot: ["any"]}
"""
SELECTORS = [
    "*", "!*", "web", "none", "hub", "corp", "lab", "internet", "!internet", "tag:http", "tag:", "role:anchor",
    "role:x", "192.168.10.0/25", "192.168.10.1/25", "fd99::/80", "0.0.0.0/0", "::/0", "10.42.0.0/16",
    "1.2.3.4/33", "a/b", "/", "!", "!!web", "", "node:x", ":", "tag:http:x", "fe80::1%eth0/64",
    "\u0661\u0669\u0662.168.10.0/24", "192.168.10.9",
]  # fmt: skip
TRAFFIC = [
    "any", "icmp", "tcp", "tcp/22", "udp/1000-2000", "tcp/0", "tcp/65536", "tcp/2-1", "tcp/", "tcp/1-", "sctp/-1",
    "/22", "gre/1", "postgres", "dns", "nope", "tcp/22/23", "tcp/\u0662\u0662", "tcp/1_0", "tcp/ 22", "tcp/+22",
    "TCP/22", "",
]  # fmt: skip
NAMES = [
    "a", "web", "open:corp", "", "x" * 300, "with space", "denied", "1", "a-b", "input", "\u00e9", "a\nb", "$(x)", "_",
]  # fmt: skip
WORDS = [*SELECTORS, *TRAFFIC, *NAMES, "10mbit", "0mbit", "1e9gbit", "-1kbit", "2026-12-31", "2026-13-01", "9999-12-31"]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nearly right: a document that is wrong everywhere stops at its schema."""
    return st.one_of(good, good, good, good, good, good, JUNK)


ITEMS = mostly(st.lists(st.sampled_from(TRAFFIC), max_size=3))
SIDE = mostly(st.sampled_from(SELECTORS) | st.lists(st.sampled_from(SELECTORS), max_size=3))
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "connections_per_second": mostly(st.integers(-1, 10**12)),
        "bandwidth": mostly(st.sampled_from(WORDS)),
    },
)
RULE = st.fixed_dictionaries(
    {"name": mostly(st.sampled_from(NAMES)), "from": SIDE, "to": SIDE},
    optional={
        "allow": ITEMS,
        "deny": ITEMS,
        "priority": mostly(st.integers(-(2**40), 2**40)),
        "both_ways": mostly(st.booleans()),
        "expires": mostly(st.dates().map(str)),
        "limits": mostly(LIMITS),
        "owner": mostly(st.text(max_size=5)),
        "reason": mostly(st.text(max_size=5)),
        "other": JUNK,
    },
)
TYPED = [*WORDS, *"{}[]:,-#&*!|>'\"%@`~ \n\t0?\0", "<<: ", "- ", ": ", "&a ", "*a"]
TEST = st.fixed_dictionaries({"from": SIDE, "to": SIDE}, optional={"can": ITEMS, "cannot": ITEMS, "other": JUNK})
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "services": mostly(st.dictionaries(st.sampled_from([*NAMES, "any", "tcp"]), ITEMS, max_size=3)),
        "policies": mostly(st.lists(mostly(RULE), max_size=4)),
        "tests": mostly(st.lists(mostly(TEST), max_size=3)),
    },
)
COMMANDS = (
    ["validate"], ["validate", "-o", "json"], ["test"], ["test", "-o", "json"], ["lint"], ["policy", "matrix"],
    ["policy", "graph"], ["policy", "explain", "web1", "192.168.10.9", "tcp/22"],
)  # fmt: skip
EXITS = {EXIT_OK, EXIT_FAILED, EXIT_CHANGES, EXIT_USAGE, EXIT_INVENTORY}
ENOUGH = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def judge(folder: Path) -> None:
    """Read, compile and test what is in the folder; InventoryError alone may come of it."""
    try:
        found = inventory.read(folder / "inventory.yml")
        results = run_tests(compile_mesh(found.mesh).decisions, read_assertions(found))
        assert len(results) >= len(found.mesh.tests)
        diagnostics = found.warnings
    except InventoryError as error:
        diagnostics = error.diagnostics
        assert any(d.severity == "error" for d in diagnostics)
    for d in diagnostics:
        lines = Path(d.file).read_text(errors="replace").count("\n") + 1
        assert d.code
        assert d.message
        assert 0 <= d.line <= lines + 1, d


def write(folder: Path, text: str, assertions: str = "") -> None:
    (folder / "inventory.yml").write_bytes(text.encode(errors="surrogatepass"))
    (folder / "more_test.yml").write_bytes((assertions or TESTS).encode(errors="surrogatepass"))


def section_text(sections: dict[str, Any]) -> str:
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in sections.items())


@given(SECTIONS, SECTIONS)
@settings(max_examples=examples(350), **ENOUGH)
def test_no_policies_services_and_tests_give_a_traceback(
    tmp_path: Path, sections: dict[str, Any], assertions: dict[str, Any]
) -> None:
    write(tmp_path, LAYOUT + section_text(sections), section_text({"tests": assertions.get("tests")}))
    judge(tmp_path)


def damaged(text: str, chance: random.Random) -> str:
    """The text after one to four slips of a hand: what is cut, doubled, swapped or typed into it."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 2, 5, 20]))
        text = text[:start] + chance.choice([*TYPED, text[start:end] * 2]) + text[end:]
    return text


@given(st.integers(0, 2**32))
@settings(max_examples=examples(350), **ENOUGH)
def test_no_damaged_file_gives_a_traceback(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    write(tmp_path, LAYOUT + damaged(POLICIES + TESTS, chance), damaged(TESTS, chance))
    judge(tmp_path)


@given(SECTIONS, st.integers(0, 2**32), st.sampled_from(COMMANDS))
@settings(max_examples=examples(60), **ENOUGH)
def test_no_command_gives_a_traceback(
    tmp_path: Path, sections: dict[str, Any], seed: int, command: list[str]
) -> None:
    text = section_text(sections) if seed % 2 else damaged(POLICIES + TESTS, random.Random(seed))  # noqa: S311
    write(tmp_path, LAYOUT + text)
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run([*command, "-i", str(tmp_path / "inventory.yml")])
    said.seek(0)
    assert code in EXITS
    assert code != EXIT_INVENTORY or "inventory.yml" in said.read()


def test_the_text_that_is_damaged_is_sound_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, LAYOUT + POLICIES + TESTS)
    assert run(["test", "-i", str(tmp_path / "inventory.yml")]) == EXIT_FAILED, "the second test does not hold"
    assert capsys.readouterr().out.count("ok  ") == 2
