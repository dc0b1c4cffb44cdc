"""What operators want. Hunted: an override that is forgotten, and a word that reaches whom it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import simwishes
from simconfig import mesh_ip, pair_key, wg_key
from siminventory import APPLY_S
from simlong import LEAVES_S
from simspec import Fault, Flow, NodeSpec, WorldSpec
from simspecs import EASY, found
from simwatch import Decided
from simworld import World

from meshctl.core.agent import events as ev
from meshctl.core.agent import signal
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import Ack, Body, MessageType, Observation, Observed
from meshctl.core.agent.clients import SILENT_S
from meshctl.core.agent.config import node_id
from meshctl.core.agent.history import Decision
from meshctl.core.agent.liveness import IDLE_SAMPLE_S
from meshctl.core.agent.path import State, Trigger

CLIENT = NodeSpec("n2", 4, kind="client")


def wanting(mode: str) -> WorldSpec:
    return replace(EASY, overrides=(("n0", "n1", mode),))


@pytest.mark.parametrize("mode", ["relay", "direct", "prefer-relay"])
def test_pairs_are_where_an_operator_wants_them(mode: str) -> None:
    assert found(wanting(mode)) == set()


@pytest.mark.parametrize("mode", ["relay", "prefer-relay"])
def test_a_pair_that_is_direct_against_its_operators_wish_is_found(mode: str) -> None:
    world, who = World(EASY), set[str]()

    def ask() -> None:
        world.spec = wanting(mode)
        who.update(name for name, _ in simwishes.overrides_hold(world))

    world.clock.at(30.0, ask)
    world.run()
    assert who == {"n0", "n1"}


@pytest.mark.parametrize(
    ("mode", "decision"),
    [
        ("relay", Decision(20.0, State.RELAYED, State.DIRECT, Trigger.NOMINATED, "doctored")),
        ("direct", Decision(20.0, State.PROBING, State.RELAYED, Trigger.RELAY_READY, "doctored")),
    ],
)
def test_a_decision_against_an_operators_wish_is_found_while_he_wants_it(mode: str, decision: Decision) -> None:
    for at, expected in ((18.0, ["n0"]), (10.0, []), (25.0, [])):
        world = World(replace(EASY, faults=(Fault("override", 15.0, 6.0, "n0", f"n1 {mode}"),)))
        world.watch.decided.append(Decided(at, "n0", "n1", decision))
        assert [who for who, _ in simwishes.overrides_are_obeyed(world)] == expected


def test_what_is_said_to_an_agent_of_who_is_not_its_peer_yet_again_is_no_wish() -> None:
    said = Fault("override", 15.0, 6.0, "n0", "n1 relay")
    for ends_at, expected in ((14.9, []), (14.9 - APPLY_S, ["n0"])):
        world = World(replace(EASY, faults=(Fault("pair ends", 10.0, ends_at - 10.0, "n0", "n1"), said)))
        world.watch.decided.append(
            Decided(18.0, "n0", "n1", Decision(20.0, State.RELAYED, State.DIRECT, Trigger.NOMINATED, "doctored"))
        )
        assert [who for who, _ in simwishes.overrides_are_obeyed(world)] == expected


def test_a_path_that_does_not_carry_packets_of_the_interfaces_mtu_is_found() -> None:
    narrow = replace(EASY, flows=(Flow("n0", "n1", 5.0, 1.0, EASY.seconds, 1420),))
    assert found(narrow) == set()
    world = World(narrow)
    world.sites["site0"].cable.mtu = 1479
    assert "the last pings are answered" in {f.invariant for f in world.run().findings}


def says(world: World, node: str, ends: tuple[str, str], body: Body, kind: MessageType) -> list[str]:
    """What is found when that node sends that message of `ends`."""
    keys = {n.name: node_id(n.public_key) for n in world.identities}
    header = signal.Header(kind, keys[ends[0]], keys[ends[1]], bytes(8), bytes(8), 1)
    data = signal.encode(header, body, pair_key(*ends))
    world.watch.signal(world.nodes[node], ev.SendSignal(mesh_ip(world.spec.node(ends[1])), data))
    return [f.invariant for f in world.watch.findings]


def test_a_message_that_is_handed_on_for_who_may_not_is_found() -> None:
    assert says(World(EASY), "a0", ("n0", "n1"), Ack(1), MessageType.ACK) == []
    strangers = World(replace(EASY, pairs=()))
    assert says(strangers, "a0", ("n0", "n1"), Ack(1), MessageType.ACK) == ["forwarded for who may not"]


def test_a_client_that_is_shown_to_who_may_not_reach_it_and_a_fixed_endpoint_that_is_changed_are_found() -> None:
    spec = replace(EASY, nodes=(*EASY.nodes, CLIENT), pairs=(("n0", "n1"), ("n0", "n2")))
    world = World(spec)
    keys = {n.name: node_id(n.public_key) for n in world.identities}
    seen = Observed((Observation(keys["n2"], Address("82.0.4.1", 51820), 3),))
    assert says(world, "a0", ("a0", "n0"), seen, MessageType.OBSERVED) == []
    shown = says(world, "a0", ("a0", "n1"), seen, MessageType.OBSERVED)
    assert shown == ["a client is shown to who may not reach it"]
    world.watch.endpoint(world.nodes["n0"], "n2", ("82.0.4.9", 51820))
    assert world.watch.findings[-1].invariant == "a fixed endpoint is changed"


def test_a_client_whose_endpoint_is_written_down_stays_there_and_one_behind_a_nat_is_where_an_anchor_sees_it() -> None:
    for site in ("", "site1"):
        client = replace(CLIENT, site=site)
        spec = replace(EASY, nodes=(*EASY.nodes, client), pairs=(("n0", "n1"), ("n0", "n2")))
        world = World(replace(spec, flows=(Flow("n2", "n0", 20.0, 1.0, 35.0),)))
        assert world.run().findings == ()
        assert any(m.peer == "n2" for m in world.watch.moved) == bool(site)


@pytest.mark.parametrize("before", [True, False])
def test_a_keepalive_that_is_missing_or_never_withdrawn_is_found(before: bool) -> None:
    spec = replace(EASY, nodes=(*EASY.nodes, replace(CLIENT, site="site1")), pairs=(("n0", "n1"), ("n0", "n2")))
    world = World(replace(spec, faults=(Fault("unplug", 60.0, LEAVES_S, "n2"),), quiet_at=60.0, seconds=200.0))
    # Right before it is looked at, for the agent puts right what it finds.
    at, interval_s = (59.0, 0) if before else (60.0 + SILENT_S + 2 * IDLE_SAMPLE_S + simwishes._TOLD_S, 25)
    key = wg_key("n2")
    world.clock.at(at - 0.01, lambda: world.nodes["n0"].kernel.wg.set_keepalive(key, interval_s))
    findings = [f for f in world.run().findings if f.invariant == "clients are kept alive"]
    assert [(f.who, f.words.split(", ")[1]) for f in findings] == [("n0", f"which is {'here' if before else 'gone'}")]


def test_a_client_is_kept_alive_while_it_is_there_and_let_go_when_it_has_left() -> None:
    spec = replace(EASY, nodes=(*EASY.nodes, replace(CLIENT, site="site1")), pairs=(("n0", "n1"), ("n0", "n2")))
    world = World(replace(spec, faults=(Fault("unplug", 60.0, LEAVES_S, "n2"),), quiet_at=60.0, seconds=200.0))
    assert [f for f in world.run().findings if f.invariant == "clients are kept alive"] == []
