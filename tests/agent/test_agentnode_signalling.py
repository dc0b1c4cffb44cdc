"""Signalling, between two network namespaces with two cables: one that stands for the tunnel, one that does not."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from agentnode_space import Space, document, peer, space

from meshctl.agent.node.signalling import Signalling
from meshctl.core.agent.document import SIGNALLING_PORT
from meshctl.core.agent.events import Event, SendSignal, Signal

pytestmark = pytest.mark.lab

ANN = {4: "10.42.0.2", 6: "fd42::2"}
OWN = {4: "10.42.0.1", 6: "fd42::1"}
CABLES = """\
link add wg0 type veth peer name wg0 netns {far}
link add eth0 type veth peer name eth0 netns {far}
addr add 10.42.0.1/24 dev wg0
addr add fd42::1/64 dev wg0 nodad
link set wg0 up
addr add 192.0.2.1/24 dev eth0
link set eth0 up
"""
FAR = """\
addr add 10.42.0.2/24 dev wg0
addr add fd42::2/64 dev wg0 nodad
link set wg0 up
addr add 192.0.2.2/24 dev eth0
link set eth0 up
"""


@pytest.fixture(name="places")
def _places() -> Iterator[tuple[Space, Space]]:
    """This node's, and ann's."""
    with space() as near, space() as far:
        near.run("ip", "-batch", "-", text=CABLES.format(far=far.name))
        far.run("ip", "-batch", "-", text=FAR)
        yield near, far


@pytest.fixture(name="signalling")
def _signalling(places: tuple[Space, Space]) -> Iterator[Signalling]:
    made = places[0].inside(lambda: Signalling(document(peer("ann", 2))))
    yield made
    made.close()


def talker(far: Space, family: int, device: str = "wg0") -> socket.socket:
    """Ann's socket, at her mesh address, that sends by that cable."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.bind((ANN[family], SIGNALLING_PORT))
        sock.settimeout(5)
        return sock

    return far.inside(make)


def heard(signalling: Signalling) -> list[Event]:
    """What comes next."""
    sockets = dict(signalling.sockets())
    ready, _, _ = select.select(list(sockets), [], [], 5)
    return [event for sock in ready for event in sockets[sock](0.0)]


@pytest.mark.parametrize("family", [4, 6])
def test_messages_go_and_come_between_mesh_addresses(
    places: tuple[Space, Space], signalling: Signalling, family: int
) -> None:
    with talker(places[1], family) as ann:
        signalling.do(SendSignal(ANN[family], b"question"))
        data, source = ann.recvfrom(100)
        assert (data, source[:2]) == (b"question", (OWN[family], SIGNALLING_PORT))
        ann.sendto(b"answer", (OWN[family], SIGNALLING_PORT))
        assert heard(signalling) == [Signal(ANN[family], b"answer")]


def test_what_comes_beside_the_tunnel_is_not_heard(places: tuple[Space, Space], signalling: Signalling) -> None:
    near, far = places
    far.run("ip", "route", "replace", "10.42.0.1/32", "via", "192.0.2.1", "dev", "eth0")
    near.run("sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done")
    near.run("nft", "-f", "-", text="table ip seen { chain in { type filter hook input priority 0;"
             f" iifname eth0 udp dport {SIGNALLING_PORT} counter\n}}\n}}\n")  # fmt: skip
    with talker(far, 4, "eth0") as stranger:
        stranger.sendto(b"forged", (OWN[4], SIGNALLING_PORT))
    with talker(far, 4) as ann:
        far.run("ip", "route", "del", "10.42.0.1/32")
        ann.sendto(b"true", (OWN[4], SIGNALLING_PORT))
        assert heard(signalling) == [Signal(ANN[4], b"true")]
    assert "packets 1 " in near.run("nft", "list", "ruleset"), "the forged one did arrive at the host"


def test_an_address_that_is_no_peers_is_not_sent_to(signalling: Signalling) -> None:
    with pytest.raises(ValueError, match="no peer"):
        signalling.do(SendSignal("10.42.0.9", b"question"))


def test_a_tunnel_that_leads_nowhere_is_no_error(places: tuple[Space, Space], signalling: Signalling) -> None:
    places[0].run("ip", "link", "set", "wg0", "down")
    signalling.do(SendSignal(ANN[4], b"question"))
    places[0].run("ip", "link", "del", "wg0")
    signalling.do(SendSignal(ANN[4], b"question"))


def test_an_interface_that_is_made_anew_is_listened_on_again(
    places: tuple[Space, Space], signalling: Signalling
) -> None:
    near, far = places
    near.run("ip", "link", "del", "wg0")
    near.run("ip", "link", "add", "wg0", "type", "veth", "peer", "name", "wg0", "netns", far.name)
    near.inside(signalling.refresh)
    near.run("ip", "-batch", "-", text="addr add 10.42.0.1/24 dev wg0\nlink set wg0 up\n")
    far.run("ip", "-batch", "-", text="addr add 10.42.0.2/24 dev wg0\nlink set wg0 up\n")
    with talker(far, 4) as ann:
        ann.sendto(b"hello", (OWN[4], SIGNALLING_PORT))
        assert heard(signalling) == [Signal(ANN[4], b"hello")]


def test_an_interface_that_has_gone_is_listened_on_no_more(
    places: tuple[Space, Space], signalling: Signalling
) -> None:
    places[0].run("ip", "link", "del", "wg0")
    places[0].inside(signalling.refresh)
    assert list(signalling.sockets()) == []


def test_another_port_is_listened_on_when_the_document_says_so(
    places: tuple[Space, Space], signalling: Signalling
) -> None:
    near, far = places
    near.inside(lambda: signalling.configure(replace(document(peer("ann", 2)), signalling_port=40), 0.0))
    with talker(far, 4) as ann:
        ann.sendto(b"there", (OWN[4], SIGNALLING_PORT))
        ann.sendto(b"here", (OWN[4], 40))
        assert heard(signalling) == [Signal(ANN[4], b"here")]


def test_a_message_that_is_longer_than_any_of_ours_is_none(
    places: tuple[Space, Space], signalling: Signalling
) -> None:
    with talker(places[1], 4) as ann:
        ann.sendto(bytes(1400), (OWN[4], SIGNALLING_PORT))
        ann.sendto(b"short", (OWN[4], SIGNALLING_PORT))
        events: list[Event] = []
        while not events:
            events = heard(signalling)
    assert events == [Signal(ANN[4], b"short")]


def test_a_port_that_another_program_has_is_told_and_taken_once_it_is_free(places: tuple[Space, Space]) -> None:
    near, _ = places

    def occupy() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", SIGNALLING_PORT))
        return sock

    with near.inside(occupy):
        signalling = near.inside(lambda: Signalling(document(peer("ann", 2))))
        words = f"^wg0, 10.42.0.1 port {SIGNALLING_PORT}: Address already in use$"
        with pytest.raises(OSError, match=words):
            near.inside(signalling.refresh)
        assert len(list(signalling.sockets())) == 1, "IPv6 has its own"
    near.inside(signalling.refresh)
    assert len(list(signalling.sockets())) == 2
    near.run("ip", "link", "del", "wg0")
    near.inside(signalling.refresh)
    signalling.close()
