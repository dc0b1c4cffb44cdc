"""What NAT this machine is behind, as pystun3 classifies it by RFC 3489: for the inventory's `nat:` of a place where no
agent runs yet. Of nodes, their agents know more, from anchors that they can trust.

pystun3's parser takes what comes as it is: it raises for unknown messages, and runs on where a length is a lie. So no
byte of the network reaches it. What comes is read here, and only from the server that was named and the second address
that it gives for itself; pystun3 sees a message that is written anew from it, and asks its questions by a socket that
belongs to this process's user, on whatever machine the operator sits.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from meshctl.errors import MeshctlError

# RFC 3489 sections 11.1 and 11.2.
_RESPONSE, _HEADER = 0x0101, struct.Struct("!HH16s")
_MAPPED, _SOURCE, _CHANGED = 0x0001, 0x0004, 0x0005
_IPV4, _ADDRESS = 1, struct.Struct("!BBH4s")
# For one answer; pystun3 asks four times.
ANSWER_S = 0.5
# A server may send what it likes: so many datagrams in a row are looked at.
_MAX_ODD = 64
# pystun3's names (its constants), and the inventory's for what lets in whom.
KINDS = {
    "Open Internet": "none",
    "Full Cone": "full-cone",
    "Restric NAT": "address-dependent",
    "Restric Port NAT": "easy",
    "Symmetric UDP Firewall": "easy",  # no NAT, but what is in front lets answers in alone: it is met in the same way
    "Symmetric NAT": "symmetric",
    "Blocked": "udp-blocked",
}


@dataclass(frozen=True)
class Here:
    """`nat` is the inventory's word, "" when the answers contradict each other; `seen` is this machine's IP and port as
    they are outside, "" when nothing answers."""

    nat: str
    classification: str
    seen: str


class _Messenger:
    """What pystun3 takes for its socket. `first` is the address of this machine as the server first saw it."""

    def __init__(self, sock: socket.socket, server: str) -> None:
        self._sock = sock
        self._trusted = {server}
        self._asked = b""
        self.first = ""

    def sendto(self, data: bytes, address: tuple[str | None, int | None]) -> None:
        """Ask. Raises MeshctlError for the second address of a server that has none."""
        if address[0] is None or address[1] is None:
            raise MeshctlError(
                "the STUN server has no second address to ask, so it cannot tell one NAT from another",
                hint="name one that has two (RFC 5780), as coturn on a host with two addresses",
            )  # fmt: skip
        self._asked = data[4:20]
        self._sock.sendto(data, address)

    def recvfrom(self, _size: int) -> tuple[bytes, tuple[str, int]]:
        """The answer, written anew. Raises TimeoutError."""
        ends_at = time.monotonic() + ANSWER_S
        for _ in range(_MAX_ODD):
            self._sock.settimeout(max(0.001, ends_at - time.monotonic()))
            data, sender = self._sock.recvfrom(2048)
            addresses = dict(_addresses(data, self._asked)) if sender[0] in self._trusted else {}
            if _MAPPED in addresses:
                self._take(addresses)
                return _written(self._asked, addresses), sender
        raise TimeoutError

    def _take(self, addresses: dict[int, tuple[str, int]]) -> None:
        ip, port = addresses[_MAPPED]
        self.first = self.first or f"{ip}:{port}"
        if _CHANGED in addresses and len(self._trusted) == 1:
            self._trusted.add(addresses[_CHANGED][0])


def classify(host: str, port: int) -> Here:
    """Ask that server; takes up to ten seconds. Raises MeshctlError when there is no such host, no way to it, or it is
    no server that can tell."""
    import stun  # type: ignore[import-untyped]

    try:
        server = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0][4][0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket(sock.family, sock.type) as probe:
            probe.connect((server, port))
            own = probe.getsockname()[0]
            sock.bind((own, 0))
            messenger = _Messenger(sock, str(server))
            found, _ = stun.get_nat_type(messenger, own, sock.getsockname()[1], str(server), port)
    except UnicodeError as error:  # of a label that is empty or too long (RFC 1035 section 2.3.4)
        raise MeshctlError(f"{host!r} is no name of a host", hint="name a STUN server by --stun") from error
    except OSError as error:
        reason = error.strerror or error
        raise MeshctlError(f"cannot ask {host}: {reason}", hint="name a STUN server by --stun") from error
    return Here(KINDS.get(found, ""), str(found), messenger.first)


def _addresses(data: bytes, asked: bytes) -> Iterator[tuple[int, tuple[str, int]]]:
    """The addresses in an answer to what was asked; none of anything else."""
    if len(data) < _HEADER.size:
        return
    kind, size, transaction = _HEADER.unpack_from(data)
    if kind != _RESPONSE or transaction != asked or size != len(data) - _HEADER.size:
        return
    at = _HEADER.size
    while at + 4 <= len(data):
        attribute, length = struct.unpack_from("!HH", data, at)
        value = data[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
        if attribute in (_MAPPED, _SOURCE, _CHANGED) and len(value) == _ADDRESS.size:
            _, family, port, ip = _ADDRESS.unpack(value)
            if family == _IPV4 and port:
                yield attribute, (str(ipaddress.IPv4Address(ip)), port)


def _written(asked: bytes, addresses: dict[int, tuple[str, int]]) -> bytes:
    body = b"".join(
        struct.pack("!HH", kind, _ADDRESS.size) + _ADDRESS.pack(0, _IPV4, port, socket.inet_aton(ip))
        for kind, (ip, port) in sorted(addresses.items())
    )
    return _HEADER.pack(_RESPONSE, len(body), asked) + body
