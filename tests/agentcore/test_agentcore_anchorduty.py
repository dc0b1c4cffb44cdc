"""What an anchor does for others. Hunted: a stranger who gets an answer, a node that floods it, one that never hears
where it is seen, and a relay that outlives its pair."""

from __future__ import annotations

import random

import pytest
from agentcore_values import SESSION, interface, key, peer, shared, transaction

from meshctl.core.agent.address import Address
from meshctl.core.agent.allowance import SESSIONS
from meshctl.core.agent.anchorduty import AGAIN_S, QUESTIONS_BURST, QUESTIONS_PER_S, TIMES, AnchorDuty
from meshctl.core.agent.bodies import (
    Ack,
    Body,
    Observation,
    Observed,
    RelayAsk,
    RelayGrant,
    RelayRefresh,
    RelayRefuse,
    RelayRelease,
)
from meshctl.core.agent.config import InterfaceConfig, PeerConfig, node_id
from meshctl.core.agent.events import Action, InstallRelay, PeerStatus, RelayDatagram, RemoveRelay, SendProbe
from meshctl.core.agent.liveness import IDLE_HANDSHAKE_MAX_S, MISSED_KEEPALIVES
from meshctl.core.agent.nodecontext import NodeContext
from meshctl.core.agent.relaybinds import bind_username
from meshctl.core.agent.relayserver import LIFETIME_S
from meshctl.core.agent.signal import NO_SESSION
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.stunclient import Server, anchor_server
from meshctl.core.wire import stun
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256

OWN = Address("203.0.113.1", 51820)
SEEN, ELSEWHERE = Address("198.51.100.7", 40001), Address("198.51.100.8", 40002)


def entry(name: str, number: int, *reaches: str, kind: str = "node") -> PeerConfig:
    return peer("hub", name, number, kind=kind, reaches=frozenset(reaches))


class Hub:
    """An anchor of the nodes "a" and "b", and of a client that "a" may reach."""

    def __init__(self) -> None:
        self.a, self.b = entry("a", 10, "b", "c"), entry("b", 11, "a")
        self.client = entry("c", 12, "a", kind="client")
        config = interface("hub", 1, self.a, self.b, self.client, is_anchor=True)
        self.said: list[tuple[str, Body]] = []
        self.done: list[Action] = []
        self.now = 100.0
        self.statuses: dict[str, PeerStatus] = {}
        self.sessions = {self.a.id: SESSION, self.b.id: SESSION}
        self.asked = 0
        self.duty = AnchorDuty(
            config, NodeContext(random.Random(1), self.done.append, SpliceSlot()),  # noqa: S311
            lambda to, body, _: self.said.append((to.name, body)), lambda node: self.sessions[node],
        )  # fmt: skip
        self.duty.set_addresses((OWN,))

    def see(self, name: str, endpoint: Address | None, age_s: float | None = 3.7) -> None:
        self.statuses[name] = PeerStatus(key(name), endpoint, age_s, 1, 1, 25)
        self.sample()

    def sample(self, after: float = 0.0) -> None:
        self.now += after
        self.duty.sample({status.public_key: status for status in self.statuses.values()}, self.now)

    def greet(self, peer_config: PeerConfig) -> None:
        self.duty.greet(peer_config, {s.public_key: s for s in self.statuses.values()}, self.now)

    def heard(self, name: str) -> list[Body]:
        """What was said to a node since this was asked last."""
        found = [body for to, body in self.said if to == name]
        self.said = [(to, body) for to, body in self.said if to != name]
        return found

    def ask(self, server: Server, remote: Address = SEEN, **changes: object) -> list[stun.Received]:
        """A node's question; the answers."""
        self.asked += 1
        request = stun.Message(stun.Class.REQUEST, transaction(self.asked), username=server.username)
        request = request._replace(**changes)
        data = stun.encode(request, server.key, integrity=(MESSAGE_INTEGRITY_SHA256,))
        self.done.clear()
        self.duty.stun_request(stun.decode(data), OWN, remote, self.now)
        return [stun.decode(action.data) for action in self.done if isinstance(action, SendProbe)]

    def sent_to(self) -> list[Address]:
        return [action.remote for action in self.done if isinstance(action, SendProbe)]

    def grant(self, name: str) -> RelayGrant:
        grants = [body for body in self.heard(name) if isinstance(body, RelayGrant)]
        return grants[-1]

    def bind(self, port: int, token: bytes, remote: Address) -> None:
        self.asked += 1
        request = stun.Message(stun.Class.REQUEST, transaction(self.asked), username=bind_username(token, SESSION))
        data = stun.encode(request, token, integrity=(MESSAGE_INTEGRITY_SHA256,))
        self.duty.bind(RelayDatagram(port, remote, data), self.now)


