"""Endpoints that are DNS names. A name may not resolve, and one dead name must hold up neither the interface nor its
other peers: such an endpoint is set by itself, after all else.

wg(8) takes a whole config or none of it, and Debian's wg-quick@.service sets WG_ENDPOINT_RESOLUTION_RETRIES=infinity.
"""

from __future__ import annotations

from meshctl.core.prefixes import DEFAULT_ROUTES
from meshctl.model.resources import Peer


def is_named(endpoint: str | None) -> bool:
    """Whether `HOST:PORT` has a name for a host. A name never ends in a label of digits alone (RFC 3696)."""
    if not endpoint or endpoint.startswith("["):
        return False
    return not endpoint.rpartition(":")[0].rpartition(".")[2].isdigit()


def set_apart(peer: Peer) -> bool:
    """Whether a config file leaves the peer's endpoint to a command of its own.

    Not an exit node's: once the default route points into the tunnel nothing is left to ask a name server by.
    """
    return is_named(peer.endpoint) and not set(DEFAULT_ROUTES.values()) & set(peer.allowed_ips)
