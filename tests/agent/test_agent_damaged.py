"""Going back on a host whose disk is damaged. Hunted: noise in a file of ours that switches the dead-man's switch off,
blocks every apply, or leads a rollback into a state that never was."""

from __future__ import annotations

import json

import pytest
from agent_node import Node, script, write
from test_agent_rollback import back, history

from meshctl.core.history import states
from meshctl.model.places import PENDING_PATH, UNDONE_PATH
from meshctl.model.steps import Step

NEVER_S, SOON_S = 600.0, 1.0
JOURNALS = "/var/lib/meshctl/journal"
# Until who goes back by itself has seen that it is to wait: it takes the lock after the applier, in nobody's name.
WAITS = "cd /run/meshctl; timeout 20 sh -c 'while grep -q ann@ apply.lock; do sleep 0.05; done; flock apply.lock true'"
NOISE = (
    "7", "[]", '"text"', "null", "{}", "[" * 5000, '{"event":"temp"}', '{"event":"temp","path":7}',
    '{"event":"temp","path":"/mnt"}', r'{"event":"temp","path":"a\u0000b"}', '{"event":["begin"],"id":1}',
    '{"event":"begin"}', '{"event":"begin","id":"x","time":"soon"}', '{"event":"begin","id":"x","number":"many"}',
    '{"event":"begin","id":"x","number":NaN}', '{"event":"begin","id":"x","changes":7}',
    '{"event":"begin","id":"x"}\n{"event":"end","ok":false,"failure":5}',
    '{"event":"begin","id":"x"}\n{"event":"revert","why":1}\n{"event":"reverted","left":null}',
)  # fmt: skip


def noise(node: Node, text: str) -> None:
    node.sh(f"mkdir -p {JOURNALS}; cat >{JOURNALS}/20260101T000000000000-aaaaaa.jsonl <<'E'\n{text}\nE")


def kind(node: Node, what: str, id_: str) -> str:
    result = node.decide(what, id_)
    return result.failure.kind if result.failure else "ok"


def test_whatever_is_in_a_journal_an_apply_is_confirmed_or_goes_back(node: Node) -> None:
    for number, text in enumerate(NOISE):
        noise(node, text)
        assert node.apply(write("/mnt/a", "old"), confirm_s=NEVER_S, id_=f"o{number}").ok, text
        assert kind(node, "confirm", f"o{number}") == "ok", text
        assert node.apply(write("/mnt/a", "new"), confirm_s=NEVER_S, id_=f"n{number}").ok, text
        assert node.decide("undo", f"n{number}").undone == (), text
        assert node.sh("cat /mnt/a") == "old", text


@pytest.mark.parametrize("text", ["7", '{"event":"temp"}'])
def test_noise_that_comes_into_a_journal_meanwhile_does_not_keep_the_host_from_going_back(
    node: Node, text: str
) -> None:
    assert node.apply(write("/mnt/a", "new"), confirm_s=SOON_S).ok
    noise(node, text)
    node.await_decided()
    assert node.sh("ls /mnt") == ""
    assert json.loads(node.sh(f"cat {UNDONE_PATH}"))["left"] == []


def test_a_journal_that_is_a_folder_does_not_keep_the_host_from_going_back(node: Node) -> None:
    assert node.apply(write("/mnt/a", "new"), confirm_s=SOON_S).ok
    node.sh(f"mkdir {JOURNALS}/x.jsonl")
    node.await_decided()
    assert node.sh("ls /mnt") == ""
    assert json.loads(node.sh(f"cat {UNDONE_PATH}"))["left"] == []


