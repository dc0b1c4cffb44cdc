"""`meshctl history` and `rollback` as a person runs them, against hosts behind real sshd processes; and which state is
chosen. Hunted: a node that goes back further than was asked, and one that goes back unasked."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sshmesh import Mesh

from meshctl.cli import origin
from meshctl.cli.history import history_text
from meshctl.core.change import Change
from meshctl.core.history import Entry, entries, states
from meshctl.core.inverse import taken_back
from meshctl.deploy import histories
from meshctl.deploy.rollback import History, Way, choose, refuse_rotated, runs, way
from meshctl.errors import MeshctlError, RemoteError, UsageError
from meshctl.inventory import load_schema
from meshctl.model.keys import PublicKey
from meshctl.model.mesh import Attachment, Network, Node, SshSettings
from meshctl.model.mesh import Mesh as NetMesh

QUICK = ("--confirm", "off")
FIRST, SECOND, THIRD, FOURTH = (f"2026072{n}T101112000000-aaaaaa" for n in range(1, 5))


def apply(mesh: Mesh, motd: str, *words: str) -> str:
    """With that content, on both hosts or those of a --limit; the run's id."""
    mesh.motd = motd
    mesh.write()
    mesh.apply(*QUICK, *words)
    host = mesh.hosts[words[-1] if words else "one"]
    return host.sh("ls /var/lib/meshctl/snapshots").split()[-1]


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
    newest = apply(mesh, "second")
    nodes = mesh.answer("history")
    entries = nodes["one"]["entries"]
    assert [(e["revision"], e["became"], e["present"], e["reachable"]) for e in entries] == [
        (f"{commit}-dirty", "applied", True, True), ("", "applied", False, True),
    ]  # fmt: skip
    assert [entry["id"] for entry in entries] == [entry["id"] for entry in nodes["two"]["entries"]]
    assert entries[0]["who"] == origin.author()
    changed = {(c["kind"], c["name"]): (c["before"], c["after"]) for c in entries[0]["changes"]}
    assert changed["mtu", "wg0"] == ({"mtu": 1420}, {"mtu": 1390})
    assert ("key", "wg0") in {(c["kind"], c["name"]) for c in entries[1]["changes"]}
    text = mesh.run("history", "one", "-i", str(mesh.path)).stdout
    assert text.startswith(f"one:\n* {newest}  2")
    assert f"{commit}-dirty  applied\n    ~ update file " in text
    assert "        mtu: 1420 -> 1390\n" in text
    assert "sesame" not in text
    assert len(mesh.run("history", "-i", str(mesh.path), "--short").stdout.splitlines()) == 7


def test_the_revision_is_that_of_the_inventory_and_not_of_what_stands_beside_it(mesh: Mesh) -> None:
    assert origin.revision(mesh.path) == ""
    git(mesh, "init", "-q")
    assert origin.revision(mesh.path) == "", "no commit"
    git(mesh, "add", "-A")
    git(mesh, "commit", "-q", "-m", "first")
    commit = git(mesh, "rev-parse", "HEAD")[:12]
    (mesh.folder / "plan.json").write_text("{}")
    assert origin.revision(mesh.path) == commit
    role = mesh.folder / "roles" / "wireguard" / "tasks" / "new.yml"
    role.write_text("[]\n")
    assert origin.revision(mesh.path) == f"{commit}-dirty"
    role.unlink()
    mesh.motd = "changed"
    mesh.write()
    assert origin.revision(mesh.path) == f"{commit}-dirty"


def test_the_newest_run_is_taken_back_and_the_rollback_too(mesh: Mesh) -> None:
    first = apply(mesh, "first")
    second = apply(mesh, "second")
    apply(mesh, "third", "--limit", "one")
    before = mesh.hosts["two"].sh("stat -c %Y%i /etc/app/motd /var/lib/meshctl/*")
    assert statuses(mesh.answer("rollback", *QUICK)) == {"one": "changed", "two": "unchanged"}
    assert mesh.hosts["two"].sh("stat -c %Y%i /etc/app/motd /var/lib/meshctl/*") == before
    assert motds(mesh) == ("second", "second")
    nodes = mesh.answer("rollback", "--to", first[:-3])
    assert (nodes["two"]["state"]["id"], nodes["two"]["taken_back"]) == (first, [second])
    assert len(nodes["one"]["taken_back"]) == 3
    assert [(c["action"], c["kind"], c["name"]) for c in nodes["two"]["changes"]] == [
        ("update", "file", "/etc/app/motd")]  # fmt: skip
    assert motds(mesh) == ("first", "first")
    mesh.motd = "second"
    mesh.write()
    plan = mesh.run("plan", str(mesh.path))
    assert "Plan: 0 to add, 2 to change, 0 to destroy." in plan.stdout
    done = mesh.run("rollback", "-i", str(mesh.path), *QUICK)
    assert motds(mesh) == ("second", "second")
    assert "the hosts differ from the inventory now: revert the commit in Git" in done.stderr
    assert f"two: back to {second}" in done.stderr
    assert mesh.run("plan", str(mesh.path)).stdout.startswith("No changes.")
    newest = mesh.answer("history", "two")["two"]["entries"][0]
    assert (newest["rollback_to"], newest["became"], newest["present"]) == (second, "applied", True)


