"""Going back on a host whose disk is damaged. Hunted: noise in a file of ours that switches the dead-man's switch off,
blocks every apply, or leads a rollback into a state that never was."""

from __future__ import annotations

import json

import pytest
from agent_node import Node, write

from meshctl.model.places import UNDONE_PATH

NEVER_S, SOON_S = 600.0, 1.0
JOURNALS = "/var/lib/meshctl/journal"
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
