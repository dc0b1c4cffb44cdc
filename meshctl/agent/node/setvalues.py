"""Keys and values of nftables' sets, as the kernel has them in its registers."""

from __future__ import annotations

import ipaddress
import socket
from typing import Union

from meshctl.agent.node.netlink import attributes

Field = Union[str, int]  # an address or a port
_BYTES = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_service": 2}


def packed(types: tuple[str, ...], fields: tuple[Field, ...]) -> bytes:
    """Fields in network order, each padded to four bytes unless it is alone."""
    raw = []
    for kind, field in zip(types, fields):
        if isinstance(field, int):
            raw.append(field.to_bytes(_BYTES[kind], "big"))
        else:
            raw.append(socket.inet_pton(socket.AF_INET if kind == "ipv4_addr" else socket.AF_INET6, field))
    return raw[0] if len(raw) == 1 else b"".join(one + bytes(-len(one) % 4) for one in raw)


def unpacked(types: tuple[str, ...], raw: bytes) -> tuple[Field, ...]:
    """The other way round, addresses in canonical text. Raises ValueError when that is not what was packed."""
    fields: list[Field] = []
    at = 0
    for kind in types:
        part = raw[at : at + _BYTES[kind]]
        at += _BYTES[kind] + -_BYTES[kind] % 4
        if len(part) != _BYTES[kind]:
            raise ValueError("a field is cut short")
        if kind == "inet_service":
            fields.append(int.from_bytes(part, "big"))
        elif kind == "ipv4_addr":
            fields.append(socket.inet_ntop(socket.AF_INET, part))
        else:  # inet_ntop(3) has another text for some: `::1.2.3.4`
            fields.append(str(ipaddress.IPv6Address(part)))
    return tuple(fields)


def value(raw: bytes) -> bytes:
    """What is in an attribute of data."""
    return dict(attributes(raw)).get(1, b"")
