"""As much of nfnetlink as the agent needs: elements of nftables' sets, and connections that conntrack is to forget.

nft(8) would do it too, in ten milliseconds a call, which hundreds of relays do not have when an anchor starts; this
takes a tenth of one. The formats are those of linux/netfilter/nfnetlink.h, nf_tables.h and nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator

from meshctl.agent.node import netlink
from meshctl.agent.node.netlink import attribute, attributes, messages, nested

NETLINK_NETFILTER = 12
NFPROTO_INET = 1
NFTABLES, CONNTRACK = 10, 1
MSG_GETTABLE = 1
MSG_NEWSETELEM, MSG_GETSETELEM, MSG_DELSETELEM = 12, 13, 14
CT_DELETE = 2
GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES: what has become of the ruleset

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFGEN = struct.Struct("!BBH")
_ROOM = 1 << 16
# The kernel answers while it takes the request; this is for when it does not at all.
_TIMEOUT_S = 5.0


def attributes_of(payload: bytes) -> dict[int, bytes]:
    """The attributes of a message of nfnetlink, which follow its own header."""
    return dict(attributes(payload[_NFGEN.size :]))


class Nfnetlink:
    """A connection to this network namespace's netfilter, made when it is first used: not every kernel has one. Every
    call raises OSError with the kernel's errno."""

    def __init__(self) -> None:
        self._opened: socket.socket | None = None
        self._number = 0

    @property
    def _socket(self) -> socket.socket:
        if self._opened is None:
            self._opened = netfilter_socket()
            self._opened.settimeout(_TIMEOUT_S)
        return self._opened

    def close(self) -> None:
        """Not to be used any more."""
        if self._opened is not None:
            self._opened.close()

    def change_elements(self, table: str, changes: Iterable[tuple[int, str, bytes]]) -> None:
        """All or none: `MSG_NEWSETELEM` or `MSG_DELSETELEM`, the set, and one `element`, of a table of family inet."""
        parts = [self._message(_BATCH_BEGIN, socket.AF_UNSPEC, b"", resource=NFTABLES)]
        for kind, name, body in changes:
            flags = netlink.CREATE if kind == MSG_NEWSETELEM else 0
            body = attribute(1, _text(table)) + attribute(2, _text(name)) + nested(3, body)
            parts.append(self._message(NFTABLES << 8 | kind, NFPROTO_INET, body, flags | netlink.ACK))
        parts.append(self._message(_BATCH_END, socket.AF_UNSPEC, b"", resource=NFTABLES))
        self._socket.send(b"".join(parts))
        self._acknowledged(len(parts) - 2)

    def elements(self, table: str, name: str) -> Iterator[dict[int, bytes]]:
        """The attributes of every element of a set."""
        body = attribute(1, _text(table)) + attribute(2, _text(name))
        self._socket.send(self._message(NFTABLES << 8 | MSG_GETSETELEM, NFPROTO_INET, body, netlink.DUMP))
        for payload in self._dump():
            for _, one in attributes(attributes_of(payload).get(3, b"")):
                yield dict(attributes(one))

    def has_table(self, table: str) -> bool:
        """Whether there is one of family inet."""
        body = attribute(1, _text(table))
        self._socket.send(self._message(NFTABLES << 8 | MSG_GETTABLE, NFPROTO_INET, body, netlink.ACK))
        try:
            self._acknowledged(1)
        except FileNotFoundError:
            return False
        return True

    def forget_connection(self, source: tuple[str, int], destination: tuple[str, int]) -> None:
        """Conntrack forgets the UDP connection of which a packet from there to there would be; if there is one."""
        family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
        kinds = (3, 4) if family == socket.AF_INET6 else (1, 2)
        ips = [attribute(k, socket.inet_pton(family, ip)) for k, (ip, _) in zip(kinds, (source, destination))]
        ports = [attribute(k, port.to_bytes(2, "big")) for k, (_, port) in zip((2, 3), (source, destination))]
        place = nested(2, attribute(1, bytes([socket.IPPROTO_UDP])), *ports)
        body = nested(1, nested(1, *ips), place)
        self._socket.send(self._message(CONNTRACK << 8 | CT_DELETE, family, body, netlink.ACK))
        try:
            self._acknowledged(1)
        except FileNotFoundError:
            return

    # Inside

    def _message(self, kind: int, family: int, body: bytes, flags: int = 0, resource: int = 0) -> bytes:
        self._number += 1
        return netlink.message(kind, flags, _NFGEN.pack(family, 0, resource) + body, self._number)

    def _acknowledged(self, wanted: int) -> None:
        """Wait for so many acknowledgements, and raise the first error among them."""
        failures = []
        while wanted > 0:
            for kind, payload in messages(self._socket.recv(_ROOM)):
                if kind == netlink.ERROR:
                    wanted -= 1
                    failures.append(netlink.failure(payload))
        for failure in failures:
            if failure.errno:
                raise failure

    def _dump(self) -> Iterator[bytes]:
        while True:
            for kind, payload in messages(self._socket.recv(_ROOM)):
                if kind == netlink.ERROR:
                    raise netlink.failure(payload)
                if kind == netlink.DONE:
                    return
                yield payload


def netfilter_socket(groups: int = 0) -> socket.socket:
    """One that hears of what these groups are told. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def element(key: bytes, value: bytes = b"") -> bytes:
    """One element of a set, or of a map with its value."""
    data = nested(2, attribute(1, value)) if value else b""
    return nested(1, nested(1, attribute(1, key)), data)


def _text(text: str) -> bytes:
    return text.encode("ascii") + b"\0"