DAMAGED = (
    "head -c 300 /dev/urandom >", "truncate -s 0 ", "echo 7 >", "echo [] >", "echo {} >", "truncate -s 60 ",
    "sed -i 's/\"until\": [0-9.]*/\"until\": \"soon\"/' ",
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_waits_by_a_damaged_file_goes_back_when_its_time_is_over(node: Node, damage: str) -> None:
    assert node.apply(write("/mnt/a", "old")).ok
    assert node.apply(write("/mnt/a", "new"), confirm_s=2 * SOON_S, id_="t2").ok
    node.sh(f"{damage}{PENDING_PATH}")
    node.await_decided()
    assert node.sh("cat /mnt/a") == "old"
    told = json.loads(node.sh(f"cat {UNDONE_PATH}"))
    assert (told["id"], told["why"]) == ("t2", f"{PENDING_PATH} is damaged, so that nobody can confirm it")


@pytest.mark.parametrize("damage", DAMAGED[:2], ids=["noise", "empty"])
@pytest.mark.parametrize("what", ["confirm", "hold", "apply"])
def test_who_comes_to_confirm_it_or_applies_anew_is_told_that_it_was_undone(
    node: Node, what: str, damage: str
) -> None:
    assert node.apply(write("/mnt/a", "old")).ok
    assert node.apply(write("/mnt/a", "new"), confirm_s=NEVER_S, id_="t2").ok
    node.sh(WAITS)
    node.sh(f"{damage}{PENDING_PATH}")
    result = node.apply(write("/mnt/a", "newer"), id_="t3") if what == "apply" else node.decide(what, "t2")
    assert result.failure is not None
    assert (result.failure.kind, node.sh("cat /mnt/a")) == ("undone", "old")
    assert node.sh(f"ls {PENDING_PATH} 2>/dev/null || true") == ""


def test_an_apply_whose_file_is_damaged_while_it_runs_is_undone(node: Node) -> None:
    assert node.apply(write("/mnt/a", "old")).ok
    result = node.apply(write("/mnt/a", "new"), script(f"echo 7 >{PENDING_PATH}"), confirm_s=NEVER_S, id_="t2")
    assert result.failure is not None
    assert (result.failure.kind, result.undone) == ("command", ())
    assert PENDING_PATH in result.failure.message
    assert node.sh("cat /mnt/a") == "old"


def test_nothing_is_undone_for_such_a_file_where_nothing_waits(node: Node) -> None:
    assert node.apply(write("/mnt/a", "old"), confirm_s=NEVER_S).ok
    assert node.decide("confirm").ok
    for number, about in enumerate(({"confirm_s": 0.0}, {"confirm_s": NEVER_S}), 2):
        node.sh(f"echo 7 >{PENDING_PATH}")
        assert node.apply(write("/mnt/a", str(number)), id_=f"t{number}", **about).ok
        if about["confirm_s"]:
            assert node.decide("confirm", f"t{number}").ok
        assert node.sh(f"cat /mnt/a; ls {PENDING_PATH} 2>/dev/null || true") == str(number)


CUT = ("truncate -s 0", "truncate -s 40", "sed -i 1d", "sed -i 2,99d", "sed -i 3,99d", "rm")


@pytest.mark.parametrize("cut", CUT)
def test_no_rollback_leads_over_what_has_lost_its_journal(node: Node, cut: str) -> None:
    for number in range(1, 4):
        assert node.apply(write("/mnt/a", str(number)), write(f"/mnt/{number}", ""), id_=f"t{number}").ok
    node.sh(f"{cut} {JOURNALS}/t3.jsonl")
    result = node.apply(Step("restore", argv=("t2",), target="t1"), id_="t4")
    assert result.failure is not None
    assert (result.phase, result.failure.kind, "t3.jsonl" in result.failure.message) == ("stage", "no-state", True)
    assert node.sh("cat /mnt/a; ls /mnt") == "3" + "1\n2\n3\na\n"
    assert [(entry.id, entry.became) for entry in history(node) if entry.id != "t4"] == [
        ("t3", "damaged"), ("t2", "applied"), ("t1", "applied"),
    ]  # fmt: skip
    assert states(history(node)) == []


def test_what_has_lost_its_journal_is_forgotten_once_no_way_leads_over_it(node: Node) -> None:
    for number in range(1, 10):
        assert node.apply(write("/mnt/a", str(number)), id_=f"t{number}").ok
        if number == 3:
            node.sh(f"truncate -s 0 {JOURNALS}/t3.jsonl")
        reached = [entry.id for entry in states(history(node))]
        assert (reached == []) == (3 <= number < 9), number
    assert reached == ["t9", "t8", "t7", "t6", "t5", "t4"]
    assert back(node, "t10", "t4").ok
    assert node.sh("cat /mnt/a") == "4"


@pytest.mark.parametrize("what", ["confirm", "undo"])
def test_what_loses_its_journal_while_it_waits_is_damaged_only_if_it_stays(node: Node, what: str) -> None:
    assert node.apply(write("/mnt/a", "1"), id_="t1").ok
    assert node.apply(write("/mnt/a", "2"), confirm_s=NEVER_S, id_="t2").ok
    node.sh(f"truncate -s 0 {JOURNALS}/t2.jsonl")
    assert [entry.became for entry in history(node)] == ["waiting", "applied"]
    assert node.decide(what, "t2").ok
    newest = {entry.id: entry.became for entry in history(node)}["t2"]
    assert newest == ("damaged" if what == "confirm" else "undone")
    assert [entry.id for entry in states(history(node))] == ([] if what == "confirm" else ["t1"])