def test_what_cannot_be_gone_back_to_or_read_is_named_and_the_others_go_on(mesh: Mesh) -> None:
    nothing = mesh.run("rollback", "-i", str(mesh.path))
    assert nothing.returncode == 1
    assert "there is no earlier state to go back to" in nothing.stderr
    assert mesh.run("history", "-i", str(mesh.path)).stdout.count("nothing was applied that is known") == 2
    apply(mesh, "first")
    second = apply(mesh, "second")
    mesh.hosts["one"].sh(f"echo x >/var/lib/meshctl/snapshots/{second}/network.json")
    nodes = mesh.answer("rollback", code=1)
    assert statuses(nodes) == {"one": "failed", "two": "changed"}
    assert nodes["one"]["error"]["kind"] == "no-state"
    assert "is damaged" in nodes["one"]["error"]["message"]
    assert motds(mesh) == ("second", "first")
    mesh.nodes["two"]["ssh"]["port"] = 1
    mesh.write()
    nodes = mesh.answer("history", code=1)
    assert (nodes["two"]["error"]["kind"], len(nodes["one"]["entries"])) == ("refused", 3)
    assert nodes["one"]["entries"][0]["became"] == "failed"
    text = mesh.run("history", "-i", str(mesh.path))
    assert (text.returncode, "two: refused" in text.stdout, f"\n* {second}" in text.stdout) == (1, True, True)


def known(*ids: str, undone: Iterable[str] = ()) -> tuple[Entry, ...]:
    """A node's history, the oldest first given; only the first one's snapshot is not kept."""
    return tuple(
        Entry(
            name, number, "", "", "", "undone" if name in undone else "applied", "", name not in undone,
            name not in undone, number > 0,
        ) for number, name in enumerate(ids)
    )[::-1]  # fmt: skip


def test_steps_are_runs_that_have_changed_one_of_these_nodes() -> None:
    mesh = {"a": known(FIRST, SECOND, FOURTH, undone=[THIRD]), "b": known(FIRST, SECOND, THIRD)}
    assert [choose(mesh, to) for to in ("", "1", "2", "3")] == [THIRD, THIRD, SECOND, FIRST]
    assert choose(mesh, SECOND[:10]) == SECOND
    assert choose({"a": mesh["a"]}, "1") == SECOND
    found = {name: way(name, history, (THIRD, SECOND, FIRST)) for name, history in mesh.items()}
    assert {name: w and (w.state.id, w.ids) for name, w in found.items()} == {
        "a": (SECOND, (FOURTH,)), "b": (THIRD, ())}  # fmt: skip


