"""STUN servers without a key. Hunted: a lie that costs a path, and a liar whom nobody asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simattack import VICTIM_IP
from simdraw import draw
from simnat import Behaviour
from simnet import Packet
from simspecs import EASY, HARD, NEVER, spec_of
from simstun import MANNERS, StunServer
from simworld import World

from meshctl.core.agent.path import State
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress


@pytest.mark.parametrize("manner", MANNERS)
def test_whatever_a_server_says_paths_are_what_they_would_be(manner: str) -> None:
    for spec in (EASY, NEVER):
        assert World(replace(spec, stun=manner)).run().findings == ()


@pytest.mark.parametrize(
    ("manner", "places"), [("honest", {"81.0.0.1", "81.0.1.1"}), ("victim", {VICTIM_IP}), ("private", {"10.99.0.1"})]
)
def test_nodes_ask_it_and_it_answers_in_its_manner(manner: str, places: set[str]) -> None:
    world, said = World(replace(EASY, stun=manner, seconds=5.0)), set[str]()

    def tap(packet: Packet) -> None:
        if packet.source[0] == "85.66.0.1":
            said.add(stun.decode(packet.data).message.xor_mapped_address.host)

    world.internet.tap = tap
    world.run()
    assert said - {"80.0.0.1", "80.0.1.1"} == places


def test_some_worlds_have_a_server_of_each_manner() -> None:
    manners = {spec.stun for spec in map(draw, range(200))}
    assert manners == {"", *MANNERS}


def test_no_splice_is_aimed_at_a_victim_that_a_server_without_a_key_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names one for the node behind the hard NAT alone: so the NATs are as a splice needs them."""
    spec, struck = spec_of(HARD, Behaviour(), stun="honest"), set[tuple[str, int]]()
    world = World(replace(spec, nodes=tuple(node for node in spec.nodes if node.name != "a1")))

    def says(_server: StunServer, packet: Packet) -> TransportAddress:
        hard = packet.source[0] == "81.0.0.1"
        return TransportAddress(VICTIM_IP if hard else packet.source[0], 65535 if hard else packet.source[1])

    def tap(packet: Packet) -> None:
        if packet.destination[0] == VICTIM_IP:
            struck.add(packet.destination)

    monkeypatch.setattr(StunServer, "_says", says)
    world.internet.tap = tap
    world.run()
    assert State.SPLICING in {d.decision.after for d in world.watch.decided}
    assert struck == {(VICTIM_IP, 65535)}, "which is what was told, and is checked"
