"""Candidates: addresses where a node may be reached, and how good each is (RFC 8445, RFC 8421)."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass
from math import inf

from meshctl.core.agent.address import Address, is_private
from meshctl.core.agent.bodies import CandidatePriority, Offered

# RFC 8445 section 5.1.2.2 recommends host 126, prflx 110, srflx 100, relay 0. Between them: an address that the
# inventory names, one that a router has promised, one that a STUN server without a key has told, who may lie, and one
# that an anchor's WireGuard saw a while ago.
TYPE_PREFERENCE = {
    "host": 126, "static": 120, "mapped": 115, "prflx": 110, "srflx": 100, "told": 99, "observed": 98, "relay": 0,
}  # fmt: skip
COMPONENT = 1
MAX_LOCAL_PREFERENCE = 65535
# Of one node: more than any has, and what a hostile one costs at most.
MAX_CANDIDATES = 100
# Of a host's own addresses in one family: what servers see of them has room beside them.
MAX_HOSTS = 32
# Kinds whose address is the outside of whatever NAT there is, as far as one knows.
OUTSIDE = ("srflx", "told", "observed", "mapped", "static")
# Kinds that show where a node stands: its own addresses, and what anchors see. What servers without a key and routers
# say may be another address each time.
STANDING = ("host", "srflx", "observed")


@dataclass(frozen=True)
class Candidate:
    """One candidate. `base` is the own address that it is sent from (a remote candidate is its own base), `expires_at`
    the time from which it does not count."""

    kind: str
    address: Address
    base: Address
    foundation: str
    priority: CandidatePriority

    expires_at: float = inf

    def offered(self) -> Offered:
        """As it is told to the peer."""
        return Offered(self.kind, self.address, self.foundation, self.priority)

    @property
    def order(self) -> tuple[int, Address, Address]:
        """Sorts the best first."""
        return -self.priority, self.address, self.base


def priority(kind: str, local_preference: int) -> CandidatePriority:
    """RFC 8445 section 5.1.2.1."""
    return CandidatePriority((TYPE_PREFERENCE[kind] << 24) + (local_preference << 8) + (256 - COMPONENT))


def prflx_priority(own: CandidatePriority) -> CandidatePriority:
    """The PRIORITY of checks from a candidate of that priority (RFC 8445 section 7.1.1): what the peer gives it when
    its address is news to the peer."""
    return CandidatePriority((TYPE_PREFERENCE["prflx"] << 24) + (own & 0xFFFFFF))


def foundation(kind: str, base_ip: str, server_ip: str = "") -> str:
    """RFC 8445 section 5.1.1.3: the same for candidates of one kind from one base address by way of one server."""
    return hashlib.sha256(f"{kind} {base_ip} {server_ip}".encode()).hexdigest()[:8]


def local_preferences(ips: Iterable[str], ways_out: Container[str] = ()) -> dict[str, int]:
    """A preference for each of a host's addresses, of which at most MAX_HOSTS of each family count: IPv6 first, then
    the families in turn by how many there are of each, so that neither waits for the whole of the other (RFC 8421
    section 4). In a family, private addresses come last, and of those of one sort the `ways_out` first."""
    ordered = sorted(set(ips), key=lambda ip: (is_private(ip), ip not in ways_out, ip))
    six = [ip for ip in ordered if ":" in ip][:MAX_HOSTS]
    four = [ip for ip in ordered if ":" not in ip][:MAX_HOSTS]
    stride = max(2, (len(six) + len(four)) // max(1, len(four)))  # the RFC's Hi: one IPv4 address in so many
    mixed: list[str] = []
    while six or four:
        turn_of_four = not six or (len(mixed) + 1) % stride == 0
        mixed.append(four.pop(0) if four and turn_of_four else six.pop(0))
    return {ip: MAX_LOCAL_PREFERENCE - place for place, ip in enumerate(mixed)}


def public_ips(candidates: Iterable[Candidate]) -> frozenset[str]:
    """The public addresses that a node is seen under: behind one NAT, all show the same (`nat.same_nat`)."""
    return frozenset(c.address.ip for c in candidates if c.kind in OUTSIDE and not is_private(c.address.ip))