@pytest.mark.parametrize(("to", "why"), [
    ("0", "1 to 2 steps"), ("3", "1 to 2 steps"),
    ("2025", f"no state is called so; there is {THIRD}, {SECOND}, {FIRST}"),
    ("202607", f"begins the ids of {THIRD}, {SECOND}, {FIRST}"), (FOURTH, "is no state to go back to: undone"),
    ("-1", "no state is called so"), ("ü", "no state is called so"),
])  # fmt: skip
def test_what_is_no_state_is_wrong_usage_that_says_what_there_is(to: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        choose({"a": known(FIRST, SECOND, THIRD, FOURTH, undone=[FOURTH]), "b": known()}, to)


def rounds(became: str) -> History:
    """Of a host to which SECOND was applied in two rounds; and what became of the second one."""
    ended = [{"event": "phase", "phase": "converge"}, {"event": "end", "ok": True}]
    undone = [{"event": "revert", "why": became}, {"event": "reverted", "left": []}]
    begins = ((FIRST, ""), (f"{SECOND}-new", SECOND), (SECOND, ""))
    journals = [
        [{"event": "begin", "id": name, "time": number, "part_of": part_of, "changes": [{"name": name}]}, *ended]
        for number, (name, part_of) in enumerate(begins)
    ]
    return entries([*journals[:2], [*journals[2], *(undone if became else [])]], {name for name, _ in begins}, None)


def test_what_was_applied_in_two_rounds_is_one_state_and_is_taken_back_as_one() -> None:
    second, first = rounds("")
    assert [second.id, first.id] == [SECOND, FIRST]
    assert [change["name"] for change in second.changes] == [f"{SECOND}-new", SECOND]
    assert choose({"a": (second, first)}, "") == FIRST
    found = way("a", (second, first), (FIRST,))
    assert found is not None
    assert found.ids == (SECOND, f"{SECOND}-new")


def test_a_first_round_whose_second_was_undone_is_no_state_and_can_be_taken_back() -> None:
    history = rounds("nobody confirmed it")
    assert {entry.id for entry in states(history)} == {FIRST}
    assert choose({"a": history}, "") == FIRST
    found = way("a", history, (FIRST,))
    assert found is not None
    assert found.ids == (f"{SECOND}-new",)


def test_a_node_without_such_a_state_is_left_alone() -> None:
    with pytest.raises(MeshctlError, match="there is no earlier state"):
        choose({"a": known(FIRST), "b": ()}, "")
    with pytest.raises(RemoteError, match=f"the oldest that is kept is {SECOND}"):
        way("a", known(SECOND, THIRD), (FIRST,))
    assert way("b", (), (FIRST,)) is None


def test_runs_are_in_the_order_in_which_hosts_have_seen_them_whatever_a_controllers_clock_says() -> None:
    late = "20260801T000000000000-bbbbbb"  # of a controller whose clock is days ahead
    mesh = {"a": known(FIRST, late, SECOND), "b": known(FIRST, THIRD), "c": known(late, SECOND, THIRD)}
    assert runs(mesh) == (THIRD, SECOND, late, FIRST)
    assert choose(mesh, "") == SECOND
    assert choose({"a": mesh["a"]}, "") == late
    assert choose({"b": known(late), "a": known(late, SECOND)}, "") == late
    found = way("b", mesh["b"], (late, FIRST))
    assert found is not None
    assert (found.state.id, found.ids) == (FIRST, (THIRD,))


def test_two_runs_that_two_hosts_have_seen_the_other_way_round_are_both_there() -> None:
    assert runs({"a": known(FIRST, SECOND), "b": known(SECOND, FIRST)}) == (SECOND, FIRST)


def peer(action: str, key: str, *allowed_ips: str) -> dict[str, Any]:
    fields = {"public_key": key, "allowed_ips": list(allowed_ips)}
    before, after = (None, fields) if action == "create" else (fields, None)
    return {"node": "a", "kind": "peer", "action": action, "name": "wg0 b", "before": before, "after": after}


def changed(kind: str, field: str) -> dict[str, Any]:
    before, after = {field: "1"}, {field: "2"}
    return {"node": "a", "kind": kind, "action": "update", "name": "wg0 x", "before": before, "after": after}


OLD, NEW, ANOTHER = ("A" * 42 + "A=", "B" * 42 + "A=", "C" * 42 + "A=")


@pytest.mark.parametrize(("why", "change"), [
    ("its own key", changed("key", "public_key")), ("its pre-shared key with x", changed("peer", "psk")),
    ("a peer's key", peer("create", NEW)), ("a peer's key", peer("delete", OLD)),
    ("a peer's key", peer("delete", OLD, "10.42.0.2/32", "192.168.1.0/24")),
    ("", peer("create", NEW, "10.42.0.2/32")), ("", peer("create", ANOTHER)),
    ("", peer("delete", NEW, "10.42.0.2/32")), ("", peer("delete", ANOTHER, "10.42.0.9/32")),
    ("", peer("delete", ANOTHER, "10.42.0.9/32", "10.42.0.2/32")), ("", changed("key", "mode")),
    ("", changed("peer", "endpoint")),
], ids=str)  # fmt: skip
def test_no_way_leads_over_the_change_of_a_key(why: str, change: dict[str, Any]) -> None:
    network = Network("corp", ("10.42.0.0/16",))
    a, b = Attachment("corp", "wg0", ("10.42.0.1",), 1), Attachment("corp", "wg0", ("10.42.0.2",), 1)
    nodes = {
        "a": Node("a", (a,), SshSettings("a")),
        "b": Node("b", (replace(b, public_key=PublicKey(NEW)),), SshSettings("b")),
    }
    mesh = NetMesh({"corp": network}, nodes, {})
    newest, state = known(FIRST, SECOND)
    found = Way(state, (replace(newest, changes=(change,)),))
    with pytest.raises(RemoteError, match=f"leads over a change of {why}") if why else nullcontext():
        refuse_rotated("a", found, mesh)


def test_a_node_does_not_go_back_to_between_a_switch_and_its_clean_up() -> None:
    newest, state = known(FIRST, SECOND)
    switched = replace(state, changes=(changed("key", "public_key"),))
    mesh = NetMesh({}, {"a": Node("a", (), SshSettings("a"))}, {})
    refuse_rotated("a", Way(switched, ()), mesh)
    with pytest.raises(RemoteError, match="over a change of its own key"):
        refuse_rotated("a", Way(switched, (newest,)), mesh)


def test_changes_that_come_to_the_same_are_not_shown() -> None:
    def change(action: str, kind: str, before: Any, after: Any) -> Change:
        return Change("a", kind, action, "x", before, after)

    done = [
        change("create", "package", None, {"name": "x"}), change("create", "key", None, {}),
        change("update", "file", {"sha256": "1"}, {"sha256": "2"}), change("update", "mtu", {"mtu": 1}, {"mtu": 2}),
        change("create", "peer", None, {"endpoint": "e", "keepalive": 0}), change("run", "handler", None, None),
        change("update", "file", {"sha256": "2", "mode": "a"}, {"sha256": "3", "mode": "b"}),
        change("update", "mtu", {"mtu": 2}, {"mtu": 1}), change("update", "peer", {"keepalive": 0}, {"keepalive": 25}),
        change("create", "table", None, {"source": "s"}), change("delete", "table", {"source": "s"}, None),
    ]  # fmt: skip
    assert taken_back(done) == (
        change("delete", "peer", {"endpoint": "e", "keepalive": 25}, None),
        change("update", "file", {"sha256": "3", "mode": "b"}, {"sha256": "1", "mode": "a"}),
    )


@pytest.mark.parametrize("text", [
    '{"event":"begin"}', "S x",
    'J\n{"event":"begin","id":"t","time":1,"changes":[{"node":1}]}',
])  # fmt: skip
def test_what_is_no_history_is_refused_as_such(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError, IndexError)):
        histories.parse(text)