def server_of(name: str, pair_key: bytes | None = None) -> Server:
    """The anchor, as a node knows it."""
    return anchor_server(OWN, node_id(key(name)), SESSION, pair_key or shared("hub", name))


# Questions


def test_a_known_node_is_told_where_it_is_seen_and_the_answer_is_signed() -> None:
    hub = Hub()
    [answer] = hub.ask(server_of("a"))
    assert answer.message.xor_mapped_address == SEEN
    assert answer.message.message_class is stun.Class.SUCCESS
    assert answer.is_authentic(server_of("a").key)
    assert hub.done == [SendProbe(OWN, SEEN, answer.raw)]


@pytest.mark.parametrize(
    "server",
    [
        server_of("a", b"guessed" * 5),  # with another key
        server_of("nobody"),
        server_of("c", shared("hub", "c")),  # a client has no agent
        Server(OWN, "node:", shared("hub", "a")),
        Server(OWN, "node:not hexadecimal:00", shared("hub", "a")),
        Server(OWN, "node:" + node_id(key("a")).hex(), shared("hub", "a")),  # in no session
    ],
)
def test_nobody_else_is_answered(server: Server) -> None:
    assert Hub().ask(server) == []


def test_a_question_in_the_name_of_another_node_is_not_answered() -> None:
    assert Hub().ask(Server(OWN, server_of("a").username, server_of("b").key)) == []


def test_a_node_is_answered_so_many_questions_and_no_more_and_another_one_has_its_own() -> None:
    hub = Hub()
    answered = sum(len(hub.ask(server_of("a"))) for _ in range(200))
    assert answered == QUESTIONS_BURST
    assert len(hub.ask(server_of("b"))) == 1
    hub.now += 10.0
    assert sum(len(hub.ask(server_of("a"))) for _ in range(200)) == 10.0 * QUESTIONS_PER_S


@pytest.mark.parametrize("known", [SESSION, NO_SESSION], ids=["its session is known", "it is not yet"])
def test_a_question_that_somebody_sends_again_is_not_answered_and_takes_nothing_of_the_nodes_share(
    known: bytes,
) -> None:
    hub, recorded = Hub(), transaction(7)
    hub.sessions[hub.a.id] = known
    assert len(hub.ask(server_of("a"), transaction=recorded)) == 1
    hub.asked = 7
    for _ in range(1000):
        assert hub.ask(server_of("a"), ELSEWHERE, transaction=recorded) == []
    assert sum(len(hub.ask(server_of("a"))) for _ in range(200)) == QUESTIONS_BURST - 1


@pytest.mark.parametrize("now_in", [b"a later!", NO_SESSION])
def test_questions_of_another_session_than_is_known_have_a_share_of_their_own(now_in: bytes) -> None:
    hub, old = Hub(), server_of("a")
    hub.sessions[hub.a.id] = now_in
    assert sum(len(hub.ask(old)) for _ in range(200)) == QUESTIONS_BURST
    hub.sessions[hub.a.id] = SESSION
    assert len(hub.ask(server_of("a"))) == 1


def test_questions_recorded_in_earlier_sessions_do_not_make_those_of_the_present_one_answered_twice() -> None:
    hub, recorded = Hub(), transaction(7)
    assert len(hub.ask(server_of("a"), transaction=recorded)) == 1
    for number in range(2 * SESSIONS):
        earlier = anchor_server(OWN, node_id(key("a")), b"earlier%d" % number, shared("hub", "a"))
        assert len(hub.ask(earlier, ELSEWHERE, transaction=recorded)) == 1
        assert hub.ask(earlier, ELSEWHERE, transaction=recorded) == []
    assert hub.ask(server_of("a"), ELSEWHERE, transaction=recorded) == []


def test_in_a_new_session_a_node_counts_its_questions_anew() -> None:
    hub = Hub()
    assert len(hub.ask(server_of("a"), transaction=transaction(1000))) == 1
    hub.sessions[hub.a.id] = b"a later!"
    again = anchor_server(OWN, node_id(key("a")), b"a later!", shared("hub", "a"))
    assert len(hub.ask(again, transaction=transaction(1))) == 1


