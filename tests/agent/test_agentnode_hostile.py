"""Agents among those who mean harm: one who sees all packets of the internet and sends any, and a node of the mesh that
is permitted nothing. Neither moves a path, and nobody learns where a peer is whom policy does not let it reach."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from agentnode_asked import asked
from agentnode_mallory import Impostor, Tap, forged, from_elsewhere, is_stun, payload, ports, send
from agentnode_stage import Stage, until

from meshctl.core.wire import stun
from meshctl.lab.names import INTERNET, netns_path

pytestmark = pytest.mark.lab

# Everybody can send to soft, and nobody but those whom they have sent to can to the others.
INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  mid:  {roles: [anchor], endpoint: "203.0.113.10:51820"}
  far:  {roles: [anchor], endpoint: "198.51.100.20:51820"}
  soft: {lab: {nat: full-cone}}
  hard: {lab: {nat: symmetric}}
  firm: {lab: {nat: symmetric}}
  eve:  {lab: {nat: easy}}
policies:
  - {name: friends, from: [soft, hard, firm], to: [soft, hard, firm], allow: [any]}
"""
ANCHORS = {"203.0.113.10": "mid", "198.51.100.20": "far"}
RELAY_PORTS = range(40000, 50000)
DIRECT, ALSO_DIRECT, RELAYED = ("hard", "soft"), ("firm", "soft"), ("hard", "firm")
FOUND_S = 30.0
STRANGER = "11.66.66.66"
TIMES = 20  # of what is sent when there is little of it
PAUSE_S = 0.05  # more at once than buffers hold would not arrive


class Scene:
    """The stage, with all that has passed by on the internet until the paths were found, and what has come to eve and
    to soft through their tunnels."""

    def __init__(self, stage: Stage, ends: ExitStack) -> None:
        self.stage = stage
        self.internet = netns_path(stage.name, INTERNET)
        self.signals = {node: ends.enter_context(self._in_tunnel(node)) for node in ("eve", "soft")}
        with Tap(self.internet) as tap:
            stage.start_all()
            until(lambda: self.direct() and self.relay() != ("", 0), FOUND_S, stage.logs)
            for pair in (DIRECT, ALSO_DIRECT, RELAYED):
                until(lambda pair=pair: stage.ping(*pair, 10), 12, stage.logs)
        self.recorded = tap.packets

    def _in_tunnel(self, node: str) -> Tap:
        return Tap(netns_path(self.stage.name, node), self.stage.interface(node), incoming=True)

    def outside(self, node: str) -> str:
        """The address of the node's router."""
        return self.stage.outside(f"{node}-router")

    def direct(self) -> bool:
        """Whether hard and firm reach soft, and it them, at their routers."""
        pairs = [(a, b) for pair in (DIRECT, ALSO_DIRECT) for a, b in (pair, pair[::-1])]
        return all(self.stage.endpoint(a, b).rpartition(":")[0] == self.outside(b) for a, b in pairs)

    def relay(self) -> tuple[str, int]:
        """The anchor and port by which hard and firm send to each other; ("", 0) for none."""
        there, back = (self.stage.endpoint(a, b) for a, b in (RELAYED, RELAYED[::-1]))
        ip, _, port = there.rpartition(":")
        return (ANCHORS[ip], int(port)) if there == back and ip in ANCHORS and int(port) in RELAY_PORTS else ("", 0)

    def settled(self) -> list[str]:
        """What nobody from outside may change: endpoints, and for whom the relay in use forwards."""
        nodes = [node.name for node in self.stage.mesh.managed()]
        shown = [self.stage.run(node, "wg", "show", self.stage.interface(node), "endpoints") for node in nodes]
        anchor, port = self.relay()
        relays = self.stage.run(anchor, "nft", "list", "table", "inet", "meshctl_relays")
        elements = re.findall(rf"[0-9.]+ \. \d+ \. {port} : [0-9.]+", relays)
        assert elements, relays
        return sorted(line for text in shown for line in text.splitlines()) + sorted(elements)


@pytest.fixture(scope="module", name="scene")
def _scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("agents")
    with Stage(f"pytest{os.getpid()}-hostile", INVENTORY, folder) as stage, ExitStack() as ends:
        yield Scene(stage, ends)


def signals(stage: Stage) -> list[int]:
    """How many messages of other agents each anchor has heard."""
    return [asked(stage, anchor, "status")["events"]["Signal"] for anchor in ANCHORS.values()]


