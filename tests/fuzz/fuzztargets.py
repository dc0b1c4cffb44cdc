"""What strangers, routers and peers of the mesh can have parsed: one function of bytes each, and what to begin with.

A function returns whether the bytes were read, or refused as they should be. Whatever it raises is a finding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import fuzzcore
import fuzzmessages

from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.log import Log
from meshctl.agent.node.loop import Counts, clock
from meshctl.agent.node.metrics import MetricsServer
from meshctl.agent.node.report import Report
from meshctl.core.agent import fields, relaybinds, signal
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agentcore import AgentCore
from meshctl.core.wire import demux, dns, httpmessage, igd, natpmp, pcp, soap, ssdp, stun
from meshctl.core.wire.error import WireError

_FIXTURES = Path(__file__).parents[1] / "wire" / "fixtures"
_GATEWAY = "192.168.1.1"
_NAME = "home.example.net"
_KINDS = (dns.A, dns.AAAA, dns.SRV)
_HEADER = signal.Header(signal.MessageType.HELLO, b"a source", b"receiver", b"session ", bytes(8), 1)
_KEY = b"the pair's"
_SOAP = (
    soap.decode_external_address, soap.decode_done, soap.decode_reserved_port, soap.decode_port_mapping,
    soap.decode_pinhole,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """`begin` is what the fuzzer starts from; it makes nothing longer than `max_bytes`."""

    run: Callable[[bytes], bool]
    begin: Callable[[], Iterable[bytes]]
    max_bytes: int = 4096


def _recorded(*patterns: str) -> Callable[[], Iterable[bytes]]:
    def read() -> Iterable[bytes]:
        for pattern in patterns:
            for path in sorted(_FIXTURES.glob(pattern)):
                raw = path.read_bytes()
                lines = raw.decode("latin-1").splitlines()
                is_hex = path.suffix == ".hex"
                yield bytes.fromhex("".join(line for line in lines if not line.startswith("#"))) if is_hex else raw

    return read


def _is_read(parse: Callable[[], object]) -> bool:
    """Whether it is not refused; these errors are how a parser refuses."""
    try:
        parse()
    except (WireError, signal.SignalError):
        return False
    return True


def _any_of(*parsers: Callable[[bytes], object]) -> Callable[[bytes], bool]:
    """All of them are tried; whether one reads it."""

    def run(data: bytes) -> bool:
        read = [_is_read(partial(parse, data)) for parse in parsers]
        return any(read)

    return run


def _stun(data: bytes) -> bool:
    """What is read is written, and read as the same again, unless it says what nobody of us writes."""
    demux.classify(data)
    try:
        received = stun.decode(data)
    except WireError:
        return False
    received.is_authentic(_KEY)
    try:
        again = stun.decode(stun.encode(received.message, _KEY))
    except WireError:
        return True
    if again.message != received.message:
        raise AssertionError(f"{received.message} became {again.message}")
    return True


def _dns(data: bytes) -> bool:
    number = int.from_bytes(data[:2], "big")
    return _any_of(*(partial(_answer, number, kind) for kind in _KINDS))(data)


def _answer(number: int, kind: int, data: bytes) -> object:
    return dns.decode_answer(data, number, _NAME, kind)


def _answers() -> Iterable[bytes]:
    name = b"".join(bytes([len(part)]) + part.encode() for part in _NAME.split(".")) + b"\0"
    records = {
        dns.A: b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1",
        dns.AAAA: b"\xc0\x0c\0\x1c\0\1\0\0\0\x3c\0\x10 \1\r\xb8" + bytes(12),
        dns.SRV: b"\xc0\x0c\0\x21\0\1\0\0\0\x3c\0\x08\0\1\0\1\x11\x5c\xc0\x0c",
    }
    for kind, record in records.items():
        yield b"\0\1\x81\x80\0\1\0\1\0\0\0\0" + name + kind.to_bytes(2, "big") + b"\0\1" + record
    yield b"\0\1\x81\x80\0\1\0\2\0\0\0\0" + name + b"\0\1\0\1" + b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\2\xc0\x11" + records[1]


def _soap(data: bytes) -> bool:
    """Whether one has a value: that something is done, or is not, a status says by itself."""
    values: list[object] = []
    for decode in _SOAP:
        for status in (200, 500):
            with suppress(WireError):
                values.append(decode(httpmessage.HttpResponse(status, data)))
    return any(value is not None and not isinstance(value, soap.Fault) for value in values)


def _bodies() -> Iterable[bytes]:
    return (httpmessage.decode_response(raw).body for raw in _recorded("routers/*.http")())


def _fields(data: bytes) -> bool:
    """What a peer with valid keys says: the type of the message, and its fields."""
    return _is_read(lambda: fields.read(fuzzmessages.kind(data[0] if data else 0), data[1:]))


def _written() -> Iterable[bytes]:
    return (bytes((fuzzmessages.number(body),)) + fields.write(body) for body in fuzzmessages.BODIES)


def _signal(data: bytes) -> bool:
    """Whole messages, and such as have the tag that belongs to them, which nobody finds by trying. What is read of
    these is written, and read as the same again."""
    _any_of(signal.peek, lambda raw: signal.decode(raw, _KEY))(data)
    try:
        message = signal.decode(data + signal.tag(data, _KEY), _KEY)
    except signal.SignalError:
        return False
    again = signal.decode(signal.encode(message.header, message.body, _KEY), _KEY)
    if again != message:
        raise AssertionError(f"{message} became {again}")
    return True


def _bind(data: bytes) -> bool:
    _name, session = relaybinds.read_bind(data.decode("latin-1"))
    return session != b""


def _metrics() -> Callable[[bytes], bool]:
    config = AgentConfig("me", ())
    report = Report(AgentCore(config, random.Random(1), 0.0), Decisions(config, Log(clock)), Counts(), lambda: [], 0.0)  # noqa: S311
    server = MetricsServer(AgentDocument(config), 0, report)

    def run(data: bytes) -> bool:
        answer = server._answer(data, 1.0)
        return answer is not None and answer[0].startswith(b"HTTP/1.0 200 ")

    return run


TARGETS = {
    "stun": Target(_stun, _recorded("stun/*.hex"), 1500),
    "dns": Target(_dns, _answers),
    "pcp": Target(_any_of(pcp.decode), _recorded("gateway/*pcp*.hex"), 1100),
    "natpmp": Target(_any_of(natpmp.decode), _recorded("gateway/*natpmp*.hex", "gateway/apple*.hex"), 64),
    "ssdp": Target(
        _any_of(lambda raw: ssdp.decode_reply(raw, _GATEWAY), ssdp.decode_announcement),
        _recorded("routers/*.ssdp", "routers/*.notify"),
    ),
    "http": Target(_any_of(httpmessage.decode_response, httpmessage.parse_notify), _recorded("routers/*.http")),
    "url": Target(_any_of(
        lambda raw: httpmessage.parse_url(raw.decode("latin-1"), _GATEWAY),
        lambda raw: httpmessage.host_of(raw.decode("latin-1")),
    ), lambda: (b"http://192.168.1.1:5000/rootDesc.xml", b"http://[fe80::1]:80/"), 600),
    "igd": Target(
        _any_of(lambda raw: igd.decode_description(raw, httpmessage.parse_url(f"http://{_GATEWAY}/d", _GATEWAY))),
        _recorded("routers/*.xml"), 16384,
    ),
    "soap": Target(_soap, _bodies),
    "signal": Target(_signal, lambda: fuzzmessages.messages(_HEADER), 1300),
    "fields": Target(_fields, _written, 1300),
    "bind": Target(_bind, lambda: (b"0011:2233",), 600),
    "metrics": Target(_metrics(), lambda: (b"GET /metrics HTTP/1.0\r\n\r\n",), 600),
    "core": Target(fuzzcore.run, fuzzcore.begin),
}  # fmt: skip