def test_the_answer_goes_to_another_port_of_the_node_when_that_is_wanted() -> None:
    hub = Hub()
    [answer] = hub.ask(server_of("a"), response_port=50_000)
    assert hub.sent_to() == [Address(SEEN.ip, 50_000)]
    assert answer.message.xor_mapped_address == SEEN


# Where it sees them


def test_a_node_is_told_where_it_is_seen_a_few_times_for_nobody_acknowledges_it() -> None:
    hub = Hub()
    hub.see("a", SEEN)
    assert hub.heard("a") == [Observed((Observation(node_id(key("a")), SEEN, 3),))]
    told = []
    for _ in range(1000):
        hub.sample(0.25)
        told += [hub.now] * len(hub.heard("a"))
    assert told == [100.0 + AGAIN_S * (2**n - 1) for n in range(1, TIMES)]
    assert abs(told[-1] - 100.0 - MISSED_KEEPALIVES * InterfaceConfig.keepalive_s) < AGAIN_S, "until it asks itself"


def test_a_node_that_is_seen_elsewhere_is_told_at_once_and_as_often() -> None:
    hub = Hub()
    hub.see("a", SEEN)
    hub.sample(60.0)
    hub.heard("a")
    hub.see("a", ELSEWHERE)
    for _ in range(1000):
        hub.sample(0.25)
    told = hub.heard("a")
    assert len(told) == TIMES
    assert {o.address for body in told if isinstance(body, Observed) for o in body.observations} == {ELSEWHERE}


def test_a_new_agent_is_told_again_what_the_one_before_has_heard() -> None:
    hub = Hub()
    hub.see("a", SEEN)
    for _ in range(40):
        hub.sample(0.25)
    hub.heard("a")
    hub.greet(hub.a)
    assert [type(body) for body in hub.heard("a")] == [Observed]
    assert hub.heard("b") == []


def test_of_a_node_that_has_gone_nothing_is_remembered() -> None:
    hub = Hub()
    hub.see("a", SEEN)
    hub.ask(server_of("a"))
    for _ in range(TIMES):
        hub.sample(100.0)
    hub.heard("a")
    hub.duty.configure(interface("hub", 1, hub.b, is_anchor=True))
    hub.duty.configure(interface("hub", 1, hub.a, hub.b, is_anchor=True))
    hub.sample()
    assert hub.heard("a") == [Observed((Observation(hub.a.id, SEEN, 3),))]


def test_of_a_node_that_is_not_seen_nothing_is_said() -> None:
    hub = Hub()
    hub.see("a", None)
    assert hub.said == []


@pytest.mark.parametrize(("endpoint", "age_s", "works"), [
    (SEEN, 0.0, True), (SEEN, IDLE_HANDSHAKE_MAX_S - 1, True), (SEEN, IDLE_HANDSHAKE_MAX_S, False), (SEEN, None, False),
    (None, 0.0, False),
])  # fmt: skip
def test_messages_go_by_a_node_while_its_tunnel_has_keys(
    endpoint: Address | None, age_s: float | None, works: bool
) -> None:
    hub = Hub()
    hub.see("a", endpoint, age_s)
    assert hub.duty.names == ["a"] * works


@pytest.mark.parametrize("age_s", [None, IDLE_HANDSHAKE_MAX_S, 1e9])
def test_of_a_node_that_was_never_heard_or_not_for_long_nothing_is_said_until_it_is(age_s: float | None) -> None:
    hub = Hub()
    hub.see("a", SEEN, age_s)
    hub.sample(600.0)
    assert hub.heard("a") == []
    hub.see("a", SEEN, 2.0)
    assert hub.heard("a") == [Observed((Observation(hub.a.id, SEEN, 2),))]


def test_a_relay_to_a_client_is_refused_for_it_has_no_agent_to_tell_of_it() -> None:
    hub = Hub()
    hub.duty.relay_message(hub.a, RelayAsk(hub.client.id), hub.now)
    assert [(to, type(body)) for to, body in hub.said] == [("a", RelayRefuse)]


