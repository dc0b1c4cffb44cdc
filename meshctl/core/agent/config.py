"""What the inventory says that the agent needs: its interfaces, and in each network the peers and their keys."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Union

from meshctl.core.agent.address import Address, NamedEndpoint
from meshctl.model.keys import PublicKey

KINDS = ("node", "anchor", "client")
OVERRIDES = ("", "relay", "direct", "prefer-relay")
# A node's id on the wire: the first bytes of SHA-256 of its public key.
ID_BYTES = 8
PAIR_KEY_BYTES = 32
# HKDF's salt (RFC 5869 section 3.1): keeps what hangs on a pre-shared key here apart from WireGuard's use of it.
PAIR_KEY_SALT = b"meshctl agent v1"
# The controller makes one for each end of each pair: the state after the salt is kept.
_SALTED = hmac.new(PAIR_KEY_SALT, digestmod=hashlib.sha256)

Endpoint = Union[Address, NamedEndpoint]


@lru_cache(maxsize=1 << 12)
def node_id(key: PublicKey) -> bytes:
    """The 8 bytes by which messages name the holder of this key."""
    return hashlib.sha256(key.raw()).digest()[:ID_BYTES]


def pair_key(psk: bytes) -> bytes:
    """32 bytes under which the two ends of a pair know each other's messages: HKDF-Extract of their pre-shared key."""
    extract = _SALTED.copy()
    extract.update(psk)
    return extract.digest()


def purpose_key(key: bytes, purpose: bytes) -> bytes:
    """32 bytes for another use of a pair's key than signalling: HKDF-Expand of one block (RFC 5869 section 2.3)."""
    return hmac.new(key, purpose + b"\x01", hashlib.sha256).digest()


@dataclass(frozen=True)
class PeerConfig:
    """A peer in one network. Raises ValueError for a kind or override that is not one of those above.

    `permitted` is False for an infrastructure link alone: no path to that peer is of use but its own static endpoint.
    `reaches` names the peers of this node that *this* peer is permitted to reach: signals between two of them are
    forwarded when each names the other.
    """

    name: str
    public_key: PublicKey
    mesh_addresses: tuple[str, ...]  # canonical, at least one
    pair_key: bytes = field(repr=False)
    kind: str = "node"
    endpoints: tuple[Endpoint, ...] = ()
    permitted: bool = True
    override: str = ""
    reaches: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for value, allowed in ((self.kind, KINDS), (self.override, OVERRIDES)):
            if value not in allowed:
                raise ValueError(f"peer {self.name}: {value!r} is none of {', '.join(map(repr, allowed))}")
        if len(self.pair_key) != PAIR_KEY_BYTES:
            raise ValueError(f"peer {self.name}: the pair's key must have {PAIR_KEY_BYTES} bytes")
        if not self.mesh_addresses:
            raise ValueError(f"peer {self.name} has no mesh address")

    @cached_property
    def id(self) -> bytes:
        """The peer's id on the wire."""
        return node_id(self.public_key)

    @property
    def is_anchor(self) -> bool:
        """Whether the peer introduces, observes and relays."""
        return self.kind == "anchor"


@dataclass(frozen=True)
class InterfaceConfig:
    """One WireGuard interface, that is, one network. Raises ValueError when two peers have a name, key or address."""

    network: str
    interface: str
    public_key: PublicKey
    mesh_addresses: tuple[str, ...]
    listen_port: int
    mesh_ranges: tuple[str, ...]  # every network's, so that no endpoint is inside another network either
    keepalive_s: int = 25
    peers: tuple[PeerConfig, ...] = ()
    is_anchor: bool = False

    def __post_init__(self) -> None:
        for what, values in (
            ("name", [p.name for p in self.peers]),
            ("public key", [self.public_key.text, *(p.public_key.text for p in self.peers)]),
            ("mesh address", [*self.mesh_addresses, *(a for p in self.peers for a in p.mesh_addresses)]),
        ):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"network {self.network}: {what} {min(twice)} is given twice")

    @cached_property
    def id(self) -> bytes:
        """This node's id on the wire, in this network."""
        return node_id(self.public_key)


@dataclass(frozen=True)
class AgentConfig:
    """This node: its name, one interface for each network that it is in, and STUN servers besides the anchors."""

    name: str
    networks: tuple[InterfaceConfig, ...]
    stun_servers: tuple[Endpoint, ...] = ()
