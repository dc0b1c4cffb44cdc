"""Reading WireGuard and setting what is the agent's, with wireguard-go in a network namespace."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from traceback import format_exception

import pytest
from agentnode_space import Space, address, document, key, peer, stop

from meshctl.agent.node import netlink, wglink, wgread
from meshctl.agent.node import wireguard as module
from meshctl.agent.node.netlink import attribute, nested
from meshctl.agent.node.wgread import Line, read_device
from meshctl.agent.node.wgset import set_peer, take_allowed_ips
from meshctl.agent.node.wireguard import WireGuard
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import PeerStatus, PollWg, SetEndpoint, SetKeepalive, WgStatus

pytestmark = pytest.mark.lab


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
    names = {key(name): name for name in ("ann", "bob", "cat", "zoe", "stranger")}
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


def test_prefixes_go_from_one_peer_to_another_in_one_step_and_no_peer_is_made(
    place: Space, mesh: AgentDocument
) -> None:
    def owners() -> dict[str, set[str]]:
        lines = place.run("wg", "show", interface, "allowed-ips").splitlines()
        return {name: set(ips.split()) for name, ips in (line.split("\t") for line in lines)}

    interface = mesh.config.networks[0].interface
    before = owners()
    taken = (*before[str(key("bob"))], "fd42:7::/64")
    for name in ("ann", "zoe"):
        place.inside(lambda name=name: take_allowed_ips(interface, key(name), taken))
    assert owners() == {**before, str(key("bob")): {"(none)"}, str(key("ann")): set(taken)}


def test_what_wireguard_refuses_is_an_error(place: Space, mesh: AgentDocument) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        set_peer(mesh.config.networks[0].interface, key("bob"), keepalive_s=70_000)
    with pytest.raises(OSError, match="No such"):
        place.inside(lambda: set_peer("nosuchinterface", key("bob"), keepalive_s=25))


def test_a_handshakes_age_is_by_the_wall_clock() -> None:
    line = Line(key("ann"), None, 1000, 5, 6, 0)
    assert module._status(line, 1030.5, userspace=False) == PeerStatus(key("ann"), None, 30.5, 5, 6, 0)


def test_a_peer_that_is_as_it_was_is_not_parsed_again(
    place: Space, mesh: AgentDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    wireguard = WireGuard(mesh)
    before, parsed, original = read(place, wireguard), [], wgread._from_text
    monkeypatch.setattr(wgread, "_from_text", lambda text: parsed.append(text) or original(text))
    assert read(place, wireguard) == before
    assert parsed == []
    place.inside(lambda: wireguard.do(SetKeepalive(key("bob"), 40)))
    assert read(place, wireguard)["bob"].keepalive_s == 40
    assert len(parsed) == 1


def test_an_interface_of_two_that_is_not_there_has_no_peers(place: Space, mesh: AgentDocument) -> None:
    network = mesh.config.networks[0]
    missing = replace(network, network="other", interface="nosuchinterface", peers=())
    both = replace(mesh, config=replace(mesh.config, networks=(network, missing)))
    assert set(read(place, WireGuard(both))) == {"ann", "bob", "stranger"}


def two_networks(place: Space, mesh: AgentDocument, ends: ExitStack) -> tuple[AgentDocument, str]:
    """The document with a second network, whose interface has cat and a mark; that interface."""
    interface = f"wg{secrets.token_hex(4)}"
    place.run("wireguard-go", interface)
    ends.callback(lambda: place.run("ip", "link", "del", interface))
    place.run("wg", "set", interface, "listen-port", "51821", "fwmark", "0xbeef", "peer", key("cat").text)
    other = replace(mesh.config.networks[0], network="other", interface=interface, peers=(peer("cat", 5),))
    return replace(mesh, config=replace(mesh.config, networks=(*mesh.config.networks, other))), interface


def silence(place: Space, interface: str, ends: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wireguard-go says nothing any more, until the test ends."""
    monkeypatch.setattr(wglink, "TIMEOUT_S", 0.2)
    process = int(place.run("pgrep", "-f", f"^wireguard-go {interface}$"))
    ends.callback(os.kill, process, signal.SIGCONT)
    stop(process)


