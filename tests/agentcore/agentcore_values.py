"""Keys, peers and configurations for the tests of the agent's core; nothing in them is secret."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from meshctl.core.agent.config import InterfaceConfig, PeerConfig
from meshctl.core.agent.probes import NUMBER_BYTES
from meshctl.model.keys import PublicKey

SESSION = b"session "  # of whoever has only one


def key(name: str) -> PublicKey:
    """A public key that nobody has the private half of."""
    return PublicKey(base64.b64encode(hashlib.sha256(name.encode()).digest()).decode())


def shared(a: str, b: str) -> bytes:
    """The pair's key, the same from both ends."""
    return hashlib.sha256("|".join(sorted((a, b))).encode()).digest()


def peer(owner: str, name: str, number: int, **settings: Any) -> PeerConfig:
    """The peer `name` of `owner`, at 10.42.0.`number`."""
    return PeerConfig(name, key(name), (f"10.42.0.{number}",), shared(owner, name), **settings)


def interface(owner: str, number: int, *peers: PeerConfig, **settings: Any) -> InterfaceConfig:
    """The interface of `owner`, at 10.42.0.`number`."""
    return InterfaceConfig(
        "corp", "wg0", key(owner), (f"10.42.0.{number}",), 51820, ("10.42.0.0/16",), peers=peers, **settings
    )


def transaction(number: int) -> bytes:
    """Of a request with that number; those of the agents in the tests are below 2^16."""
    return number.to_bytes(NUMBER_BYTES, "big") + bytes(12 - NUMBER_BYTES)