def test_who_may_reach_a_client_is_told_where_that_is_seen_and_nobody_else() -> None:
    hub = Hub()
    hub.see("c", ELSEWHERE)
    assert [type(body) for body in hub.heard("a")] == [Observed]
    assert hub.heard("b") == []
    hub.greet(hub.a)
    assert [type(body) for body in hub.heard("a")] == [Observed], "a new agent hears it again"


# Relays


def test_both_ends_of_a_pair_are_granted_the_relay_that_one_asked_for_and_it_works_when_both_have_bound() -> None:
    hub = Hub()
    hub.duty.relay_message(hub.a, RelayAsk(hub.b.id), hub.now)
    to_a, to_b = hub.grant("a"), hub.grant("b")
    assert (to_a.peer, to_b.peer) == (hub.b.id, hub.a.id)
    assert to_a.relay == to_b.relay
    assert hub.duty.due == hub.now + LIFETIME_S
    hub.bind(to_a.relay[0].port, to_a.token, SEEN)
    hub.bind(to_b.relay[0].port, to_b.token, ELSEWHERE)
    assert [a for a in hub.done if isinstance(a, InstallRelay)] == [InstallRelay(to_a.relay[0].port, SEEN, ELSEWHERE)]
    assert [a.remote for a in hub.done if isinstance(a, SendProbe)] == [SEEN, ELSEWHERE], "each is answered"


def installed() -> tuple[Hub, RelayGrant, RelayGrant]:
    hub = Hub()
    hub.duty.relay_message(hub.a, RelayAsk(hub.b.id), hub.now)
    to_a, to_b = hub.grant("a"), hub.grant("b")
    hub.bind(to_a.relay[0].port, to_a.token, SEEN)
    hub.bind(to_b.relay[0].port, to_b.token, ELSEWHERE)
    hub.done.clear()
    return hub, to_a, to_b


def test_a_relay_that_is_not_refreshed_ends_in_its_time() -> None:
    hub, to_a, _ = installed()
    hub.duty.poll(hub.now + LIFETIME_S - 1)
    assert hub.done == []
    hub.duty.poll(hub.now + LIFETIME_S)
    assert hub.done == [RemoveRelay(to_a.relay[0].port, SEEN, ELSEWHERE)]
    assert hub.duty.due is None


def test_a_refresh_is_answered_and_gives_the_whole_lifetime_again() -> None:
    hub, to_a, _ = installed()
    hub.now += 100.0
    hub.duty.relay_message(hub.a, RelayRefresh(hub.b.id, to_a.token), hub.now)
    assert hub.grant("a").token == to_a.token
    assert hub.duty.due == hub.now + LIFETIME_S


def test_a_relay_that_both_release_is_gone_at_once() -> None:
    hub, to_a, to_b = installed()
    hub.duty.relay_message(hub.a, RelayRelease(hub.b.id, to_a.token), hub.now)
    assert hub.done == []
    hub.duty.relay_message(hub.b, RelayRelease(hub.a.id, to_b.token), hub.now)
    assert hub.done == [RemoveRelay(to_a.relay[0].port, SEEN, ELSEWHERE)]


def test_a_new_agent_is_told_of_the_relays_that_it_has() -> None:
    hub, to_a, _ = installed()
    hub.greet(hub.a)
    assert hub.grant("a") == to_a
    assert hub.heard("b") == []


def test_what_is_no_message_about_relays_is_left_to_others() -> None:
    hub = Hub()
    hub.duty.relay_message(hub.a, Ack(1), hub.now)
    assert (hub.said, hub.done) == ([], [])


def test_a_pair_that_may_not_speak_gets_no_relay() -> None:
    hub = Hub()
    hub.duty.relay_message(hub.b, RelayAsk(hub.client.id), hub.now)
    assert [type(body) for body in hub.heard("b")] == [RelayRefuse]


def test_grants_name_the_addresses_that_the_anchor_has_now() -> None:
    hub = Hub()
    hub.duty.set_addresses((Address("203.0.113.77", 51820),))
    hub.duty.relay_message(hub.a, RelayAsk(hub.b.id), hub.now)
    assert {address.ip for address in hub.grant("a").relay} == {"203.0.113.77"}


def test_forged_questions_in_its_name_do_not_use_up_a_nodes_share() -> None:
    hub = Hub()
    for _ in range(1000):
        assert hub.ask(server_of("a", b"guessed" * 5)) == []
    assert len(hub.ask(server_of("a"))) == 1