def test_an_interface_of_two_that_does_not_answer_is_as_it_was_and_the_other_is_read(
    place: Space, mesh: AgentDocument, ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, other = two_networks(place, mesh, ends)
    wireguard, first = WireGuard(both), mesh.config.networks[0].interface
    before = read(place, wireguard)
    assert set(before) == {"ann", "bob", "stranger", "cat"}
    silence(place, first, ends, monkeypatch)
    place.run("wg", "set", other, "peer", key("cat").text, "persistent-keepalive", "25")
    with pytest.raises(OSError, match=f"^{first}: WireGuard does not answer$"):
        read(place, wireguard)
    (status,) = wireguard.poll(0.0)
    assert {p.public_key: p for p in status.peers} == {
        p.public_key: p for p in (*before.values(), before["cat"]._replace(keepalive_s=25))
    }
    assert wireguard.marks == {51820: 0xCA6C, 51821: 0xBEEF}, "or probes and questions for names go into a tunnel"


def test_a_wireguard_that_does_not_answer_holds_up_the_agent_once_in_a_while(
    place: Space, mesh: AgentDocument, ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    wireguard, interface = WireGuard(mesh), mesh.config.networks[0].interface
    silence(place, interface, ends, monkeypatch)
    started = time.monotonic()
    for action in (PollWg(), SetEndpoint(key("bob"), address("192.0.2.7:4500")), SetKeepalive(key("bob"), 40)) * 5:
        with pytest.raises(OSError, match="WireGuard does not answer"):
            place.inside(lambda action=action: wireguard.do(action))
    assert time.monotonic() - started < 2 * 0.2
    ends.close()
    wireguard._silent_until.clear()  # that much later
    wireguard.poll(0.0)
    assert set(read(place, wireguard)) == {"ann", "bob", "stranger"}


@pytest.fixture(name="listener")
def _listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where a userspace WireGuard of the name `wg9` would answer."""
    monkeypatch.setattr(wglink, "SOCKETS", tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "wg9.sock"))
        sock.listen()
        yield sock


def test_a_wireguard_that_hangs_does_not_hang_the_agent(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wglink, "TIMEOUT_S", 0.1)
    with pytest.raises(OSError, match="timed out"):
        read_device("wg9", {})


def test_a_socket_that_nobody_listens_at_is_no_interface(listener: socket.socket) -> None:
    listener.close()
    assert read_device("wg9", {}) is None


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"", OSError, "Input/output error"),
        (b"errno=-1\n\n", OSError, "Operation not permitted"),
        (b"listen_port=51820\n", OSError, "Input/output error"),
        (b"public_key=secret\nrx_bytes=1\ntx_bytes=1\nerrno=0\n\n", ValueError, "says something of another form"),
        (b"public_key=" + b"0" * 64 + b"\ntx_bytes=1\nerrno=0\n\n", ValueError, "says something of another form"),
        (b"listen_port=secret\nerrno=0\n\n", ValueError, "says something of another form"),
        (b"secret\nerrno=0\n\n", ValueError, "says something of another form"),
    ],
)
def test_what_a_wireguard_must_not_say_is_an_error_that_does_not_repeat_it(
    listener: socket.socket, answer: bytes, error: type[Exception], words: str
) -> None:
    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(100) == b"get=1\n\n"
            sock.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(error, match=words) as caught:
        read_device("wg9", {})
    server.join()
    assert "secret" not in "".join(format_exception(caught.value))


def test_the_kernels_dump_is_read_across_messages_and_a_scope_counts_as_no_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As linux/wireguard.h has it; the kernel itself is asked in tests/kernel."""

    def told(name: str, sockaddr: bytes) -> bytes:
        return nested(
            0, attribute(1, key(name).raw()), attribute(4, sockaddr), attribute(5, struct.pack("=H", 25)),
            attribute(6, struct.pack("=qq", 1000, 5)), attribute(7, struct.pack("=Q", 7)),
            attribute(8, struct.pack("=Q", 8)),
        )  # fmt: skip

    ann = told("ann", struct.pack("=H", 2) + struct.pack("!H4s8x", 4500, bytes((192, 0, 2, 7))))
    bob = told("bob", struct.pack("=H", 10) + struct.pack("!HI16sI", 4501, 0, bytes([0xFE, 0x80, *[0] * 13, 1]), 3))
    rest = nested(0, attribute(1, key("bob").raw()), nested(9))
    device = [attribute(6, struct.pack("=H", 51820)), attribute(7, struct.pack("=I", 0xCA6C))]
    answers = [b"".join([*device, nested(8, ann, bob)]), nested(8, rest)]
    monkeypatch.setattr(wgread, "command", lambda *_, **__: iter(answers))
    found = read_device("wgk", {})
    assert found is not None
    assert found[:2] == (51820, 0xCA6C)
    assert list(found.peers.values()) == [
        Line(key("ann"), address("192.0.2.7:4500"), 1000, 7, 8, 25), Line(key("bob"), None, 1000, 7, 8, 25),
    ]  # fmt: skip


def test_a_dump_of_two_moments_is_an_error() -> None:
    whole = netlink.message(20, netlink.DUMP, b"")
    assert not netlink.interrupted(whole + whole)
    assert netlink.interrupted(whole + netlink.message(netlink.DONE, 0x10, bytes(4)))
