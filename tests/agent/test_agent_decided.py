"""What the applier says to who comes a second time, or late. Hunted: what stays and is reported as undone, and steps
that were made for a host that is another one by now."""

from __future__ import annotations

from agent_node import Node, write
from test_agent_rollback import history

from meshctl.model.ledger import LEDGER_PATH, Ledger
from meshctl.model.steps import Result, Step

NEVER_S = 600.0


def kind(result: Result) -> str:
    return result.failure.kind if result.failure else "ok"


def ledger(*files: str) -> Step:
    return Step("ledger", path=LEDGER_PATH, content=Ledger(files=dict.fromkeys(files, "")).to_json().encode())


def test_a_confirmation_whose_answer_was_lost_is_answered_again(node: Node) -> None:
    assert node.apply(write("/mnt/a", "1"), confirm_s=NEVER_S, id_="t1").ok
    assert [kind(node.decide(what, "t1")) for what in ("confirm", "confirm")] == ["ok", "ok"]
    assert node.apply(write("/mnt/a", "2"), confirm_s=NEVER_S, id_="t2").ok
    assert kind(node.decide("confirm", "t1")) == "ok", "while another one waits"


def test_what_was_confirmed_is_not_said_to_be_undone(node: Node) -> None:
    assert node.apply(write("/mnt/a", "1"), confirm_s=NEVER_S, id_="t1").ok
    assert node.decide("confirm", "t1").ok
    assert [kind(node.decide(what, "t1")) for what in ("undo", "hold")] == ["confirmed", "confirmed"]
    assert node.sh("cat /mnt/a") == "1"


def test_what_was_undone_stays_undone_to_who_comes_late(node: Node) -> None:
    assert node.apply(write("/mnt/a", "1"), confirm_s=NEVER_S, id_="t1").ok
    assert node.decide("undo", "t1").ok
    assert [kind(node.decide(what, "t1")) for what in ("confirm", "undo", "hold")] == ["undone"] * 3
    assert kind(node.decide("confirm", "t9")) == "undone", "nobody has heard of that one"


def test_steps_that_were_made_for_another_ledger_touch_nothing(node: Node) -> None:
    nothing = Ledger().digest
    assert node.apply(write("/mnt/a", "1"), ledger("/mnt/a"), ledger=nothing, id_="t1").ok
    late = node.apply(write("/mnt/a", "2"), ledger("/mnt/b"), ledger=nothing, confirm_s=NEVER_S, id_="t2")
    assert (late.phase, kind(late), late.undone) == ("stage", "moved", None)
    assert node.sh("cat /mnt/a") == "1"
    assert [(entry.id, entry.stands) for entry in history(node)] == [("t2", False), ("t1", True)]
    now = Ledger(files={"/mnt/a": ""}).digest
    assert node.apply(write("/mnt/a", "3"), ledger=now, confirm_s=NEVER_S, id_="t3").ok
