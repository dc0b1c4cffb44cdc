"""The model of WireGuard keeps the kernel's own times and habits."""

from __future__ import annotations

import itertools
import random

import pytest
from simclock import Clock
from simnet import Cable, Host, Packet, Segment
from simwg import KEEPALIVE_TIMEOUT_S, REKEY_AFTER_S, WireGuard, handshake_of

PORT = 51820
A, B = b"a" * 16, b"b" * 16
SECRET = b"secret of a pair"


class Pair:
    """Two hosts on one internet, `a` and `b`, each the other's peer; `seen` is every packet on the wire."""

    def __init__(self) -> None:
        self.clock = Clock()
        dice = random.Random(1)  # noqa: S311
        self.internet = Segment(self.clock, dice)
        self.cables = {"a": Cable(), "b": Cable()}
        self.seen: list[tuple[float, str, Packet]] = []
        self.got: dict[str, list[bytes]] = {"a": [], "b": []}
        self.hosts, self.wg = {}, {}
        for name, key, ip in (("a", A, "203.0.113.1"), ("b", B, "203.0.113.2")):
            host = self.hosts[name] = Host()
            host.join(self.internet, ip, self.cables[name])
            got = self.got[name]
            wg = self.wg[name] = WireGuard(self.clock, host, PORT, key, dice, lambda _, data, got=got: got.append(data))
            host.bind(PORT, lambda packet, name=name, wg=wg: self.receive(name, wg, packet))
        self.wg["a"].add(B, SECRET, ["10.0.0.2"], ("203.0.113.2", PORT))
        self.wg["b"].add(A, SECRET, ["10.0.0.1"])

    def receive(self, name: str, wg: WireGuard, packet: Packet) -> None:
        self.seen.append((self.clock.now, name, packet))
        wg.receive(packet)

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)

    def arrivals(self, name: str, kind: int) -> list[float]:
        return [when for when, to, packet in self.seen if to == name and packet.data[0] == kind]


def test_the_first_packet_starts_a_handshake_and_is_delivered_after_it() -> None:
    pair = Pair()
    assert pair.wg["a"].send("10.0.0.2", b"hello")
    pair.run(1)
    assert pair.got["b"] == [b"hello"]
    assert [len(pair.arrivals("b", 1)), len(pair.arrivals("a", 2))] == [1, 1]
    (peer,) = pair.wg["b"].peers()
    assert peer.endpoint == ("203.0.113.1", PORT)
    assert pair.wg["b"].send("10.0.0.1", b"back")
    pair.run(1)
    assert pair.got["a"] == [b"back"]


def test_the_oldest_of_more_than_129_waiting_packets_are_dropped() -> None:
    pair = Pair()
    pair.cables["b"].up = False
    for number in range(200):
        pair.wg["a"].send("10.0.0.2", bytes([number]))
    pair.run(1)
    pair.cables["b"].up = True
    pair.run(6)
    assert pair.got["b"] == [bytes([number]) for number in range(71, 200)]


