"""Raw sockets and their filter, with real packets in a network namespace.

What must not come through is sent before something that must: when that has come, the rest has been turned away.
"""

from __future__ import annotations

import random
import secrets
import select
import socket
import struct
from collections.abc import Iterator

import pytest
from agentnode_space import Space, document, key, peer, space

from meshctl.agent.node import bpf
from meshctl.agent.node.rawudp import MAX_BYTES, RawUdp
from meshctl.core.agent.address import Address
from meshctl.core.agent.events import Datagram, Event, OpenPorts, RelayDatagram, SendProbe
from meshctl.core.wire import stun

pytestmark = pytest.mark.lab

TWO = {4: ("127.0.0.1", "192.0.2.1"), 6: ("::1", "2001:db8::1")}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture(scope="module", name="place")
def _place() -> Iterator[Space]:
    with space() as made:
        for addresses in TWO.values():
            made.run("ip", "addr", "add", addresses[1], "dev", "lo")
        yield made


@pytest.fixture(name="raw")
def _raw(place: Space) -> Iterator[RawUdp]:
    raw = place.inside(lambda: RawUdp(document(peer("ann", 2)), {}))
    yield raw
    raw.close()


def question(size: int = 0) -> bytes:
    """A Binding request, filled up to that size."""
    plain = stun.encode(stun.Message(stun.Class.REQUEST, secrets.token_bytes(12)))
    if not size:
        return plain
    filler = b"\x80\xff" + (size - len(plain) - 4).to_bytes(2, "big")  # an attribute that may be passed over
    grown = plain + filler + bytes(size - len(plain) - 4)
    return grown[:2] + (size - stun.HEADER_BYTES).to_bytes(2, "big") + grown[4:]