def test_a_line_that_a_power_cut_has_cut_is_left_out_and_nothing_drives_the_terminal() -> None:
    begin = '{"event":"begin","id":"t","time":1,"who":"\\u001b[2Jann","node":"one"}'
    (entry,) = histories.parse(f'J\n{begin}\n{{"event":"pha\nJ\n{{"ev\n')
    assert (entry.who, entry.became, entry.stands) == ("?[2Jann", "unfinished", False)


@pytest.mark.parametrize("noise", [
    "[1]", "5", "[" * 5000, '{"event":"begin"}', '{"event":"begin","id":"t","time":"soon"}',
    '{"event":"begin","id":"t","time":1,"changes":7}', '{"event":"begin","id":"t"}\n{"event":"end","failure":5}',
])  # fmt: skip
def test_noise_in_a_journal_hides_no_other(noise: str) -> None:
    journal = 'J\n{"event":"begin","id":"u","time":1}\n{"event":"end","ok":true}'
    found = histories.parse(f"J\n{noise}\n{journal}")
    assert [(entry.id, entry.became) for entry in found] == [("u", "applied")]


@pytest.mark.parametrize("waits", ["", "x", "[" * 5000, "7", '{"who":1}', '{"id":7}'])
def test_what_waits_by_a_damaged_file_the_journals_say(waits: str) -> None:
    def journal(number: int, *events: str) -> str:
        begin = f'{{"event":"begin","id":"t{number}","number":{number},"changes":[]}}'
        return "\n".join(["J", begin, '{"event":"phase","phase":"arm"}', *events, '{"event":"end","ok":true}', ""])

    def became(text: str) -> list[str]:
        return [entry.became for entry in histories.parse(f"{text}P {waits}\n")]

    kept = "".join(f"S /var/lib/meshctl/snapshots/t{number}/manifest.json\n" for number in (1, 2))
    confirmed = '{"event":"confirmed"}'
    assert became(journal(2) + journal(1) + kept) == ["waiting", "applied"]
    assert became(journal(2, confirmed) + journal(1) + kept) == ["applied", "applied"]
    assert became(journal(3) + journal(2, confirmed) + journal(1) + kept) == ["applied"] * 3, "it is no way back"


def test_a_journal_that_is_lost_is_named_as_what_no_way_leads_over() -> None:
    host = (*entries([], {THIRD}, None), *known(FIRST, SECOND))
    for to in ("", SECOND):
        with pytest.raises((MeshctlError, UsageError), match=f"a: {THIRD} is damaged: its journal is lost"):
            choose({"a": host}, to)
    with pytest.raises(RemoteError, match=f"none is kept; a: {THIRD} is damaged: its journal is lost") as raised:
        way("a", host, (SECOND, FIRST))
    assert raised.value.kind == "no-state"
    assert choose({"a": host, "b": known(FIRST, SECOND, THIRD)}, "") == SECOND
    shown = history_text({"a": host}, {}, short=True).splitlines()[1]
    assert shown.startswith(f"* {THIRD}  ?  ?  (no revision)  damaged: its journal is lost")


def test_the_schemas_are_schemas() -> None:
    for name in ("history", "rollback"):
        Draft202012Validator.check_schema(load_schema(name))
