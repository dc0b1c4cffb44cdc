"""What strangers and mesh peers reach before anything is authentic: raw sockets' packets, the metrics' port. Hunted: an
exception, which would end the agent, and an event or an answer that what came does not deserve."""

from __future__ import annotations

import random
import secrets
import socket
import struct
from collections.abc import Iterator

import pytest
from agentnode_space import Space, document, peer
from effort import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshctl.agent.node import rawudp
from meshctl.agent.node.clients import MAX_REQUEST_BYTES
from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.log import Log
from meshctl.agent.node.loop import Counts, clock
from meshctl.agent.node.metrics import MetricsServer
from meshctl.agent.node.rawudp import MAX_BYTES, RawUdp
from meshctl.agent.node.report import Report
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Datagram, RelayDatagram
from meshctl.core.agentcore import AgentCore
from meshctl.core.wire import stun

PORT, RELAY_PORT = 51820, 40007
COOKIE = stun.MAGIC_COOKIE


@pytest.fixture(scope="module", name="raw")
def _raw(place: Space) -> Iterator[RawUdp]:
    """An anchor's."""
    raw = place.inside(lambda: RawUdp(document(peer("ann", 2), is_anchor=True), {}))
    yield raw
    raw.close()


def as_stun(body: bytes) -> bytes:
    """What the filter lets through, and `classify` perhaps."""
    return b"\x00\x01" + len(body).to_bytes(2, "big") + COOKIE + bytes(12) + body


contents = st.binary(max_size=64) | st.binary(max_size=64).map(as_stun) | st.sampled_from([
    as_stun(bytes(size)) for size in (0, 4, MAX_BYTES - stun.HEADER_BYTES, MAX_BYTES)
])  # fmt: skip
ports = st.sampled_from([0, 1, PORT, RELAY_PORT, 65535])


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    """A UDP header that may lie, and what follows."""
    content = draw(contents)
    length = draw(st.just(8 + len(content)) | st.integers(0, 65535) | st.integers(0, 40))
    header = struct.pack("!HHHH", draw(ports), draw(ports), length, 0)
    return (header + content)[: draw(st.just(1 << 16) | st.integers(0, 40))]


def packed4(index: int, ip: bytes) -> tuple[int, int, bytes]:
    return socket.IPPROTO_IP, rawudp.IP_PKTINFO, struct.pack("I4s4s", index, ip, ip)


def packed6(index: int, ip: bytes) -> tuple[int, int, bytes]:
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("16sI", ip, index)


indexes = st.integers(0, 2**31 - 1) | st.just(1)
ancillary = {
    4: st.lists(st.builds(packed4, indexes, st.binary(min_size=4, max_size=4)), max_size=2),
    6: st.lists(st.builds(packed6, indexes, st.binary(min_size=16, max_size=16)), max_size=2),
}
sources = {
    4: st.binary(min_size=4, max_size=4).map(socket.inet_ntoa),
    6: st.binary(min_size=16, max_size=16).map(lambda ip: socket.inet_ntop(socket.AF_INET6, ip))
    | st.sampled_from(["fe80::1%eth0", "::ffff:192.0.2.1", "::"]),
}


@pytest.mark.lab
@pytest.mark.parametrize("family", [4, 6])
@settings(max_examples=examples(500), deadline=None)
@given(data=st.data())
def test_a_packet_of_any_form_is_an_event_as_it_says_or_none(raw: RawUdp, family: int, data: st.DataObject) -> None:
    udp = data.draw(datagrams())
    packet = udp
    if family == 4:  # the kernel delivers no packet without a whole header, and what that says of options is true
        options = 4 * data.draw(st.integers(0, 10))
        packet = bytes([0x40 | (20 + options) // 4]) + bytes(19 + options) + udp
    source = data.draw(sources[family])
    event = raw._event(family, packet, data.draw(ancillary[family]), source)
    if event is None:
        return
    assert isinstance(event, (Datagram, RelayDatagram))
    length = int.from_bytes(udp[4:6], "big")
    assert event.data == udp[8:length]
    assert event.data[4:8] == COOKIE
    assert stun.HEADER_BYTES <= len(event.data) <= MAX_BYTES
    assert event.remote.port == int.from_bytes(udp[:2], "big")
    port = event.port if isinstance(event, RelayDatagram) else event.local.port
    assert port == int.from_bytes(udp[2:4], "big")
    assert isinstance(event, RelayDatagram) == (port == RELAY_PORT)
    assert "%" not in source


@pytest.mark.lab
@pytest.mark.parametrize("family", [4, 6])
def test_what_the_kernel_brings_of_lying_packets_is_read_too(place: Space, raw: RawUdp, family: int) -> None:
    """Sent by a raw socket, which writes whatever UDP header it likes."""
    dice = random.Random(seed := secrets.randbits(32))  # noqa: S311 - to be repeated
    kinds = {4: (socket.AF_INET, "127.0.0.1"), 6: (socket.AF_INET6, "::1")}
    sender = place.inside(lambda: socket.socket(kinds[family][0], socket.SOCK_RAW, socket.IPPROTO_UDP))
    events = 0
    with sender:
        for _ in range(examples(300)):
            content = as_stun(dice.randbytes(dice.choice([0, 0, 1, 4, 1200, 1261, 5000])))
            content = content[: dice.choice([len(content), len(content), dice.randrange(len(content) + 1)])]
            length = dice.choice([8 + len(content), dice.randrange(65536), dice.randrange(16)])
            port = dice.choice([PORT, RELAY_PORT])
            sender.sendto(struct.pack("!HHHH", dice.randrange(65536), port, length, 0) + content, (kinds[family][1], 0))
            for sock, read in raw.sockets():
                del sock
                events += len(read(0.0))
    assert events or family == 6, f"seed {seed}"  # over IPv6 a checksum of 0 is wrong, and the kernel drops it


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[MetricsServer]:
    config = AgentConfig("me", ())
    report = Report(AgentCore(config, random.Random(1), 0.0), Decisions(config, Log(clock)), Counts(), lambda: [], 0.0)  # noqa: S311
    server = MetricsServer(AgentDocument(config), 0, report)
    yield server
    server.close()


words = st.sampled_from([b"GET", b"POST", b" ", b"/metrics", b"/", b"?", b"\r\n", b"\n", b"\n\n", b"\r", b"HTTP/1.1"])
requests = st.lists(words | st.binary(max_size=8), max_size=12).map(b"".join) | st.binary(max_size=MAX_REQUEST_BYTES)


@settings(max_examples=examples(500), deadline=None)
@given(said=requests)
@example(said=b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
@example(said=b"GET /metrics\n\n")
@example(said=b"\n\n")
@example(said=b"\r\n\r\n")
def test_a_request_of_any_form_is_answered_by_http_or_waited_for(server: MetricsServer, said: bytes) -> None:
    answer = server._answer(said, 1.0)
    lines = said.replace(b"\r\n", b"\n")
    assert (answer is None) == (b"\n\n" not in lines)
    if answer is not None:
        head, _, body = answer[0].partition(b"\r\n\r\n")
        status = head.split(b" ")[1]
        assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
        first = lines.partition(b"\n")[0].split(b" ")
        wanted = len(first) > 1 and first[0] == b"GET" and first[1].partition(b"?")[0] == b"/metrics"
        assert (status == b"200") == wanted
        assert answer[1] == [], "nothing that is asked by HTTP reaches the core"