def udp(place: Space, ip: str, port: int = 0) -> socket.socket:
    """A UDP socket there."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((ip, port))
        sock.settimeout(5)
        return sock

    return place.inside(make)


def came(raw: RawUdp, last: bytes) -> list[Event]:
    """All events up to that message."""
    found: list[Event] = []
    while not any(getattr(event, "data", b"") == last for event in found):
        sockets = dict(raw.sockets())
        ready, _, _ = select.select(list(sockets), [], [], 5)
        assert ready, "it did not come"
        found += [event for sock in ready for event in sockets[sock](0.0)]
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_the_filter_passes_stun_to_the_wanted_ports_and_nothing_else(place: Space, family: int) -> None:
    dice = random.Random(family)  # noqa: S311
    ports = sorted({51820, *dice.sample(range(1024, 65000), 256), *range(40000, 40010)})
    code = bpf.program(family, bpf.ranges(ports))

    def make() -> socket.socket:
        sock = socket.socket(FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_UDP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        bpf.attach(sock, code)
        sock.settimeout(5)
        return sock

    ip, last = TWO[family][0], question()
    near = sorted({p + step for p in ports for step in (-1, 0, 1)})
    with place.inside(make) as raw, udp(place, ip) as sender:
        for port in near:
            sender.sendto(question(), (ip, port))
            sender.sendto(b"\x01" + bytes(3) + question()[5:], (ip, port))
        for size in range(8):
            sender.sendto(question()[:size], (ip, 51820))
        sender.sendto(last, (ip, 51820))
        headers = 28 if family == 4 else 8
        got = []
        while not got or got[-1][headers:] != last:
            got.append(raw.recv(2000))
    passed = [int.from_bytes(packet[headers - 6 : headers - 4], "big") for packet in got[:-1]]
    assert passed == ports
    assert all(packet[headers + 4 : headers + 8] == stun.MAGIC_COOKIE for packet in got)


def test_the_filter_finds_the_ports_behind_options_of_the_ip_header(place: Space, raw: RawUdp) -> None:
    with udp(place, "127.0.0.1") as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 8)
        sender.sendto(last := question(), ("127.0.0.1", 51820))
        assert [event.data for event in came(raw, last) if isinstance(event, Datagram)] == [last]


def test_too_many_ranges_are_refused_before_the_kernel_does() -> None:
    with pytest.raises(ValueError, match="too many"):
        bpf.program(4, [(port, port) for port in range(1, 6000, 2)])


@pytest.mark.parametrize("family", [4, 6])
def test_a_message_comes_with_the_address_that_it_was_sent_to(place: Space, raw: RawUdp, family: int) -> None:
    for ip in TWO[family]:
        with udp(place, ip) as sender:
            sender.sendto(last := question(), (ip, 51820))
            local, remote = Address(ip, 51820), Address(ip, sender.getsockname()[1])
            assert came(raw, last) == [Datagram(local, remote, last)]


@pytest.mark.parametrize("family", [4, 6])
def test_a_probe_leaves_from_the_port_and_address_that_it_names(place: Space, raw: RawUdp, family: int) -> None:
    near, other = TWO[family]
    with udp(place, near, 51820), udp(place, near) as receiver:
        to = Address(near, receiver.getsockname()[1])
        for source in (near, other):
            raw.do(SendProbe(Address(source, 51820), to, question()))
            assert receiver.recvfrom(2000)[1][:2] == (source, 51820)
        raw.do(SendProbe(Address("", 40001), to, asked := question()))
        assert receiver.recvfrom(2000) == (asked, (near, 40001, *(() if family == 4 else (0, 0))))


def test_what_is_too_long_or_no_stun_does_not_reach_the_core(place: Space, raw: RawUdp) -> None:
    longest = question(MAX_BYTES)
    with udp(place, "127.0.0.1") as sender:
        for data in (question(MAX_BYTES + 4), question()[:-1], question() + b"\0", b"\x80" + question()[1:], longest):
            sender.sendto(data, ("127.0.0.1", 51820))
        assert [event.data for event in came(raw, longest) if isinstance(event, Datagram)] == [longest]


@pytest.mark.parametrize("family", [4, 6])
def test_a_length_that_lies_does_not_reach_the_core(place: Space, raw: RawUdp, family: int) -> None:
    """The raw socket gets a packet before anybody has looked at its UDP header."""

    def make() -> socket.socket:
        sock = socket.socket(FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_UDP)
        bpf.attach(sock, [(6, 0, 0, 0)])  # hears nothing
        return sock

    ip, asked, last = TWO[family][0], question(), question()
    true = 8 + len(asked)
    with place.inside(make) as sender, udp(place, ip) as honest:
        for length in (0, 7, 8, true - 1, true + 1, 0xFFFF):
            sender.sendto(struct.pack("!HHHH", 9, 51820, length, 0) + asked, (ip, 0))
        honest.sendto(last, (ip, 51820))
        assert [event.data for event in came(raw, last) if isinstance(event, Datagram)] == [last]


def test_ports_of_a_splice_are_open_until_they_are_closed(place: Space, raw: RawUdp) -> None:
    def heard() -> list[int]:
        with udp(place, "127.0.0.1") as sender:
            for port in (20000, 20001, 20002):
                sender.sendto(question(), ("127.0.0.1", port))
            sender.sendto(last := question(), ("127.0.0.1", 51820))
            return [event.local.port for event in came(raw, last) if isinstance(event, Datagram)]

    assert heard() == [51820]
    raw.do(OpenPorts(key("ann"), (20000, 20002)))
    assert heard() == [20000, 20002, 51820]
    raw.configure(document(peer("ann", 2), keepalive_s=30), 0.0)
    assert heard() == [20000, 20002, 51820]
    raw.do(OpenPorts(key("ann"), ()))
    assert heard() == [51820]


def test_ports_that_were_opened_for_a_peer_close_when_it_is_no_peer_any_more(place: Space, raw: RawUdp) -> None:
    raw.do(OpenPorts(key("ann"), (20000,)))
    raw.configure(document(), 0.0)
    with udp(place, "127.0.0.1") as sender:
        sender.sendto(question(), ("127.0.0.1", 20000))
        sender.sendto(last := question(), ("127.0.0.1", 51820))
        assert len(came(raw, last)) == 1


def test_only_an_anchor_hears_its_relay_ports(place: Space, raw: RawUdp) -> None:
    with udp(place, "127.0.0.1") as sender:
        sender.sendto(question(), ("127.0.0.1", 40000))
        sender.sendto(last := question(), ("127.0.0.1", 51820))
        assert len(came(raw, last)) == 1
        raw.configure(document(is_anchor=True), 0.0)
        sender.sendto(bind := question(), ("127.0.0.1", 49999))
        remote = Address("127.0.0.1", sender.getsockname()[1])
        assert came(raw, bind) == [RelayDatagram(49999, remote, bind)]


def test_probes_carry_the_mark_of_their_interface(place: Space) -> None:
    place.run("nft", "-f", "-", text="""
        table inet marks {
          chain out { type filter hook output priority 0; udp sport { 51820, 20000 } meta mark != 0xca6c drop
            udp sport 51821 meta mark != 0 drop
          }
        }""")  # fmt: skip
    marks: dict[int, int] = {}
    raw = place.inside(lambda: RawUdp(document(peer("ann", 2)), marks))
    marks.update({51820: 0xCA6C, 51821: 0})
    try:
        raw.do(OpenPorts(key("ann"), (20000,)))
        with udp(place, "127.0.0.1") as receiver:
            for port in (51820, 51821, 20000):
                raw.do(SendProbe(Address("127.0.0.1", port), Address(*receiver.getsockname()), question()))
                assert receiver.recvfrom(2000)[1][1] == port
    finally:
        raw.close()
        place.run("nft", "delete", "table", "inet", "marks")


def test_what_comes_out_of_a_tunnel_is_no_probe(place: Space) -> None:
    raw = place.inside(lambda: RawUdp(document(interface="lo"), {}))
    try:
        with udp(place, "127.0.0.1") as sender:
            sender.sendto(question(), ("127.0.0.1", 51820))
            (sock, read) = next(iter(raw.sockets()))
            assert select.select([sock], [], [], 5)[0]
            assert read(0.0) == []
    finally:
        raw.close()
