"""What becomes of an apply that nobody confirms, on a host without systemd. Hunted: a file that is half of each, an
attribute that stays, and an apply that is undone though it was confirmed."""

from __future__ import annotations

import json
import signal
import time

import pytest
from agent_node import Node, write

from meshctl.model.places import PENDING_PATH, UNDONE_PATH
from meshctl.model.steps import Step, Transaction

BEFORE = """
cd /mnt; echo old >changed; chmod 640 changed; echo gone >removed; echo same >mode; chmod 600 mode; chown 7:7 mode
ln -s changed link; mkdir -m 751 folder; mkdir emptied; ln -s x became
"""
STEPS = (
    write("/mnt/changed", "new"),
    Step("remove", path="/mnt/removed"),
    Step("remove", path="/mnt/emptied"),
    Step("attrs", path="/mnt/mode", mode="4755", owner="root", group="root"),
    Step("link", path="/mnt/link", target="/etc"),
    Step("mkdir", path="/mnt/folder", mode="0700", owner="root", group="root"),
    Step("mkdir", path="/mnt/made/deep", mode="0755", owner="root", group="root"),
    write("/mnt/made/deep/file", "made"),
    Step("remove", path="/mnt/became"),
    write("/mnt/became", "a file"),
)
FAILS = Step("run", argv=("false",))
STATE = """
cd /mnt; find . -printf '%p %m %U %G %y %l\\n' | sort; cat changed removed mode 2>&1 || true
"""
NEVER_S, SOON_S = 600.0, 1.0


@pytest.fixture
def state(node: Node) -> str:
    """Before anything was applied."""
    node.sh(BEFORE)
    return node.sh(STATE)


def test_a_step_that_fails_has_all_before_it_undone(node: Node, state: str) -> None:
    result = node.apply(*STEPS, FAILS, confirm_s=NEVER_S)
    assert (result.ok, result.phase, result.undone) == (False, "converge", ())
    assert node.sh(STATE) == state
    assert node.sh(f"ls {PENDING_PATH} 2>/dev/null || true") == ""
    assert "it failed: false" in json.loads(node.sh(f"cat {UNDONE_PATH}"))["why"]


def test_without_a_window_what_was_done_stays(node: Node, state: str) -> None:
    result = node.apply(*STEPS, FAILS, confirm_s=0.0)
    assert (result.ok, result.undone) == (False, None)
    assert node.sh(STATE) != state


def test_nobody_confirms_it(node: Node, state: str) -> None:
    result = node.apply(*STEPS, confirm_s=SOON_S)
    assert result.ok
    assert node.sh(STATE) != state
    node.await_decided()
    assert node.sh(STATE) == state
    late = node.decide("confirm")
    assert late.failure is not None
    assert (late.failure.kind, late.failure.message) == ("undone", "it was undone: nobody confirmed it within 1 s")


def test_what_is_confirmed_stays(node: Node, state: str) -> None:
    assert node.apply(*STEPS, confirm_s=SOON_S).ok
    assert node.decide("confirm").ok
    after = node.sh(STATE)
    time.sleep(2 * SOON_S)  # nothing comes, which has no event
    assert node.sh(STATE) == after != state
    assert node.apply(write("/mnt/changed", "newer"), confirm_s=0.0, id_="t2").ok


def test_what_is_refused_is_undone_at_once(node: Node, state: str) -> None:
    assert node.apply(*STEPS, confirm_s=NEVER_S).ok
    assert node.decide("undo").undone == ()
    assert node.sh(STATE) == state


def test_who_holds_it_may_confirm_it_later(node: Node, state: str) -> None:
    assert node.apply(*STEPS, confirm_s=2 * SOON_S).ok
    for _ in range(3):
        time.sleep(SOON_S)  # the window itself is what is tested
        assert node.decide("hold").ok
    assert node.decide("confirm").ok
    assert node.sh(STATE) != state


def test_another_apply_meanwhile_is_told_whose_it_waits_for(node: Node, state: str) -> None:
    assert node.apply(*STEPS, confirm_s=NEVER_S).ok
    after = node.sh(STATE)
    second = node.apply(write("/mnt/changed", "other"), confirm_s=NEVER_S, id_="t2")
    assert second.failure is not None
    assert second.failure.kind == "locked"
    assert "ann@desk" in second.failure.message
    assert node.decide("confirm", "t2").failure is not None
    assert node.sh(STATE) == after != state


def test_what_a_killed_applier_has_done_is_undone(node: Node, state: str) -> None:
    waits = Step("run", argv=("sh", "-c", "touch /run/reached; while [ ! -e /run/go ]; do sleep 0.05; done"))
    process = node.start(Transaction("t1", "n", (*STEPS, waits), "", NEVER_S))
    node.sh("timeout 20 sh -c 'while [ ! -e /run/reached ]; do sleep 0.02; done'")
    assert node.sh(STATE) != state
    process.send_signal(signal.SIGKILL)
    process.communicate()
    node.await_decided()
    node.sh("touch /run/go")
    assert node.sh(STATE) == state
    assert json.loads(node.sh(f"cat {UNDONE_PATH}"))["why"] == "the applier died"
    assert node.sh("find /mnt /etc/wireguard -name '.meshctl-*'") == ""
    assert node.apply(write("/mnt/changed", "other"), confirm_s=0.0, id_="t2").ok


def test_after_a_boot_the_next_apply_undoes_it_and_goes_no_further(node: Node, state: str) -> None:
    assert node.apply(*STEPS, confirm_s=NEVER_S).ok
    node.sh(f"cp {PENDING_PATH} /run/kept")
    assert node.decide("confirm").ok  # so that nobody waits any more
    node.sh(f"""sed 's/"boot": "[^"]*"/"boot": "before"/' /run/kept >{PENDING_PATH}""")
    result = node.apply(write("/mnt/changed", "other"), confirm_s=0.0, id_="t2")
    assert result.failure is not None
    assert (result.failure.kind, result.phase) == ("undone", "lock")
    assert node.sh(STATE) == state
    assert node.apply(write("/mnt/changed", "other"), confirm_s=0.0, id_="t3").ok
