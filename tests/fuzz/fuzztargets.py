"""What strangers, routers and peers of the mesh can have parsed: one function of bytes each, and what to begin with.

A function returns when the bytes were read or refused as they should be. Anything else that it raises is a finding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import fuzzcore

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
_SOAP = (
    soap.decode_external_address, soap.decode_done, soap.decode_reserved_port, soap.decode_port_mapping,
    soap.decode_pinhole,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """`begin` is what the fuzzer starts from; it makes nothing longer than `max_bytes`."""

    run: Callable[[bytes], object]
    begin: Callable[[], Iterable[bytes]] = tuple
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


def _refusing(*parsers: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """All of them; WireError is how each refuses."""

    def run(data: bytes) -> None:
        for parse in parsers:
            with suppress(WireError):
                parse(data)

    return run


def _stun(data: bytes) -> None:
    """What is read is written, and read as the same again, unless it says what nobody of us writes."""
    demux.classify(data)
    with suppress(WireError):
        received = stun.decode(data)
        received.is_authentic(b"key")
        again = stun.decode(stun.encode(received.message, b"key"))
        if again.message != received.message:
            raise AssertionError(f"{received.message} became {again.message}")


def _dns(data: bytes) -> None:
    number = int.from_bytes(data[:2], "big")
    for kind in _KINDS:
        with suppress(WireError):
            dns.decode_answer(data, number, _NAME, kind)


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


def _soap(data: bytes) -> None:
    for decode in _SOAP:
        for status in (200, 500):
            with suppress(WireError):
                decode(httpmessage.HttpResponse(status, data))


def _bodies() -> Iterable[bytes]:
    for raw in _recorded("routers/*.http")():
        with suppress(WireError):
            yield httpmessage.decode_response(raw).body


def _fields(data: bytes) -> None:
    """What a peer with valid keys says: the type of the message, and its fields."""
    kinds = tuple(signal.MessageType)
    with suppress(signal.SignalError):
        fields.read(kinds[data[0] % len(kinds)] if data else kinds[0], data[1:])


def _signal(data: bytes) -> None:
    with suppress(signal.SignalError):
        signal.peek(data)
    with suppress(signal.SignalError):
        signal.decode(data, b"key")


def _metrics() -> Callable[[bytes], object]:
    config = AgentConfig("me", ())
    report = Report(AgentCore(config, random.Random(1), 0.0), Decisions(config, Log(clock)), Counts(), lambda: [], 0.0)  # noqa: S311
    server = MetricsServer(AgentDocument(config), 0, report)
    return lambda data: server._answer(data, 1.0)


TARGETS = {
    "stun": Target(_stun, _recorded("stun/*.hex"), 1500),
    "dns": Target(_dns, _answers),
    "pcp": Target(_refusing(pcp.decode), _recorded("gateway/*pcp*.hex"), 1100),
    "natpmp": Target(_refusing(natpmp.decode), _recorded("gateway/*natpmp*.hex", "gateway/apple*.hex"), 64),
    "ssdp": Target(
        _refusing(lambda raw: ssdp.decode_reply(raw, _GATEWAY), ssdp.decode_announcement),
        _recorded("routers/*.ssdp", "routers/*.notify"),
    ),
    "http": Target(_refusing(httpmessage.decode_response, httpmessage.parse_notify), _recorded("routers/*.http")),
    "url": Target(_refusing(
        lambda raw: httpmessage.parse_url(raw.decode("latin-1"), _GATEWAY),
        lambda raw: httpmessage.host_of(raw.decode("latin-1")),
    ), lambda: (b"http://192.168.1.1:5000/rootDesc.xml", b"http://[fe80::1]:80/"), 600),
    "igd": Target(
        _refusing(lambda raw: igd.decode_description(raw, httpmessage.parse_url(f"http://{_GATEWAY}/d", _GATEWAY))),
        _recorded("routers/*.xml"), 16384,
    ),
    "soap": Target(_soap, _bodies),
    "signal": Target(_signal, max_bytes=1300),
    "fields": Target(_fields, max_bytes=1300),
    "bind": Target(lambda raw: relaybinds.read_bind(raw.decode("latin-1")), lambda: (b"0011:2233",), 600),
    "metrics": Target(_metrics(), lambda: (b"GET /metrics HTTP/1.0\r\n\r\n",), 600),
    "core": Target(fuzzcore.run, fuzzcore.begin),
}  # fmt: skip
