"""What splices make of a path, and what they must not. Hunted: an attempt that begins where none may, or whose end is
not noticed, so that the path waits for it."""

from __future__ import annotations

import random

import pytest
from agentcore_values import SESSION, interface, key, peer

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.bodies import Body, NatSummary, Offer, Offered, RelayGrant, RelayRelease, Splice, Wish
from meshctl.core.agent.candidate import priority
from meshctl.core.agent.candidates import LocalCandidates
from meshctl.core.agent.checklist import Credentials
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.detours import Detours
from meshctl.core.agent.interfacecontext import Answered, InterfaceContext, Pace
from meshctl.core.agent.nat import Mapping
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.peerwork import RELAY_LINGER_S, PeerWork
from meshctl.core.agent.splice import LISTEN_S, OPENED
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.statemachine import PathStateMachine

PORT, NOW = 51820, 1000.0
BASE, PEER = Address("192.168.1.10", PORT), Address("198.51.100.2", 5000)
SERVERS = Address("203.0.113.1", PORT), Address("203.0.113.2", PORT)


class Bench:
    """One end of a path that is relayed, behind a NAT that is hard or easy; the peer's is the other way."""

    def __init__(self, *, hard: bool) -> None:
        config = interface("a", 10, peer("a", "b", 11))
        self.done: list[ev.Action] = []
        self.said: list[tuple[str, Body]] = []
        own = LocalCandidates(config.mesh_ranges)
        dice = random.Random(1)  # noqa: S311
        self.context = InterfaceContext(
            config, own, dice, Pace(), self.done.append, self._probe, self._say, lambda _: None, lambda _: SESSION
        )
        self.context.hosts = (LocalAddress(BASE.ip, 24, "eth0"),)
        own.set_hosts(self.context.hosts, PORT)
        for n, server in enumerate(SERVERS):
            self.context.nat.observe(BASE, server, Address("198.51.100.1", 4000 + (n if hard else 0)), NOW)
        self.work = PeerWork(config.peers[0], self.context, SpliceSlot([PORT]), lambda *_: None, lambda *_: None)
        theirs = Mapping.ENDPOINT_INDEPENDENT if hard else Mapping.ADDRESS_AND_PORT_DEPENDENT
        offered = Offered("srflx", PEER, "00000000", priority("srflx", 1))
        self.work.offer = Offer(1, (offered,), (NatSummary(4, theirs, 0),))
        self.work.negotiation.remote.offer(self.work.offer)
        self.machine = PathStateMachine(self.work, self.context, NOW)
        self.detours = Detours(self.machine, self.work, self.context)

    def relayed(self) -> None:
        """There is a session, and a relay."""
        self.work.negotiation.renew(Credentials("b:a", b"k" * 32))
        self.machine.fire(Trigger.SESSION, "its agent answers", NOW)
        self.machine.fire(Trigger.RELAY_READY, "both ends are bound", NOW)

    def begin(self, *, hard: bool) -> None:
        """What begins an attempt: at the hard side that all pairs were tried, at the easy one the peer's word."""
        if hard:
            self.detours.try_splice(NOW)
        else:
            self.detours.spliced(Splice(1, OPENED), NOW)
        self.detours.news(NOW)

    def run(self, until: float) -> None:
        """Everything that splices have to do until then."""
        while (due := self.work.splice.due()) is not None and due <= until:
            self.detours.poll(due)

    def _probe(self, probe: ev.SendProbe, _: Answered) -> None:
        self.done.append(probe)

    def _say(self, to: PeerConfig, body: Body, _: float) -> None:
        self.said.append((to.name, body))


@pytest.mark.parametrize("hard", [True, False])
def test_an_attempt_that_can_begin_makes_a_relayed_path_one_that_is_being_spliced(hard: bool) -> None:
    bench = Bench(hard=hard)
    bench.relayed()
    bench.begin(hard=hard)
    assert bench.machine.state is State.SPLICING
    opened = [action for action in bench.done if isinstance(action, ev.OpenPorts)]
    assert [len(action.ports) for action in opened] == ([OPENED] if hard else [])


