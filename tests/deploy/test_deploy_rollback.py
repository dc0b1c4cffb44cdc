"""`meshctl history` and `rollback` as a person runs them, against hosts behind real sshd processes."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sshmesh import Mesh

from meshctl.cli import origin
from meshctl.inventory import load_schema

QUICK = ("--confirm", "off")


def apply(mesh: Mesh, motd: str, *words: str) -> str:
    """With that content, on both hosts or those of a --limit; the run's id."""
    mesh.motd = motd
    mesh.write()
    mesh.apply(*QUICK, *words)
    name = words[-1] if words else "one"
    newest: str = mesh.answer("history", name)[name]["entries"][0]["id"]
    return newest


def motds(mesh: Mesh) -> tuple[str, str]:
    return mesh.hosts["one"].sh("cat /etc/app/motd"), mesh.hosts["two"].sh("cat /etc/app/motd")


def statuses(nodes: dict[str, Any]) -> dict[str, str]:
    return {name: node["status"] for name, node in nodes.items()}


def git(mesh: Mesh, *words: str) -> str:
    argv = ["git", "-C", str(mesh.folder), "-c", "user.name=a", "-c", "user.email=a@example.net", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_history_says_what_who_when_and_from_which_commit(mesh: Mesh) -> None:
    git(mesh, "init", "-q")
    mesh.apply(*QUICK)
    git(mesh, "add", "-A")
    git(mesh, "commit", "-q", "-m", "first")
    commit = git(mesh, "rev-parse", "HEAD")[:12]
    mesh.nodes["one"]["mtu"] = 1390
    dirty = apply(mesh, "second")
    two, *_ = mesh.answer("history")["two"]["entries"]
    assert two["id"] == dirty
    git(mesh, "commit", "-q", "-a", "-m", "second")
    apply(mesh, "third", "--limit", "two")
    two, *_ = mesh.answer("history")["two"]["entries"]
    assert two["revision"] == git(mesh, "rev-parse", "HEAD")[:12]
    entries = mesh.answer("history")["one"]["entries"]
    assert [(e["revision"], e["became"], e["present"], e["reachable"]) for e in entries] == [
        (f"{commit}-dirty", "applied", True, True), ("", "applied", False, True),
    ]  # fmt: skip
    assert entries[0]["who"] == origin.author()
    changed = {(c["kind"], c["name"]): (c["before"], c["after"]) for c in entries[0]["changes"]}
    assert changed["mtu", "wg0"] == ({"mtu": 1420}, {"mtu": 1390})
    assert ("key", "wg0") in {(c["kind"], c["name"]) for c in entries[1]["changes"]}
    text = mesh.run("history", "one", "-i", str(mesh.path)).stdout
    assert text.startswith(f"one:\n* {dirty}  2")
    assert f"{commit}-dirty  applied\n    ~ update file " in text
    assert "          mtu: 1420 -> 1390\n" in text
    assert "sesame" not in text
    short = mesh.run("history", "-i", str(mesh.path), "--short").stdout
    assert short.count(dirty) == 2
    assert "mtu" not in short


def test_the_newest_run_is_taken_back_and_the_rollback_too(mesh: Mesh) -> None:
    first = apply(mesh, "first")
    second = apply(mesh, "second")
    nodes = mesh.answer("rollback", *QUICK)
    assert statuses(nodes) == {"one": "changed", "two": "changed"}
    assert motds(mesh) == ("first", "first")
    assert (nodes["one"]["state"]["id"], nodes["one"]["taken_back"]) == (first, [second])
    assert [(c["action"], c["kind"], c["name"]) for c in nodes["one"]["changes"]] == [
        ("update", "file", "/etc/app/motd")]  # fmt: skip
    plan = mesh.run("plan", str(mesh.path))
    assert plan.stdout.count("update file /etc/app/motd") == 2
    assert "2 to change, 0 to destroy" in plan.stdout
    done = mesh.run("rollback", "-i", str(mesh.path), *QUICK)
    assert motds(mesh) == ("second", "second")
    assert "the hosts differ from the inventory now: revert the commit in Git" in done.stderr
    assert f"one: back to {second}" in done.stderr
    assert mesh.run("plan", str(mesh.path)).stdout.startswith("No changes.")
    newest = mesh.answer("history", "one")["one"]["entries"][0]
    assert (newest["rollback_to"], newest["became"], newest["present"]) == (second, "applied", True)


def test_a_run_is_where_the_whole_mesh_goes_back_to_and_who_was_not_changed_since_is_left_alone(mesh: Mesh) -> None:
    apply(mesh, "first")
    second = apply(mesh, "second")
    apply(mesh, "third", "--limit", "one")
    before = mesh.hosts["two"].sh("stat -c %Y%i /etc/app/motd /var/lib/meshctl/*")
    assert statuses(mesh.answer("rollback", *QUICK)) == {"one": "changed", "two": "unchanged"}
    assert mesh.hosts["two"].sh("stat -c %Y%i /etc/app/motd /var/lib/meshctl/*") == before
    assert motds(mesh) == ("second", "second")
    apply(mesh, "fourth")
    assert statuses(mesh.answer("rollback", "--to", second[:-3], *QUICK)) == {"one": "changed", "two": "changed"}
    assert motds(mesh) == ("second", "second")
    assert statuses(mesh.answer("rollback", "one", "--to", "4", *QUICK)) == {"one": "changed"}
    assert motds(mesh) == ("second", "second"), "the state after the rollback"
    assert statuses(mesh.answer("rollback", "two", "--to", "3", *QUICK)) == {"two": "changed"}
    assert motds(mesh) == ("second", "first")


def test_what_is_no_state_is_refused_with_what_there_is(mesh: Mesh) -> None:
    nothing = mesh.run("rollback", "-i", str(mesh.path))
    assert nothing.returncode == 1
    assert "there is no earlier state to go back to" in nothing.stderr
    assert mesh.run("history", "-i", str(mesh.path)).stdout.count("nothing was applied that is known") == 2
    only = apply(mesh, "first", "--limit", "one")
    assert mesh.run("rollback", "one", "-i", str(mesh.path)).returncode == 1
    for to, why in {"2025": f"no state is called so; there is {only}", "0": "no earlier", "x": "no state"}.items():
        refused = mesh.run("rollback", "-i", str(mesh.path), "--to", to)
        assert refused.returncode in (1, 64)
        assert why in refused.stderr
    second = apply(mesh, "second")
    two = mesh.answer("rollback", "--to", only, *QUICK, code=1)
    assert statuses(two) == {"one": "changed", "two": "failed"}
    assert two["two"]["error"]["kind"] == "no-state"
    assert f"the oldest that is kept is {second}" in two["two"]["error"]["message"]
    assert motds(mesh) == ("first", "second")
    ambiguous = mesh.run("rollback", "-i", str(mesh.path), "--to", "202")
    assert ambiguous.returncode == 64
    assert "begins the ids of" in ambiguous.stderr


def test_a_damaged_snapshot_is_refused_before_anything_is_touched(mesh: Mesh) -> None:
    apply(mesh, "first")
    second = apply(mesh, "second")
    mesh.hosts["one"].sh(f"echo x >/var/lib/meshctl/snapshots/{second}/network.json")
    nodes = mesh.answer("rollback", code=1)
    assert statuses(nodes) == {"one": "failed", "two": "changed"}
    assert nodes["one"]["error"]["kind"] == "no-state"
    assert "is damaged" in nodes["one"]["error"]["message"]
    assert motds(mesh) == ("second", "first")


def test_a_node_that_does_not_answer_is_named_and_the_others_are_shown(mesh: Mesh) -> None:
    apply(mesh, "first")
    mesh.nodes["two"]["ssh"]["port"] = 1
    mesh.write()
    nodes = mesh.answer("history", code=1)
    assert (nodes["two"]["error"]["kind"], len(nodes["one"]["entries"])) == ("refused", 1)
    text = mesh.run("history", "-i", str(mesh.path))
    assert (text.returncode, "two: refused" in text.stdout, "one:\n* " in text.stdout) == (1, True, True)


def test_a_rollback_waits_to_be_confirmed_as_an_apply_does(mesh: Mesh) -> None:
    apply(mesh, "first")
    apply(mesh, "second")
    mesh.answer("rollback", "one", "--confirm", "manual", "--confirm-timeout", "600")
    assert mesh.answer("history", "one")["one"]["entries"][0]["became"] == "waiting"
    locked = mesh.answer("rollback", "one", code=1)["one"]["error"]
    assert locked["kind"] == "locked"
    assert mesh.run("confirm", str(mesh.path)).returncode == 0
    assert mesh.answer("history", "one")["one"]["entries"][0]["became"] == "applied"


@pytest.mark.parametrize("line", [
    '{"event":"begin","id":5}', '{"event":"begin","id":"t","time":"soon"}', "[1]",
    '{"event":"begin","id":"t","time":1,"changes":[{"node":1}]}', '{"event":"begin","id":"t","time":1,"changes":7}',
])  # fmt: skip
def test_a_journal_of_nonsense_is_one_line_and_no_traceback(mesh: Mesh, line: str) -> None:
    mesh.hosts["one"].sh(f"mkdir -p /var/lib/meshctl/journal; echo '{line}' >/var/lib/meshctl/journal/t.jsonl")
    done = mesh.run("history", "one", "-i", str(mesh.path))
    assert "Traceback" not in done.stderr + done.stdout
    assert len((done.stdout).splitlines()) <= 2


def test_what_a_host_says_does_not_drive_the_terminal(mesh: Mesh) -> None:
    event = '{"event":"begin","id":"t\\\\u001b[2J","time":1,"who":"\\\\u001b]0;x\\\\u0007","node":"one"}'
    script = f"mkdir -p /var/lib/meshctl/journal; printf '%s\\n' '{event}' >/var/lib/meshctl/journal/t.jsonl"
    mesh.hosts["one"].sh(script)
    text = mesh.run("history", "one", "-i", str(mesh.path)).stdout
    assert "t?[2J" in text
    assert "\x1b" not in text


def test_the_schemas_are_schemas() -> None:
    for name in ("history", "rollback"):
        Draft202012Validator.check_schema(load_schema(name))
