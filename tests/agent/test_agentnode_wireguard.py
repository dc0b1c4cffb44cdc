"""Reading WireGuard and setting what is the agent's, with wireguard-go in a network namespace."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from agentnode_space import Space, address, document, key, peer, space

from meshctl.agent.node import wireguard as module
from meshctl.agent.node.wgset import set_peer
from meshctl.agent.node.wireguard import WireGuard, run
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import PeerStatus, PollWg, SetEndpoint, SetKeepalive, WgStatus

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", name="place")
def _place() -> Iterator[Space]:
    with space() as made:
        yield made


@pytest.fixture(name="mesh")
def _mesh(place: Space) -> Iterator[AgentDocument]:
    """An interface with ann, bob and a peer that nobody knows; the document has ann, bob and zoe."""
    interface = f"wg{secrets.token_hex(4)}"
    place.run("wireguard-go", interface)
    place.run("wg", "set", interface, "listen-port", "51820", "fwmark", "0xca6c", "private-key", "/dev/stdin",
              text=place.run("wg", "genkey"))  # fmt: skip
    place.run("wg", "set", interface, "peer", key("ann").text, "endpoint", "[2001:db8::1]:51820",
              "preshared-key", "/dev/stdin", text=place.run("wg", "genpsk"))  # fmt: skip
    place.run("wg", "set", interface, "peer", key("bob").text, "persistent-keepalive", "25", "allowed-ips", "10.42.0.3")
    place.run("wg", "set", interface, "peer", key("stranger").text)
    yield document(peer("ann", 2), peer("bob", 3), peer("zoe", 4), interface=interface)
    place.run("ip", "link", "del", interface)


def read(place: Space, wireguard: WireGuard) -> dict[str, PeerStatus]:
    """What a poll says, by the peers' names."""
    place.inside(lambda: wireguard.do(PollWg()))
    (event,) = wireguard.poll(0.0)
    assert isinstance(event, WgStatus)
    names = {key(name): name for name in ("ann", "bob", "zoe", "stranger")}
    return {names[status.public_key]: status for status in event.peers}


def test_a_reading_has_all_peers_of_the_nodes_interfaces_and_their_marks(place: Space, mesh: AgentDocument) -> None:
    wireguard = WireGuard(mesh)
    found = read(place, wireguard)
    assert found["ann"] == PeerStatus(key("ann"), address("[2001:db8::1]:51820"), None, 0, 0, 0, userspace=True)
    assert found["bob"] == PeerStatus(key("bob"), None, None, 0, 0, 25, userspace=True)
    assert set(found) == {"ann", "bob", "stranger"}
    assert wireguard.marks == {51820: 0xCA6C}
    place.run("wg", "set", mesh.config.networks[0].interface, "listen-port", "51999")
    read(place, wireguard)
    assert wireguard.marks == {51999: 0xCA6C}


def test_another_interface_is_not_the_agents(place: Space, mesh: AgentDocument) -> None:
    assert read(place, WireGuard(document(peer("ann", 2), interface="wg0"))) == {}


def test_endpoint_and_keepalive_are_set_and_nothing_else(place: Space, mesh: AgentDocument) -> None:
    wireguard = WireGuard(mesh)
    interface = mesh.config.networks[0].interface
    before = place.run("wg", "showconf", interface)
    read(place, wireguard)
    place.inside(lambda: wireguard.do(SetEndpoint(key("bob"), address("192.0.2.7:4500"))))
    place.inside(lambda: wireguard.do(SetKeepalive(key("bob"), 40)))
    bob = read(place, wireguard)["bob"]
    assert bob == PeerStatus(key("bob"), address("192.0.2.7:4500"), None, 0, 0, 40, userspace=True)
    after = place.run("wg", "showconf", interface)
    changed = "Endpoint = 192.0.2.7:4500\nPersistentKeepalive = 40\n"
    assert sorted(after.splitlines()) == sorted(before.replace("PersistentKeepalive = 25\n", changed).splitlines())
    place.inside(lambda: wireguard.do(SetKeepalive(key("bob"), 0)))
    assert read(place, wireguard)["bob"].keepalive_s == 0


@pytest.mark.parametrize("name", ["zoe", "stranger"])
def test_a_peer_that_is_not_on_the_interface_or_not_in_the_document_is_not_made(
    place: Space, mesh: AgentDocument, name: str
) -> None:
    wireguard = WireGuard(mesh)
    before = read(place, wireguard)
    with suppress(ValueError):
        place.inside(lambda: wireguard.do(SetEndpoint(key(name), address("192.0.2.7:4500"))))
    assert read(place, wireguard) == before


def test_what_wireguard_refuses_is_an_error(place: Space, mesh: AgentDocument) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        set_peer(mesh.config.networks[0].interface, key("bob"), keepalive_s=70_000)
    with pytest.raises(OSError, match="No such"):
        place.inside(lambda: set_peer("nosuchinterface", key("bob"), keepalive_s=25))


def test_a_handshakes_age_is_by_the_wall_clock(mesh: AgentDocument) -> None:
    line = f"wg0\t{key('ann')}\t(none)\t(none)\t(none)\t1000\t5\t6\toff"
    assert module._parse(line) == (key("ann"), None, 1000, 5, 6, 0)
    assert module._status(module._parse(line), 1030.5, userspace=False) == PeerStatus(key("ann"), None, 30.5, 5, 6, 0)


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
    began = time.monotonic()
    with pytest.raises(OSError, match="no end after"):
        run(["/bin/sleep", "60"])
    assert time.monotonic() - began < 10


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(OSError, match="Unable to access interface"):
        run(["/usr/bin/wg", "show", "nosuchinterface"])
