"""What WireGuard's packets say of a path that answers checks, at the bounds of both times. Hunted: a pause that is
taken for use of the relay, and a path that is given up a moment too soon."""

from __future__ import annotations

from meshctl.core.agent.blockage import BLOCKED_S, DETOUR_PAUSE_S, Blockage, Came

NOW = 1.0


def test_how_long_content_has_waited_is_told_once() -> None:
    blockage = Blockage()
    assert blockage.came(Came.BY_PATH, NOW) == 0.0
    blockage.sent(NOW)
    blockage.sent(NOW + 1.0)
    assert blockage.came(Came.UNKNOWN, NOW + 3.0) == 3.0
    assert blockage.came(Came.BY_PATH, NOW + 4.0) == 0.0


def test_a_peer_that_answers_by_the_relay_alone_is_on_it_as_long_as_its_pauses_are_no_longer_than_they_may_be() -> None:
    for pause_s, reason in (
        (BLOCKED_S / 2, f"WireGuard's packets have come by the relay alone for {BLOCKED_S:.0f} s"),
        (DETOUR_PAUSE_S, f"WireGuard's packets have come by the relay alone for {2 * DETOUR_PAUSE_S:.0f} s"),
        (DETOUR_PAUSE_S + 0.5, ""),
    ):
        blockage = Blockage()
        for times in range(3):
            assert blockage.reason(NOW + times * pause_s) == ""
            blockage.came(Came.BY_RELAY, NOW + times * pause_s)
        assert blockage.reason(NOW + 2 * pause_s) == reason


def test_silence_counts_from_the_first_packet_by_the_relay_if_content_followed_soon_else_from_that() -> None:
    for pause_s, since in ((DETOUR_PAUSE_S, NOW), (DETOUR_PAUSE_S + 0.5, NOW + DETOUR_PAUSE_S + 0.5)):
        blockage = Blockage()
        blockage.came(Came.BY_RELAY, NOW)
        blockage.sent(NOW + pause_s)
        assert blockage.reason(since + BLOCKED_S - 0.5) == ""
        assert blockage.reason(since + BLOCKED_S).endswith(f"for {BLOCKED_S:.0f} s, though checks do")
        blockage.forget()
        assert blockage.reason(since + BLOCKED_S) == ""