def withstands(scene: Scene, packets: list[bytes]) -> None:
    """Send them all while both pairs talk; nothing is lost, and nothing has moved."""
    assert len(packets) > 100, "or else this would show nothing"
    before = scene.settled()
    with scene.stage.pinging(*DIRECT) as direct, scene.stage.pinging(*RELAYED) as relayed:
        send(scene.internet, packets)
        assert scene.stage.ping(*DIRECT, 50)
        assert scene.stage.ping(*RELAYED, 50)
    assert (direct.complaint(), relayed.complaint()) == ("", "")
    assert scene.settled() == before


def test_what_was_recorded_and_is_sent_again_from_where_it_came_changes_nothing(scene: Scene) -> None:
    withstands(scene, [packet for packet in scene.recorded if is_stun(packet)])
    withstands(scene, scene.recorded)


def test_what_was_recorded_and_is_sent_again_from_elsewhere_changes_nothing(scene: Scene) -> None:
    with Impostor(scene.internet, STRANGER, scene.recorded) as impostor:
        withstands(scene, [from_elsewhere(packet, STRANGER) for packet in scene.recorded])
    # Anchors may have asked who that is; they do so a few times.
    assert stun.Class.REQUEST not in impostor.heard, "nobody has tried to reach a peer there"


def test_questions_answers_and_binds_that_are_forged_change_nothing(scene: Scene) -> None:
    known = [packet for packet in scene.recorded if is_stun(packet)]
    assert any(ports(packet)[1] in RELAY_PORTS for packet in known), "binds are among them"
    made = [forged(packet) for packet in known]
    withstands(scene, made)
    with Impostor(scene.internet, STRANGER, known) as impostor:
        withstands(scene, [from_elsewhere(packet, STRANGER) for packet in made])
    assert impostor.heard == [], "nothing is answered"


def test_a_relay_port_forwards_for_its_pair_only(scene: Scene) -> None:
    anchor, port = scene.relay()
    ip = next(ip for ip, name in ANCHORS.items() if name == anchor)
    carried = [p for p in scene.recorded if ports(p)[1] == port and p[16:20] == socket.inet_aton(ip) and not is_stun(p)]
    assert carried
    marked = [from_elsewhere(packet, STRANGER) for packet in carried]
    with ExitStack() as ends:
        spaces = [netns_path(scene.stage.name, f"{node}-router") for node in RELAYED]
        taps = [ends.enter_context(Tap(space)) for space in spaces]
        withstands(scene, marked * TIMES)
    arrived = {payload(packet) for tap in taps for packet in tap.packets}
    assert arrived, "the pair's own packets do arrive"
    assert not arrived & {payload(packet) for packet in marked}


def test_a_node_that_is_permitted_nothing_learns_nobodys_address(scene: Scene) -> None:
    hidden = {node: socket.inet_aton(scene.outside(node)) for node in ("soft", "hard", "firm")}
    said = {node: [payload(packet) for packet in tap.packets] for node, tap in scene.signals.items()}
    assert any(hidden["hard"] in message for message in said["soft"]), "this is how an address would be seen"
    assert said["eve"], "anchors speak to her"
    assert not [name for message in said["eve"] for name, address in hidden.items() if address in message]
    shown = asked(scene.stage, "eve", "paths")
    assert {path["peer"] for path in shown["paths"]} == set(ANCHORS.values())
    assert not [name for name in hidden if name in str(shown) or scene.outside(name) in str(shown)]


def test_what_a_node_hears_and_sends_on_as_its_own_changes_nothing(scene: Scene) -> None:
    eve = netns_path(scene.stage.name, "eve")
    to_anchor = [scene.stage.mesh_ip(anchor) for anchor in ("mid", "far")]
    own = scene.stage.mesh_ip("eve")
    stolen = [from_elsewhere(packet, own) for packet in scene.signals["soft"].packets]
    assert len(stolen) > 10
    before, heard = scene.settled(), signals(scene.stage)
    with scene.stage.pinging(*DIRECT) as direct, scene.stage.pinging(*RELAYED) as relayed:
        for _ in range(TIMES):
            for ip in to_anchor:
                send(eve, [packet[:16] + socket.inet_aton(ip) + packet[20:] for packet in stolen])
            time.sleep(PAUSE_S)
        most = len(stolen) * TIMES // 2  # a busy machine drops some
        until(lambda: all(now - then > most for now, then in zip(signals(scene.stage), heard, strict=True)), 5)
        assert scene.stage.ping(*DIRECT, 50)
        assert scene.stage.ping(*RELAYED, 50)
    assert (direct.complaint(), relayed.complaint()) == ("", "")
    assert scene.settled() == before
    assert "Traceback" not in scene.stage.logs()
