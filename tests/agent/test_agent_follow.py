"""Which of two keys a peer uses, from the times of its handshakes: a handshake that was not there counts, whichever."""

from __future__ import annotations

import pytest

from meshctl.agent.follow import Switch
from meshctl.agent.node.wgread import Line
from meshctl.model.keys import PublicKey

OLD, NEW = (PublicKey(letter * 42 + "A=") for letter in "AB")


def peers(old: int, new: int) -> dict[PublicKey, Line]:
    return {key: Line(key, None, when, 0, 0, 0) for key, when in ((OLD, old), (NEW, new))}


def test_the_last_new_handshake_says_which_key_counts() -> None:
    switch = Switch("wg0", OLD, NEW, ())
    switch.uses(peers(100, 0))
    looks = [(100, 0), (100, 110), (100, 110), (100, 111), (130, 111), (130, 111), (131, 131)]
    assert [switch.uses(peers(*look)) for look in looks] == [None, NEW, None, NEW, OLD, None, NEW]


def test_a_clock_that_is_set_back_hides_no_handshake() -> None:
    switch = Switch("wg0", OLD, NEW, ())
    switch.uses(peers(100, 0))
    looks = [(100, 40), (30, 40), (30, 40), (30, 41)]
    assert [switch.uses(peers(*look)) for look in looks] == [NEW, OLD, None, NEW]


def test_a_peer_that_was_made_anew_has_had_no_handshake() -> None:
    switch = Switch("wg0", OLD, NEW, ())
    switch.uses(peers(100, 90))
    assert switch.uses(peers(100, 0)) is None
    assert switch.uses(peers(0, 0)) is None


def test_a_peer_that_is_gone_is_followed_no_more() -> None:
    switch = Switch("wg0", OLD, NEW, ())
    with pytest.raises(KeyError):
        switch.uses({OLD: peers(1, 1)[OLD]})
