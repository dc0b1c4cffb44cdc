"""What outlives the agent: leases of ports, splices, and where peers were last reached. All of it is disposable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from meshctl.core.agent.address import Address
from meshctl.core.agent.checks import Pair
from meshctl.model.keys import PublicKey

VERSION = 1
# More than 500 peers need.
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class KeptPath:
    """A peer that is reached directly: by which pair, and whether a splice carries it."""

    peer: PublicKey
    pair: Pair
    spliced: bool


@dataclass(frozen=True)
class Kept:
    """`ports` is what `portmap_state` wrote."""

    ports: bytes = b""
    paths: tuple[KeptPath, ...] = ()


def dump(kept: Kept) -> bytes:
    """In a fixed order, so that the same is the same bytes."""
    paths = [[k.peer.text, *k.pair.local, *k.pair.remote, k.spliced] for k in kept.paths]
    document = {"version": VERSION, "ports": kept.ports.decode("ascii"), "paths": sorted(paths)}
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")


def load(data: bytes) -> Kept:
    """What was saved; what cannot be read is left out, for it does no more than save time."""
    try:
        document = json.loads(data.decode("ascii")) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        return Kept()
    if not isinstance(document, dict) or document.get("version") != VERSION:
        return Kept()
    ports, paths = document.get("ports"), document.get("paths")
    found = (_path(row) for row in (paths if isinstance(paths, list) else []))
    return Kept(
        ports.encode("ascii", "replace") if isinstance(ports, str) else b"",
        tuple(path for path in found if path is not None),
    )


def _path(row: Any) -> KeptPath | None:
    try:
        key, ip, port, remote_ip, remote_port, spliced = row
        pair = Pair(Address.of(ip, port), Address.of(remote_ip, remote_port))
        return KeptPath(PublicKey(key), pair, spliced is True) if pair.local.family == pair.remote.family else None
    except (ValueError, TypeError, AttributeError):
        return None
