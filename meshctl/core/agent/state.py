"""What outlives the agent: leases of ports, splices, where peers were last reached, and an anchor's relays.

All of it is disposable: without it relays are bound anew, and everything else is found out again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import TOKEN_BYTES
from meshctl.core.agent.checklist import Pair
from meshctl.model.keys import PublicKey

VERSION = 1
# More than 500 peers need, and on an anchor a relay at each of its ports (`relayserver.PORTS`), of which each takes 320
# bytes at most.
MAX_BYTES = 1024 * 1024 + 10_000 * 320


@dataclass(frozen=True)
class KeptPath:
    """A peer that is reached directly: by which pair, and whether a splice carries it."""

    peer: PublicKey
    pair: Pair
    spliced: bool


class KeptEnd(NamedTuple):
    """One end of a relay: whose, the token of its binds, and where the anchor forwards to."""

    peer: PublicKey
    token: bytes
    place: Address


@dataclass(frozen=True)
class KeptRelay:
    """On an anchor: what is forwarded at a port, for a pair of that network."""

    network: str
    port: int
    a: KeptEnd
    b: KeptEnd


@dataclass(frozen=True)
class Kept:
    """`ports` is what `portmap_state` wrote."""

    ports: bytes = b""
    paths: tuple[KeptPath, ...] = ()
    relays: tuple[KeptRelay, ...] = ()


NOTHING = Kept()


def dump(kept: Kept) -> bytes:
    """In a fixed order, so that the same is the same bytes."""
    paths = [[k.peer.text, *k.pair.local, *k.pair.remote, k.spliced] for k in kept.paths]
    relays = [[r.network, r.port, *([e.peer.text, e.token.hex(), *e.place] for e in (r.a, r.b))] for r in kept.relays]
    document = {
        "version": VERSION, "ports": kept.ports.decode("ascii"), "paths": sorted(paths), "relays": sorted(relays),
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")


def load(data: bytes) -> Kept:
    """What was saved; what cannot be read is left out, for it does no more than save time."""
    try:
        document = json.loads(data.decode("ascii")) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        return Kept()
    if not isinstance(document, dict) or document.get("version") != VERSION:
        return Kept()
    ports = document.get("ports")
    return Kept(
        ports.encode("ascii", "replace") if isinstance(ports, str) else b"",
        tuple(path for path in map(_path, _rows(document, "paths")) if path is not None),
        tuple(relay for relay in map(_relay, _rows(document, "relays")) if relay is not None),
    )


def _rows(document: dict[str, Any], name: str) -> list[Any]:
    rows = document.get(name)
    return rows if isinstance(rows, list) else []


def _path(row: Any) -> KeptPath | None:
    try:
        key, ip, port, remote_ip, remote_port, spliced = row
        pair = Pair(_place(ip, port), _place(remote_ip, remote_port))
        return KeptPath(PublicKey(key), pair, spliced is True) if pair.local.family == pair.remote.family else None
    except (ValueError, TypeError, AttributeError):
        return None


def _relay(row: Any) -> KeptRelay | None:
    try:
        network, port, a, b = row
        return KeptRelay(str(network), port, _end(*a), _end(*b)) if type(port) is int else None
    except (ValueError, TypeError, AttributeError):
        return None


def _end(key: str, token: str, ip: str, port: int) -> KeptEnd:
    found = bytes.fromhex(token)
    if len(found) != TOKEN_BYTES:
        raise ValueError("a token of another length")
    return KeptEnd(PublicKey(key), found, _place(ip, port))


def _place(ip: str, port: Any) -> Address:
    """Raises ValueError for a port that is none: 51820.0 compares as one, and stands in no datagram."""
    if type(port) is not int or port == 0:
        raise ValueError(f"{port!r} is not a port")
    return Address.of(ip, port)