def test_an_unanswered_handshake_is_tried_again_every_five_seconds_and_given_up_after_ninety() -> None:
    pair = Pair()
    pair.cables["a"].loss = 0.0
    pair.hosts["b"].bind(PORT, lambda packet: pair.seen.append((pair.clock.now, "b", packet)))
    pair.wg["a"].send("10.0.0.2", b"hello")
    pair.run(300)
    times = pair.arrivals("b", 1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(5.0 <= gap <= 5.4 for gap in gaps)
    assert 90 <= times[-1] <= 110


def test_what_is_sent_with_nowhere_to_send_to_is_dropped_by_the_kernel_and_waits_in_a_userspace_wireguard() -> None:
    for userspace in (False, True):
        pair = Pair()
        pair.wg["b"].userspace = userspace
        assert pair.wg["b"].send("10.0.0.1", b"to a") is userspace
        pair.run(7)
        pair.wg["b"].set_endpoint(A, ("203.0.113.1", PORT))
        pair.run(2)
        assert pair.got["a"] == [], "there was a try at 0 and at 5 s, or none at all"
        pair.run(3)
        assert pair.got["a"] == [b"to a"] * userspace


def test_a_session_under_traffic_is_renewed_after_two_minutes_without_a_gap() -> None:
    pair = Pair()
    for _ in range(400):
        pair.wg["a"].send("10.0.0.2", b"x")
        pair.run(1)
    assert len(pair.got["b"]) == 400
    times = pair.arrivals("b", 1)
    assert [round(t / REKEY_AFTER_S) for t in times] == [0, 1, 2, 3]


def test_who_only_receives_sends_a_keepalive_after_ten_seconds() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(60)
    data = pair.arrivals("a", 4)
    assert [round(t) for t in data] == [KEEPALIVE_TIMEOUT_S]


def test_who_hears_more_while_a_keepalive_is_due_sends_one_alone() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(5)
    pair.wg["a"].send("10.0.0.2", b"y")
    pair.run(60)
    assert [round(t) for t in pair.arrivals("a", 4)] == [KEEPALIVE_TIMEOUT_S]


def test_when_nothing_comes_back_for_fifteen_seconds_there_is_a_new_handshake() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(1)
    pair.wg["b"].send("10.0.0.1", b"back")
    pair.run(1)
    pair.cables["b"].loss_out = 1.0
    start = pair.clock.now
    for _ in range(20):
        pair.wg["a"].send("10.0.0.2", b"x")
        pair.run(1)
    again = [t - start for t in pair.arrivals("b", 1) if t > start]
    assert 15 <= again[0] <= 15.5


def test_a_peer_is_where_its_last_authentic_packet_came_from() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(1)
    pair.hosts["a"].leave("203.0.113.1")
    pair.hosts["a"].join(pair.internet, "203.0.113.77", pair.cables["a"])
    pair.wg["a"].send("10.0.0.2", b"y")
    pair.run(1)
    (peer,) = pair.wg["b"].peers()
    assert peer.endpoint == ("203.0.113.77", PORT)


def test_the_own_address_that_a_peer_used_is_forgotten_when_it_is_not_heard_any_more() -> None:
    pair = Pair()
    pair.hosts["a"].join(pair.internet, "198.51.100.1", pair.cables["a"])  # not what leads to `b`
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(1)
    pair.wg["b"].set_endpoint(A, ("198.51.100.1", PORT))
    pair.wg["b"].send("10.0.0.1", b"y")
    pair.run(1)
    pair.wg["a"].send("10.0.0.2", b"z")
    pair.run(1)
    pair.cables["b"].loss_out = 1.0
    pair.wg["a"].send("10.0.0.2", b"z")
    pair.run(16)
    assert [packet.source[0] for _, to, packet in pair.seen if to == "b"] == [
        "203.0.113.1", "203.0.113.1", "198.51.100.1", "198.51.100.1", "203.0.113.1",
    ]  # fmt: skip


def test_a_foreign_inner_source_is_dropped_though_its_sender_is_where_it_came_from() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(1)
    (peer,) = pair.wg["b"].peers()
    heard = peer.rx_bytes
    pair.hosts["a"].leave("203.0.113.1")
    pair.hosts["a"].join(pair.internet, "203.0.113.77", pair.cables["a"])
    pair.wg["a"].send("10.0.0.2", b"y", "10.0.0.99")
    pair.run(1)
    assert pair.got["b"] == [b"x"]
    assert (peer.endpoint, peer.rx_bytes) == (("203.0.113.77", PORT), heard)


def test_what_is_forged_or_sent_again_moves_nothing() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(1)
    recorded = [packet.data for _, to, packet in pair.seen if to == "b"]
    stranger = Host()
    stranger.join(pair.internet, "203.0.113.66")
    for data in (*recorded, recorded[0].replace(SECRET, b"x" * 16)):
        stranger.send(("203.0.113.66", PORT), ("203.0.113.2", PORT), data)
        pair.run(1)
    (peer,) = pair.wg["b"].peers()
    assert peer.endpoint == ("203.0.113.1", PORT)
    assert pair.got["b"] == [b"x"]


def test_a_handshake_sent_again_to_who_has_forgotten_it_brings_no_session_back() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(1)
    recorded = [packet.data for _, to, packet in pair.seen if to == "b"]
    pair.wg["b"].remove(A)
    pair.wg["b"].add(A, SECRET, ["10.0.0.1"])
    stranger = Host()
    stranger.join(pair.internet, "203.0.113.66")
    for data in recorded:
        stranger.send(("203.0.113.66", PORT), ("203.0.113.2", PORT), data)
        pair.run(1)
    (peer,) = pair.wg["b"].peers()
    assert peer.endpoint == ("203.0.113.66", PORT)  # WireGuard cannot tell that it is an old one
    assert peer.handshake_at is None
    assert pair.got["b"] == [b"x"]


def test_the_persistent_keepalive_is_sent_when_nothing_else_was() -> None:
    pair = Pair()
    pair.wg["a"].set_keepalive(B, 25)
    pair.run(110)
    gaps = [later - earlier for earlier, later in itertools.pairwise(pair.arrivals("b", 4))]
    assert len(gaps) == 4
    assert all(25.0 <= gap <= 25.0 + 2.048 for gap in gaps)


def test_a_timer_rings_late_by_less_than_a_step_of_the_kernels_wheel_and_never_early() -> None:
    for delay_s, step_s in ((0.25, 0.004), (2.0, 0.032), (5.0, 0.256), (15.3, 0.256), (25.0, 2.048)):
        pair = Pair()
        pair.wg["a"].send("10.0.0.2", b"x")
        pair.run(1)
        (peer,) = pair.wg["a"].peers()
        late = []
        for _ in range(200):
            pair.run(0.0173)
            pair.wg["a"].set_keepalive(B, 0)
            pair.wg["a"].set_keepalive(B, delay_s)  # sends one at once, and winds the timer
            late.append(peer.due["persistent"] - pair.clock.now - delay_s)
        assert -1e-9 <= min(late) < 0.1 * step_s
        assert 0.9 * step_s < max(late) <= step_s + 1e-9


def test_without_ticks_a_timer_is_exact() -> None:
    pair = Pair()
    pair.wg["a"].timers.tick_s = 0
    pair.wg["a"].set_keepalive(B, 25)
    pair.run(101)
    assert [round(t, 6) for t in pair.arrivals("b", 4)] == [0.06, 25.06, 50.06, 75.06, 100.06]


def test_what_cannot_leave_the_host_is_not_counted_and_no_answer_to_it_is_missed() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(1)
    pair.wg["b"].send("10.0.0.1", b"back")
    pair.run(1)
    (peer,) = pair.wg["a"].peers()
    sent = peer.tx_bytes
    pair.hosts["a"].leave("203.0.113.1")
    pair.wg["a"].send("10.0.0.2", b"y")
    assert peer.tx_bytes == sent
    pair.hosts["a"].join(pair.internet, "203.0.113.1", pair.cables["a"])
    pair.run(20)
    assert len(pair.arrivals("b", 1)) == 1


def test_a_keepalive_without_an_endpoint_begins_a_handshake_that_finds_the_one_set_later() -> None:
    pair = Pair()
    pair.wg["b"].set_keepalive(A, 25)
    pair.run(1)
    pair.wg["b"].set_endpoint(A, ("203.0.113.1", PORT))
    pair.run(6)
    (tried,) = pair.arrivals("a", 1)
    assert 5.0 <= tried <= 5.4
    assert len(pair.arrivals("a", 4)) == 1


def test_nobody_is_sent_to_without_an_endpoint_or_an_address() -> None:
    pair = Pair()
    assert not pair.wg["b"].send("10.0.0.1", b"x")
    assert not pair.wg["a"].send("10.0.0.9", b"x")


def test_two_handshakes_that_cross_fail_both_and_the_next_one_does_not() -> None:
    """noise.c: consuming an initiation takes the place of the own one, whose response is refused then."""
    pair = Pair()
    pair.wg["b"].set_endpoint(A, ("203.0.113.1", PORT))
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.wg["b"].send("10.0.0.1", b"y")
    pair.run(4.9)
    assert pair.got == {"a": [], "b": []}
    assert all(len(peer.crossed) == 1 for wg in pair.wg.values() for peer in wg.peers())
    pair.run(1.0)
    assert pair.got == {"a": [b"y"], "b": [b"x"]}


def test_the_first_packet_by_new_keys_is_the_last_of_a_handshake() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(0.5)
    for text in (b"y", b"z"):
        pair.wg["a"].send("10.0.0.2", text)
    pair.run(0.5)
    assert [handshake_of(packet.data) for _, _, packet in pair.seen] == [SECRET] * 3 + [None] * 2
    assert handshake_of(b"\4\0\0\1" + bytes(60)) is None


def test_who_has_answered_a_handshake_begins_none_for_five_seconds() -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(0.03)
    pair.cables["a"].loss_out = 1.0  # the answer is never confirmed
    pair.wg["b"].send("10.0.0.1", b"y")
    pair.run(4)
    assert pair.arrivals("a", 1) == []
    pair.cables["a"].loss_out = 0.0
    pair.run(1)
    pair.wg["b"].send("10.0.0.1", b"z")
    pair.run(1)
    assert pair.got["a"] == [b"y", b"z"]


@pytest.mark.parametrize("asleep_s", [6.0, 3600.0])
def test_keys_are_gone_after_a_sleep_and_the_next_packet_makes_new_ones(asleep_s: float) -> None:
    pair = Pair()
    pair.wg["a"].send("10.0.0.2", b"x")
    pair.run(10)
    pair.wg["a"].slept(asleep_s)
    pair.wg["a"].send("10.0.0.2", b"y")
    pair.run(1)
    assert pair.got["b"] == [b"x", b"y"]
    assert len(pair.arrivals("b", 1)) == 2
