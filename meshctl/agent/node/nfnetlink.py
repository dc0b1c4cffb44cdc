"""As much of nfnetlink as the agent needs: elements of nftables' sets, the end of a table, and connections that
conntrack is to forget.

nft(8) would do it too, in ten milliseconds a call, which hundreds of relays do not have when an anchor starts; this
takes a tenth of one. The formats are those of linux/netfilter/nfnetlink.h, nf_tables.h and nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator

from meshctl.agent.node import netlink
from meshctl.agent.node.netlink import attribute, attributes, nested

NETLINK_NETFILTER = 12
NFPROTO_INET = 1
NFTABLES, CONNTRACK = 10, 1
MSG_GETTABLE, MSG_DELTABLE, MSG_GETCHAIN, MSG_GETRULE = 1, 2, 4, 7
MSG_NEWSETELEM, MSG_GETSETELEM, MSG_DELSETELEM = 12, 13, 14
CT_DELETE = 2
GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES: what has become of the ruleset

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFGEN = struct.Struct("!BBH")
_ROOM = 1 << 16
# As many as the buffers of a socket take at once, and their acknowledgements (measured: 212,992 bytes are 250).
MAX_CHANGES = 64
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
    def port(self) -> int:
        """What the kernel calls this connection where it tells others of its changes; -1 while there is none."""
        return int(self._opened.getsockname()[0]) if self._opened is not None else -1

    def close(self) -> None:
        """Another call makes a new one."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def change_elements(self, table: str, changes: Iterable[tuple[int, str, bytes]]) -> None:
        """All or none: `MSG_NEWSETELEM` or `MSG_DELSETELEM`, the set, and one `element`, of a table of family inet. At
        most MAX_CHANGES of them."""
        within = naming(table)
        self._change((kind, within + attribute(2, _text(name)) + nested(3, body)) for kind, name, body in changes)

    def delete_table(self, table: str) -> None:
        """One of family inet, with all that is in it. Raises FileNotFoundError when there is none."""
        self._change([(MSG_DELTABLE, naming(table))])

    def elements(self, table: str, name: str) -> list[dict[int, bytes]]:
        """The attributes of every element of a set."""
        body = naming(table) + attribute(2, _text(name))
        payloads = self._dump(self._message(NFTABLES << 8 | MSG_GETSETELEM, NFPROTO_INET, body, netlink.DUMP))
        lists = (attributes_of(payload).get(3, b"") for payload in payloads)
        return [dict(attributes(one)) for found in lists for _, one in attributes(found)]

    def has_table(self, table: str) -> bool:
        """Whether there is one of family inet. In a kernel without nftables there is none."""
        try:
            return self._found(NFTABLES << 8 | MSG_GETTABLE, NFPROTO_INET, naming(table))
        except OSError as error:
            if error.errno in (errno.EPROTONOSUPPORT, errno.EINVAL):
                return False
            raise

    def makeup(self, table: str) -> list[bytes]:
        """What a table is but for its elements; another one of that name, or with another rule or policy, is not the
        same. Raises FileNotFoundError when there is none."""
        own = self._dump(self._message(NFTABLES << 8 | MSG_GETTABLE, NFPROTO_INET, naming(table), netlink.ACK))
        all_chains = self._dump(self._message(NFTABLES << 8 | MSG_GETCHAIN, NFPROTO_INET, b"", netlink.DUMP))
        chains = [chain for chain in map(attributes_of, all_chains) if chain.get(1) == _text(table)]
        rules = self._dump(self._message(NFTABLES << 8 | MSG_GETRULE, NFPROTO_INET, naming(table), netlink.DUMP))
        return [
            *(one[_NFGEN.size :] for one in own),
            # Names and policies: who changes them leaves all handles as they are.
            *(chain.get(kind, b"") for chain in chains for kind in (3, 5)),
            *(attributes_of(rule).get(3, b"") for rule in rules),  # its handle
        ]

    def forget_connection(self, source: tuple[str, int], destination: tuple[str, int]) -> None:
        """Conntrack forgets the UDP connection of which a packet from there to there would be; if there is one."""
        family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
        kinds = (3, 4) if family == socket.AF_INET6 else (1, 2)
        ips = [attribute(k, socket.inet_pton(family, ip)) for k, (ip, _) in zip(kinds, (source, destination))]
        ports = [attribute(k, port.to_bytes(2, "big")) for k, (_, port) in zip((2, 3), (source, destination))]
        place = nested(2, attribute(1, bytes([socket.IPPROTO_UDP])), *ports)
        self._found(CONNTRACK << 8 | CT_DELETE, family, nested(1, nested(1, *ips), place))

    # Inside

    def _message(self, kind: int, family: int, body: bytes, flags: int = 0, resource: int = 0) -> bytes:
        self._number += 1
        return netlink.message(kind, flags, _NFGEN.pack(family, 0, resource) + body, self._number)

    def _change(self, changes: Iterable[tuple[int, bytes]]) -> None:
        """All or none of these messages to nftables."""
        begin = self._message(_BATCH_BEGIN, socket.AF_UNSPEC, b"", resource=NFTABLES)
        first, parts = self._number, []
        for kind, body in changes:
            flags = netlink.CREATE if kind == MSG_NEWSETELEM else 0
            parts.append(self._message(NFTABLES << 8 | kind, NFPROTO_INET, body, flags | netlink.ACK))
        end = self._message(_BATCH_END, socket.AF_UNSPEC, b"", resource=NFTABLES)
        failures = self._acknowledged(b"".join([begin, *parts, end]), first, len(parts))
        if failures:
            raise failures[0]

    def _found(self, kind: int, family: int, body: bytes) -> bool:
        """Whether there was what a request is about."""
        request = self._message(kind, family, body, netlink.ACK)
        for failure in self._acknowledged(request, self._number, 1):
            if failure.errno != errno.ENOENT:
                raise failure
            return False
        return True

    def _acknowledged(self, request: bytes, first: int, wanted: int) -> list[OSError]:
        """Send, and wait for so many acknowledgements; the errors among them. One for the first message of a batch,
        which asks for none, is about all of it, and the last."""
        failures: list[OSError] = []
        for number, kind, payload in self._answers(request, first):
            if kind != netlink.ERROR:
                continue
            failure = netlink.failure(payload)
            if failure.errno:
                failures.append(failure)
            wanted -= 1
            if wanted == 0 or (number == first and failure.errno):
                break
        return failures

    def _dump(self, request: bytes) -> list[bytes]:
        payloads = []
        for _, kind, payload in self._answers(request, self._number):
            if kind == netlink.ERROR:
                failure = netlink.failure(payload)
                if failure.errno:
                    raise failure
            if kind in (netlink.ERROR, netlink.DONE):
                break
            payloads.append(payload)
        return payloads

    def _answers(self, request: bytes, first: int) -> Iterator[tuple[int, int, bytes]]:
        """Send a request whose first message has that number; what is answered to it and to nothing before. After an
        error the connection is another one: what comes late is nobody's."""
        if self._opened is None:
            self._opened = netfilter_socket()
            self._opened.settimeout(_TIMEOUT_S)
        try:
            self._opened.send(request)
            while True:
                yield from netlink.answers(self._opened.recv(_ROOM), range(first, self._number + 1))
        except OSError:
            self.close()
            raise


def netfilter_socket(groups: int = 0) -> socket.socket:
    """One that hears of what these groups are told. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def naming(table: str) -> bytes:
    """What is in every message about a table, or about what is in it."""
    return attribute(1, _text(table))


def element(key: bytes, value: bytes = b"") -> bytes:
    """One element of a set, or of a map with its value."""
    data = nested(2, attribute(1, value)) if value else b""
    return nested(1, nested(1, attribute(1, key)), data)


def _text(text: str) -> bytes:
    return text.encode("ascii") + b"\0"