@pytest.mark.parametrize("hard", [True, False])
def test_an_attempt_that_hits_nothing_leaves_the_path_relayed_and_no_port_open(hard: bool) -> None:
    bench = Bench(hard=hard)
    bench.relayed()
    bench.begin(hard=hard)
    bench.run(NOW + 10 * LISTEN_S)
    assert bench.machine.state is State.RELAYED
    assert bench.machine.history.why == "no port was hit"
    assert [body for to, body in bench.said if to == "b" and isinstance(body, Splice)] or not hard
    opened = [action for action in bench.done if isinstance(action, ev.OpenPorts)]
    assert not opened or opened[-1] == ev.OpenPorts(key("b"), ())


@pytest.mark.parametrize("hard", [True, False])
def test_the_end_of_an_attempt_that_the_path_waits_for_no_more_changes_nothing(hard: bool) -> None:
    bench = Bench(hard=hard)
    bench.relayed()
    bench.begin(hard=hard)
    bench.machine.fire(Trigger.RELAY_LOST, "the anchor does not answer", NOW)
    bench.run(NOW + 10 * LISTEN_S)
    assert bench.machine.state is State.PROBING


@pytest.mark.parametrize("hard", [True, False])
def test_without_a_relay_that_carries_the_packets_meanwhile_no_attempt_begins(hard: bool) -> None:
    bench = Bench(hard=hard)
    bench.begin(hard=hard)
    assert (bench.machine.state, bench.done) == (State.UNKNOWN, [])
    bench.relayed()
    bench.machine.fire(Trigger.RELAY_LOST, "the anchor does not answer", NOW)
    bench.begin(hard=hard)
    assert (bench.machine.state, bench.work.splice.trying) == (State.PROBING, None)


@pytest.mark.parametrize("hard", [True, False])
def test_without_a_session_no_attempt_begins(hard: bool) -> None:
    bench = Bench(hard=hard)
    bench.machine.fire(Trigger.SESSION, "its agent answers", NOW)
    bench.machine.fire(Trigger.RELAY_READY, "both ends are bound", NOW)
    bench.begin(hard=hard)
    assert bench.machine.state is State.RELAYED


def test_where_an_operator_wants_the_relay_no_attempt_begins() -> None:
    bench = Bench(hard=True)
    bench.relayed()
    bench.work.wish = Wish.RELAY
    bench.begin(hard=True)
    assert bench.machine.state is State.RELAYED


@pytest.mark.parametrize("hard", [True, False])
def test_where_the_nats_are_not_such_that_a_splice_helps_nothing_is_begun(hard: bool) -> None:
    bench = Bench(hard=hard)
    bench.relayed()
    bench.begin(hard=not hard)
    assert (bench.machine.state, bench.done) == (State.RELAYED, [])


@pytest.mark.parametrize(
    ("hard", "suppressed", "words"),
    [
        (True, True, "none; ways that kept failing are not taken for a while, though they may answer"),
        (False, False, "none; no ports are tried: the NATs are not hard here and easy there"),
    ],
)
def test_why_no_attempt_begins_is_remembered_once(hard: bool, suppressed: bool, words: str) -> None:
    bench = Bench(hard=hard)
    bench.relayed()
    if suppressed:
        bench.work.negotiation.damping.record_failure(PEER.ip, NOW, blocked=True)
    for _ in range(3):
        bench.machine.fire(Trigger.EXHAUSTED, "none", NOW)
        bench.detours.try_splice(NOW)
    assert bench.machine.state is State.RELAYED
    assert [d.reason for d in bench.machine.history.decisions][2:] == [words]


def test_a_history_without_a_decision_has_nothing_to_explain() -> None:
    bench = Bench(hard=False)
    bench.machine.history.explain("more")
    assert bench.machine.history.decisions == ()


@pytest.mark.parametrize("wish", Wish)
def test_a_relay_that_the_other_end_asked_for_and_an_operator_forbids_is_given_back_after_a_while(wish: Wish) -> None:
    bench, hub = Bench(hard=False), peer("a", "hub", 1, kind="anchor")
    bench.work.wish = wish
    grant = RelayGrant(bench.work.peer.id, (Address("203.0.113.1", 40000),), b"t" * 16, 300)
    bench.detours.answered(hub, grant, NOW)
    bench.detours.answered(hub, grant, NOW + 1.0)  # which puts nothing off
    assert bench.work.release_at == (NOW + RELAY_LINGER_S if wish is Wish.DIRECT else None)
    assert bench.said == []
    bench.work.relay.release()
    bench.detours.news(NOW + RELAY_LINGER_S)
    assert bench.said == [("hub", RelayRelease(bench.work.peer.id, grant.token))]
