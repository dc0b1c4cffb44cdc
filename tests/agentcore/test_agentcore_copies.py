"""Requests that somebody has recorded and sends again. Hunted: one that counts once more when enough has come since,
and a flood of them that keeps a node's own from being answered."""

from __future__ import annotations

from agentcore_ends import RELAYED, binds, direct, network_of, path_of
from agentcore_pair import IPS, PORT, Host, PairWorld, pair_of

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address
from meshctl.core.agent.nat import OBSERVATION_S
from meshctl.core.agent.probes import WINDOW
from meshctl.core.wire import stun

ELSEWHERE = Address("203.0.113.66", 4444)


def requests(host: Host, since: float = 0.0) -> list[stun.Received]:
    """The checks of the other end that this host has sent."""
    ends = IPS["a"], IPS["b"]
    sent = [a for _, a in host.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe) and a.remote.ip in ends]
    found = [stun.decode(probe.data) for probe in sent]
    return [check for check in found if check.message.message_class is stun.Class.REQUEST]


def replay(to: Host, data: bytes) -> list[Address]:
    """It is handed this once more, from elsewhere; where it sends something then."""
    before = len(to.actions)
    to.receive(Address(to.ip, PORT), ELSEWHERE, data)
    return [action.remote for _, action in to.actions[before:] if isinstance(action, ev.SendProbe)]


def test_a_check_that_was_recorded_is_known_however_much_the_peer_has_sent_since() -> None:
    world = direct()
    asking, asked = pair_of(world)
    recorded = requests(asking)
    for _ in range(2 * WINDOW):
        path_of(asking).work.tunnel.keep_open(Address(asked.ip, PORT), world.now)
        asking.give(ev.Wake())
        world.run(0.01)
    assert [replay(asked, check.raw) for check in recorded] == [[]] * len(recorded)
    assert ELSEWHERE not in {c.address for c in path_of(asked).work.negotiation.remote.all()}


def test_a_check_that_was_recorded_is_known_when_the_session_that_was_lost_is_there_again() -> None:
    world = PairWorld()
    world.apart("a", "b")
    world.run(3.0)
    asking, asked = pair_of(world)
    world.together()
    path_of(asking).work.negotiation.restart(world.now)
    world.run(1.0)
    recorded = requests(asking)
    negotiation = path_of(asked).work.negotiation
    credentials = negotiation.credentials
    assert credentials is not None
    negotiation.forget()
    negotiation.renew(credentials)
    assert [replay(asked, check.raw) for check in recorded[-1:]] == [[]]


def test_a_flood_of_one_recorded_question_does_not_make_the_anchor_deaf_to_the_node() -> None:
    world = PairWorld(outside={IPS["a"]: ("100.100.1.1", 0), IPS["b"]: ("100.100.2.2", 0)})
    world.run(20.0)
    node, hub = world.hosts["a"], world.hosts["hub0"]
    place = Address(hub.ip, PORT)
    asked = [a.data for _, a in node.done(ev.SendProbe) if isinstance(a, ev.SendProbe) and a.remote == place]
    for data in asked:
        replay(hub, data)  # it came before the anchor knew the session, and is new to it
    end = world.now + OBSERVATION_S + 60.0
    while world.now < end:
        for data in asked:
            assert replay(hub, data) == []
        world.run(0.01)
    own = network_of(node).context.own.all()
    assert [c.address.ip for c in own if c.kind == "srflx"] == ["100.100.1.1"]


def test_a_flood_of_recorded_checks_leaves_the_peers_own_their_answers() -> None:
    world = direct()
    asking, asked = pair_of(world)
    recorded = requests(asking)[-1].raw
    since = world.now
    world.at(world.now + 0.2, lambda: path_of(asking).work.negotiation.restart(world.now))
    world.at(world.now + 0.2, lambda: network_of(asking).context.touch(path_of(asking).peer.id))
    world.at(world.now + 0.2, lambda: asking.give(ev.Wake()))
    for _ in range(500):
        for _ in range(5):
            assert replay(asked, recorded) == []
        world.run(0.001)
    sent = [stun.decode(a.data).message for _, a in asked.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)]
    answered = {message.transaction for message in sent if message.message_class is stun.Class.SUCCESS}
    assert answered >= {check.message.transaction for check in requests(asking, since)} != set()


def test_a_flood_of_recorded_binds_leaves_a_relay_as_it_is_and_its_ends_their_answers() -> None:
    world = PairWorld()
    world.apart("a", "b")
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.run(1.0)
    hub = world.hosts["hub0"]
    ports, since = dict(hub.relays), world.now
    recorded = [(host, probe) for host in pair_of(world) for probe in binds(host, 0.0)]
    path_of(world.hosts["a"]).work.relay.check(world.now)
    world.hosts["a"].give(ev.Wake())
    for _ in range(200):
        for _, probe in recorded:
            hub.receive(probe.remote, ELSEWHERE, probe.data)
        world.run(0.005)
    sent = [a for _, a in hub.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)]
    answers = [a for a in sent if a.remote == ELSEWHERE]
    assert len(answers) <= len(recorded), "those that came before the anchor knew the session, once each"
    asked = {stun.decode(probe.data).message.transaction for probe in binds(world.hosts["a"], since)}
    assert {stun.decode(a.data).message.transaction for a in sent} >= asked != set()
    assert hub.relays == ports
    assert world.states() == RELAYED
