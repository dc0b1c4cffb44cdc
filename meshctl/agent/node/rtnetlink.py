"""The kernel's addresses, links and default routes, from rtnetlink's bytes (linux/rtnetlink.h, linux/netlink.h).

Each dump is a run of messages; `parse_*` take the bodies of messages of one type, so that bytes that were once seen can
be tried again. Numbers are in the host's order.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from meshctl.agent.node import netlink
from meshctl.agent.node.netlink import attributes, messages

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 18, 22, 26
# Of what is told unasked, all but routes concerns the agent, and of routes the default ones.
ROUTE_CHANGES = (24, 25)  # RTM_NEWROUTE, RTM_DELROUTE
# Groups of changes to subscribe to: links, addresses and routes of both families.
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400

_WORD = struct.Struct("=I")
_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 2.0
# A dump during which something changed is asked for again, so often: where something always does, the last one is as
# good as any, and each change that concerns the agent is told besides.
_ATTEMPTS = 3

_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, index, flags, change
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFLA_IFNAME = 3
_RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 4, 5, 9, 15, 18
_RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index
_TABLE_MAIN, _RTN_UNICAST = 254, 1
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
# Addresses that must not be used: a duplicate, one that is still being tried, one whose time is up.
_UNUSABLE = 0x08 | 0x20 | 0x40  # IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE


class Link(NamedTuple):
    """A network device. `up`: somebody switched it on and it has a carrier."""

    device: int
    name: str
    up: bool


class Held(NamedTuple):
    """An address of the host that may be used."""

    device: int
    ip: str
    prefix_length: int


class Gateway(NamedTuple):
    """A default route's next hop."""

    device: int
    ip: str


def parse_links(bodies: Iterable[bytes]) -> Iterator[Link]:
    """Of RTM_NEWLINK messages."""
    for body in bodies:
        if len(body) >= _IFINFOMSG.size:
            _family, _kind, index, flags, _change = _IFINFOMSG.unpack_from(body)
            name = dict(attributes(body[_IFINFOMSG.size :])).get(_IFLA_IFNAME, b"").rstrip(b"\0")
            up = flags & (_IFF_UP | _IFF_LOWER_UP) == _IFF_UP | _IFF_LOWER_UP
            yield Link(index, name.decode(errors="replace"), up)


def parse_addresses(bodies: Iterable[bytes]) -> Iterator[Held]:
    """Of RTM_NEWADDR messages, those that may be used."""
    for body in bodies:
        if len(body) < _IFADDRMSG.size:
            continue
        family, length, flags, _scope, index = _IFADDRMSG.unpack_from(body)
        found = dict(attributes(body[_IFADDRMSG.size :]))
        flags = _word(found.get(_IFA_FLAGS)) or flags
        # On a point-to-point link IFA_ADDRESS is the other end's.
        ip = _ip(family, found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS))
        if ip and not flags & _UNUSABLE:
            yield Held(index, ip, length)


def parse_gateways(bodies: Iterable[bytes]) -> Iterator[Gateway]:
    """Of RTM_NEWROUTE messages: the next hops of default routes of the main table."""
    for body in bodies:
        if is_default_route(body):
            family = body[0]
            found = dict(attributes(body[_RTMSG.size :]))
            yield from _hops(family, _word(found.get(_RTA_OIF)), found)
            yield from _multipath(family, found.get(_RTA_MULTIPATH, b""))


def is_default_route(body: bytes) -> bool:
    """Whether the message is about one; looks at its first bytes alone, for a router may have a million others."""
    if len(body) < _RTMSG.size:
        return False
    _family, length, _src, _tos, table, _protocol, _scope, kind, _flags = _RTMSG.unpack_from(body)
    return bool(length == 0 and kind == _RTN_UNICAST and table == _TABLE_MAIN)


def _multipath(family: int, data: bytes) -> Iterator[Gateway]:
    while len(data) >= _RTNEXTHOP.size:
        length, _flags, _count, index = _RTNEXTHOP.unpack_from(data)
        if not _RTNEXTHOP.size <= length <= len(data):
            return
        yield from _hops(family, index, dict(attributes(data[_RTNEXTHOP.size : length])))
        data = data[-(-length // 4) * 4 :]


def _hops(family: int, index: int, found: dict[int, bytes]) -> Iterator[Gateway]:
    via = found.get(_RTA_VIA, b"")  # an IPv4 route by an IPv6 router (RFC 5549): family, then the address
    for ip in (_ip(family, found.get(_RTA_GATEWAY)), _ip(_half(via), via[2:]) if via else ""):
        if ip:
            yield Gateway(index, ip)


def _ip(family: int, raw: bytes | None) -> str:
    if raw is None or (family, len(raw)) not in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        return ""
    return socket.inet_ntop(family, raw)


def _word(raw: bytes | None) -> int:
    return int(_WORD.unpack(raw)[0]) if raw is not None and len(raw) == _WORD.size else 0


def _half(raw: bytes) -> int:
    return int(struct.unpack_from("=H", raw)[0]) if len(raw) >= 2 else 0


def dump(kind: int, wanted: Callable[[bytes], bool] = lambda _: True) -> list[bytes]:
    """The bodies of all links (RTM_GETLINK), addresses or routes that there are now, if `wanted`. Raises OSError."""
    for _ in range(_ATTEMPTS):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.send(netlink.message(kind, netlink.DUMP, _IFINFOMSG.pack(0, 0, 0, 0, 0)))
            bodies, interrupted = _replies(sock, wanted)
        if not interrupted:
            break
    return bodies


def _replies(sock: socket.socket, wanted: Callable[[bytes], bool]) -> tuple[list[bytes], bool]:
    """A dump's bodies, and whether it is of two moments."""
    bodies: list[bytes] = []
    interrupted = False
    while True:
        data = sock.recv(_RECEIVE_BYTES)
        interrupted = interrupted or netlink.interrupted(data)
        for kind, body in messages(data):
            if kind == netlink.DONE:
                return bodies, interrupted
            if kind == netlink.ERROR:
                raise netlink.failure(body)
            if wanted(body):
                bodies.append(body)


def subscribe() -> socket.socket:
    """A socket that becomes readable at each change. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    sock.bind((0, GROUPS))
    return sock
