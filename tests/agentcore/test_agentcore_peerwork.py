"""What one end does with WireGuard. Hunted: handshakes that cross, an endpoint that is taken back, and a NAT that
forgets."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from agentcore_pair import CONTROLLING, IPS, OTHER, PORT
from agentcore_values import SESSION, interface, peer

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.blockage import Came
from meshctl.core.agent.bodies import Offer, Wish
from meshctl.core.agent.candidates import LocalCandidates
from meshctl.core.agent.checklist import Credentials, Pair
from meshctl.core.agent.config import OVERRIDES
from meshctl.core.agent.interfacecontext import InterfaceContext, Pace
from meshctl.core.agent.liveness import IDLE_HANDSHAKE_MAX_S
from meshctl.core.agent.peerwork import PeerWork
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.tunnel import (
    APART_KEEPALIVE_S,
    APART_RTT_S,
    APART_S,
    CROSSING_RTT_S,
    INSIST_AGAIN_S,
    INSIST_S,
    SECOND_IN_STEP_S,
    SECOND_RTTS,
    SECOND_S,
)
from meshctl.core.wire import stun

HUB = Address(IPS["hub0"], PORT)

# How long WireGuard waits for an answer to a handshake before it tries another one, and by how much more at most by
# chance (its paper, section 6.4; timers.c).
REKEY_TIMEOUT_S, JITTER_S = 5.0, 0.334


class Bench:
    """The work of one end, and what it had done."""

    def __init__(self, name: str) -> None:
        self.done: list[ev.Action] = []
        other = "ab".replace(name, "")
        config = interface(name, 10, peer(name, other, 11))
        own = LocalCandidates(config.mesh_ranges)
        dice = random.Random(1)  # noqa: S311
        self.context = InterfaceContext(
            config, own, dice, Pace(), self.done.append, lambda probe, _: self.done.append(probe),
            lambda *_: None, lambda _: None, lambda _: SESSION,
        )  # fmt: skip
        self.peer = config.peers[0]
        self.work = PeerWork(self.peer, self.context, SpliceSlot([PORT]), lambda *_: None, lambda *_: None)

    def status(self, endpoint: Address | None, age_s: float | None, keepalive_s: int = 25) -> None:
        self.work.tunnel.status = ev.PeerStatus(self.peer.public_key, endpoint, age_s, 0, 0, keepalive_s)

    def endpoints(self) -> list[Address]:
        return [action.address for action in self.done if isinstance(action, ev.SetEndpoint)]


def test_the_controlling_end_sets_an_endpoint_at_once() -> None:
    bench = Bench(CONTROLLING)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    assert bench.endpoints() == [HUB]


def test_the_other_end_puts_its_endpoint_off_so_that_no_two_handshakes_cross() -> None:
    bench = Bench(OTHER)
    bench.status(None, None)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    bench.work.tunnel.maintain(SECOND_S * 0.99)
    assert bench.done == []
    bench.work.tunnel.maintain(SECOND_S)
    assert bench.endpoints() == [HUB], "the controlling end has not come"


@pytest.mark.parametrize(
    ("own", "peers", "rtt_s", "waits_s"),
    [
        (True, False, 0.0, SECOND_IN_STEP_S),
        (False, True, CROSSING_RTT_S + 0.01, SECOND_IN_STEP_S),
        (False, True, CROSSING_RTT_S, SECOND_S),
    ],
)
def test_where_handshakes_are_tried_with_nowhere_to_send_to_the_next_try_of_the_controlling_end_is_awaited(
    own: bool, peers: bool, rtt_s: float, waits_s: float
) -> None:
    bench = Bench(OTHER)
    bench.status(None, None)
    tunnel = bench.work.tunnel
    assert tunnel.status is not None
    bench.work.liveness.rtt_s = rtt_s
    tunnel.set_endpoint(HUB, 0.0)
    tunnel.status = tunnel.status._replace(userspace=own)
    tunnel.peer_userspace = peers  # as it says after that
    waits_s += SECOND_RTTS * rtt_s
    tunnel.maintain(0.99 * waits_s)
    assert bench.done == []
    tunnel.maintain(waits_s)
    assert bench.endpoints() == [HUB]


@pytest.mark.parametrize(("rtt_s", "waits_s"), [(CROSSING_RTT_S + 0.01, SECOND_IN_STEP_S), (CROSSING_RTT_S, SECOND_S)])
@pytest.mark.parametrize("earlier", [0, 148])
def test_on_a_long_path_the_end_that_has_answered_a_handshake_awaits_the_next_one(
    rtt_s: float, waits_s: float, earlier: int
) -> None:
    bench = Bench(OTHER)
    status = ev.PeerStatus(bench.peer.public_key, None, None, 0, 0, 0)
    tunnel = bench.work.tunnel
    for rx_bytes in (0, earlier):  # what came before that says nothing
        tunnel.read(status._replace(rx_bytes=rx_bytes), by_relay=False)
    bench.work.liveness.rtt_s = rtt_s
    tunnel.set_endpoint(HUB, 0.0)
    tunnel.read(status._replace(rx_bytes=earlier, endpoint=HUB), by_relay=False)
    tunnel.read(status._replace(rx_bytes=earlier + 148, endpoint=HUB), by_relay=False)
    tunnel.read(status._replace(rx_bytes=earlier + 148, endpoint=HUB), by_relay=False)
    waits_s += SECOND_RTTS * rtt_s
    tunnel.maintain(0.99 * waits_s)
    assert bench.done == []
    tunnel.maintain(waits_s)
    assert bench.endpoints() == [HUB]


@pytest.mark.parametrize(("userspace", "age_s", "says"), [(True, None, True), (True, 1.0, False), (False, None, False)])
def test_a_userspace_wireguard_that_has_a_session_is_in_step_with_nobody(
    userspace: bool, age_s: float | None, says: bool
) -> None:
    bench = Bench(CONTROLLING)
    bench.status(HUB, age_s)
    tunnel = bench.work.tunnel
    assert tunnel.status is not None
    tunnel.status = tunnel.status._replace(userspace=userspace)
    assert tunnel.userspace is says


def test_who_has_just_set_the_endpoint_does_not_know_how_the_newest_packet_came_unless_it_moved_since() -> None:
    bench = Bench(CONTROLLING)
    own = Address("192.0.2.7", 1)
    bench.work.tunnel.set_endpoint(own, 0.0)
    status = ev.PeerStatus(bench.peer.public_key, own, 1.0, 0, 0, 25)
    assert bench.work.tunnel.read(status, by_relay=False) is Came.UNKNOWN
    assert bench.work.tunnel.read(status, by_relay=False) is Came.BY_PATH
    bench.work.tunnel.set_endpoint(own, 1.0)
    assert bench.work.tunnel.read(status._replace(endpoint=HUB), by_relay=True) is Came.BY_RELAY


def test_a_second_order_does_not_put_the_endpoint_off_again_and_the_newest_counts() -> None:
    bench = Bench(OTHER)
    bench.work.tunnel.set_endpoint(Address("192.0.2.7", 1), 0.0)
    bench.work.tunnel.set_endpoint(HUB, SECOND_S * 0.9)
    bench.work.tunnel.maintain(SECOND_S)
    assert bench.endpoints() == [HUB]


def test_the_other_end_sets_its_endpoint_as_soon_as_there_is_a_session() -> None:
    bench = Bench(OTHER)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    bench.status(HUB, 0.0)
    bench.work.tunnel.maintain(0.1)
    assert bench.endpoints() == [HUB]
    bench.work.tunnel.set_endpoint(HUB, 0.5)
    assert bench.endpoints() == [HUB, HUB], "and at once while there is one"


@pytest.mark.parametrize(("endpoint", "age", "alive"), [
    (HUB, 0.0, True), (HUB, IDLE_HANDSHAKE_MAX_S - 1, True), (HUB, IDLE_HANDSHAKE_MAX_S, False), (HUB, None, False),
    (None, 0.0, False),
])  # fmt: skip
def test_there_is_a_session_while_the_last_handshake_is_young(
    endpoint: Address | None, age: float | None, alive: bool
) -> None:
    bench = Bench(OTHER)
    assert not bench.work.tunnel.alive
    bench.status(endpoint, age)
    assert bench.work.tunnel.alive is alive


def test_an_endpoint_is_set_again_for_a_while_and_then_left_alone() -> None:
    bench = Bench(CONTROLLING)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    times = [0.0]
    while bench.work.tunnel.insist_at is not None:
        times.append(bench.work.tunnel.insist_at)
        bench.work.tunnel.insist(times[-1])
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert bench.endpoints() == [HUB] * len(times)
    assert INSIST_S <= times[-1] <= INSIST_S + INSIST_AGAIN_S[1]
    assert all(INSIST_AGAIN_S[0] <= gap <= INSIST_AGAIN_S[1] for gap in gaps)
    assert len(set(gaps)) > 10, "irregularly"


def test_the_keepalive_is_set_where_it_is_another_and_only_there() -> None:
    bench = Bench(CONTROLLING)
    bench.status(HUB, 1.0, keepalive_s=0)
    bench.work.tunnel.maintain(0.0)
    assert bench.done == [], "nobody has set an endpoint"
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    assert ev.SetKeepalive(bench.peer.public_key, 25) in bench.done
    bench.status(HUB, 1.0, keepalive_s=25)
    bench.done.clear()
    bench.work.tunnel.maintain(1.0)
    assert bench.done == []
    bench.status(HUB, 1.0, keepalive_s=0)
    bench.work.tunnel.maintain(2.0)
    assert bench.done == [ev.SetKeepalive(bench.peer.public_key, 25)]


@pytest.mark.parametrize(
    ("name", "rtt_s", "usual_s", "interval_s"),
    [
        (CONTROLLING, APART_RTT_S, 25, 25), (OTHER, APART_RTT_S, 25, 25 + APART_S), (OTHER, APART_RTT_S - 0.01, 25, 25),
        (CONTROLLING, 0.0, APART_KEEPALIVE_S + 1, APART_KEEPALIVE_S + 1),
        (OTHER, 0.0, APART_KEEPALIVE_S + 1, APART_KEEPALIVE_S + 1 + APART_S),
        (OTHER, 0.0, APART_KEEPALIVE_S, APART_KEEPALIVE_S),
    ],
)  # fmt: skip
def test_on_a_long_path_and_at_long_intervals_the_keepalives_of_both_ends_do_not_leave_at_the_same_moments(
    name: str, rtt_s: float, usual_s: int, interval_s: int
) -> None:
    bench = Bench(name)
    bench.context.lifetime.configure(usual_s)
    bench.status(HUB, 1.0, keepalive_s=0)
    bench.work.liveness.moved(0.0, rtt_s)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    assert ev.SetKeepalive(bench.peer.public_key, interval_s) in bench.done
    bench.context.lifetime.configure(0)
    bench.done.clear()
    bench.work.tunnel.maintain(1.0)
    assert bench.done == [], "keepalives that are off stay off"


@pytest.mark.parametrize("mine", OVERRIDES)
@pytest.mark.parametrize("theirs", list(Wish))
def test_of_two_operators_the_one_who_wants_the_relay_prevails_then_the_one_who_wants_none(
    mine: str, theirs: Wish
) -> None:
    bench = Bench(CONTROLLING)
    bench.work.wish = {"": Wish.NONE, "relay": Wish.RELAY, "direct": Wish.DIRECT, "prefer-relay": Wish.PREFER_RELAY}[
        mine
    ]
    bench.work.offer = Offer(1, wish=theirs)
    wanted = {bench.work.wish, theirs}
    order = (Wish.RELAY, Wish.DIRECT, Wish.PREFER_RELAY, Wish.NONE)
    assert bench.work.mode is next(wish for wish in order if wish in wanted)
    assert bench.work.may_go_direct is (Wish.RELAY not in wanted)


def test_an_endpoint_is_adopted_only_where_this_node_has_an_address_of_its_family() -> None:
    bench = Bench(CONTROLLING)
    bench.status(HUB, 1.0)
    assert not bench.work.adopt()
    bench.context.own.set_hosts([LocalAddress("198.51.100.1", 24, "eth0")], PORT)
    assert bench.work.adopt()
    assert bench.work.negotiation.selected == (Address("198.51.100.1", PORT), HUB)
    assert not bench.work.proven
    bench.status(Address("2001:db8::1", PORT), 1.0)
    assert not bench.work.adopt()


def test_an_answer_on_the_own_port_says_nothing_of_packets_that_a_splice_has_leave_from_another() -> None:
    bench = Bench(CONTROLLING)
    own, spliced = (Pair(Address("198.51.100.1", port), HUB) for port in (PORT, 20000))
    bench.status(HUB, 1.0)
    assert bench.work.carries(own)
    bench.work.splice.restore(spliced)
    assert (bench.work.carries(own), bench.work.carries(spliced)) == (False, True)
    bench.status(Address("198.51.100.9", PORT), 1.0)
    assert not bench.work.carries(spliced)


def pair(port: int = PORT, *, ip: str = "198.51.100.7", local: int = PORT) -> Pair:
    return Pair(Address("192.168.1.5", local), Address(ip, port))


@pytest.mark.parametrize(
    ("taken", "asked", "twin"),
    [
        pytest.param([pair(1), pair(2)], pair(1), True, id="back and forth"),
        pytest.param([pair(1), pair(2), pair(2)], pair(1), True, id="and agreed on once more"),
        pytest.param([pair(1), pair(2)], pair(2), False, id="the one in use"),
        pytest.param([pair(1), pair(2)], pair(3), False, id="a third one"),
        pytest.param([pair(1), pair(2), pair(3)], pair(1), False, id="one long ago"),
        pytest.param([pair(2)], pair(1), False, id="never in use"),
        pytest.param([pair(1), None, pair(2)], pair(1), False, id="relayed between"),
        pytest.param([pair(1, ip="198.51.100.8"), pair(2)], pair(1, ip="198.51.100.8"), False, id="another address"),
        pytest.param([pair(1, local=9), pair(2)], pair(1, local=9), False, id="another port of this end"),
    ],
)
@pytest.mark.parametrize("answers", [True, False])
def test_two_ports_of_a_peer_that_were_both_in_use_are_one_as_long_as_the_one_in_use_answers(
    taken: list[Pair | None], asked: Pair, twin: bool, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(OTHER)
    for each in taken:
        bench.work.take(each)
    monkeypatch.setattr(bench.work.negotiation, "has_answered", lambda one: answers and one == taken[-1])
    assert bench.work.is_twin(asked) is (twin and answers)


# Keeping NATs open


def idle(
    bench: Bench, until: float, *, sends: bool, adopted: bool = False, relayed: bool = False
) -> list[float]:
    """A path, and nothing but keepalives: the peer's, or this end's too. When something left for the NAT's sake."""
    pair, every_s = Pair(Address("192.168.1.5", PORT), Address("198.51.100.7", PORT)), 25
    bench.work.negotiation.renew(Credentials("b:a", b"k" * 32))
    bench.status(pair.remote, 1.0)
    if adopted or relayed:
        bench.context.own.set_hosts([LocalAddress(pair.local.ip, 24, "eth0")], PORT)
    if adopted:
        assert bench.work.adopt()
    elif relayed:
        bench.work.tunnel.set_endpoint(pair.remote, 0.0)
    else:
        bench.work.negotiation.selected = pair
        bench.work.tunnel.set_endpoint(pair.remote, 0.0)
    times = []
    for second in range(1, round(until)):
        count = second // every_s
        status = ev.PeerStatus(bench.peer.public_key, pair.remote, 1.0, 32 * count, 32 * count * sends, every_s)
        bench.work.tunnel.status = status
        bench.work.liveness.sample(status, float(second))
        bench.done.clear()
        bench.work.tunnel.maintain(float(second))
        for action in bench.done:
            assert isinstance(action, ev.SendProbe), action
            message = stun.decode(action.data).message
            assert (action.local, action.remote) == pair
            assert (message.message_class, message.username) == (stun.Class.INDICATION, "b:a")
            times.append(float(second))
    return times


def test_an_end_whose_wireguard_sends_nothing_because_the_peers_keepalives_come_keeps_its_nat_open_itself() -> None:
    times = idle(Bench(CONTROLLING), 100.0, sends=False)
    assert [later - earlier for earlier, later in pairwise([1.0, *times])] == [29.0, 29.0, 29.0]


def test_an_end_whose_wireguard_sends_keepalives_sends_nothing_besides() -> None:
    assert idle(Bench(CONTROLLING), 100.0, sends=True) == []


@pytest.mark.parametrize("adopted", [True, False])
def test_a_path_that_was_adopted_or_leads_by_a_relay_is_kept_open_as_any_other(adopted: bool) -> None:
    assert idle(Bench(CONTROLLING), 100.0, sends=False, adopted=adopted, relayed=not adopted)
