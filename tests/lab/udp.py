"""Measuring a NAT as RFC 4787 has it, with plain sockets that stand in the hosts' namespaces."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from meshctl.lab.names import netns_path
from meshctl.lab.netns import within

# Everything here crosses three namespaces of one machine, in microseconds; what is not there by now was dropped.
ARRIVAL_S = 0.4


def bind(lab: str, element: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    """A UDP socket inside the namespace."""

    def make() -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.settimeout(ARRIVAL_S)
        sock.bind(("", port))
        return sock

    return within(netns_path(lab, element), make)


def arrives(sender: socket.socket, to: tuple[str, int], receiver: socket.socket) -> tuple[str, int] | None:
    """Who the receiver thinks sent a datagram that `sender` sends to `to`; None when it does not arrive."""
    payload = repr((sender.fileno(), to)).encode()
    sender.sendto(payload, to)
    while True:
        try:
            got, source = receiver.recvfrom(2048)
        except TimeoutError:
            return None
        if got == payload:
            return (source[0], source[1])


@dataclass(frozen=True)
class Behaviour:
    """RFC 4787's words: `mapping` and `filtering` are endpoint-independent, address-dependent or address-and-port."""

    mapping: str
    filtering: str
    ports: tuple[int, ...]  # the mapped ports in the order in which the mappings were made


def measure(lab: str, inside: str, servers: dict[str, str], port: int = 0) -> Behaviour | None:
    """How the NAT in front of `inside` behaves towards two public hosts (name -> address). None: no UDP passes."""
    (one, address1), (two, address2) = servers.items()
    client = bind(lab, inside, port)
    socks = [bind(lab, one), bind(lab, one), bind(lab, two), bind(lab, two)]
    addresses = (address1, address1, address2, address2)
    a1, a2, b1, b2 = ((a, s.getsockname()[1]) for a, s in zip(addresses, socks, strict=True))
    try:
        mapped = arrives(client, a1, socks[0])
        if mapped is None:
            return None
        # Filtering first: nothing but a1 has been sent to.
        other_port = arrives(socks[1], mapped, client) is not None
        other_address = arrives(socks[2], mapped, client) is not None
        assert arrives(socks[0], mapped, client) == a1, "an answer does not come back"
        mappings = [mapped, *(arrives(client, to, s) for to, s in ((a2, socks[1]), (b1, socks[2]), (b2, socks[3])))]
    finally:
        for sock in (client, *socks):
            sock.close()
    assert None not in mappings
    known = [m for m in mappings if m]
    filtering = "endpoint-independent" if other_address else "address-dependent" if other_port else "address-and-port"
    return Behaviour(_mapping(known), filtering, tuple(m[1] for m in known))


def _mapping(seen: list[tuple[str, int]]) -> str:
    if len(set(seen)) == 1:
        return "endpoint-independent"
    return "address-dependent" if seen[0] == seen[1] and seen[2] == seen[3] else "address-and-port"
