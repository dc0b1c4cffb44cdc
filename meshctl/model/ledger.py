"""What meshctl has made on a host, kept on that host (`/var/lib/meshctl/ledger.json`).

It answers two questions that the kernel cannot: "may I remove this?" (only what is in the ledger) and "did the
repository change this, or did the agent?" (the endpoint and keepalive that were last applied). It holds no secret.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LEDGER_PATH = "/var/lib/meshctl/ledger.json"
LEDGER_VERSION = 1


@dataclass(frozen=True)
class PeerRecord:
    """Endpoint and keepalive as last applied from the repository."""

    endpoint: str | None = None
    keepalive_s: int = 0


@dataclass(frozen=True)
class InterfaceRecord:
    """`created` is False for an interface that was adopted: it is never removed, only its peers of ours are.
    `peers_of_boot`: the host's boot id where another boot would bring the interface up by an older file, as between the
    two rounds of an apply: what is said of the peers holds for that boot alone. Else empty."""

    created: bool
    backend: str
    peers: Mapping[str, PeerRecord] = field(default_factory=dict)  # public key text -> record
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    peers_of_boot: str = ""


@dataclass(frozen=True)
class TableRecord:
    """`source` is the sha256 of the rendered text, `listing` that of `nft -s list table` right after loading."""

    source: str
    listing: str


@dataclass(frozen=True)
class Ledger:
    """The whole record. An absent or unreadable file is an empty ledger: nothing is ours to remove."""

    interfaces: Mapping[str, InterfaceRecord] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # path -> sha256 as written ("" for directories and links)
    sysctls: Mapping[str, str] = field(default_factory=dict)  # name -> value before meshctl
    units: Mapping[str, str] = field(default_factory=dict)  # name -> UnitFileState before meshctl
    tables: Mapping[str, TableRecord] = field(default_factory=dict)  # "inet meshctl" -> record
    cleanups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # unit -> what to run once it is gone
    revoked: tuple[str, ...] = ()  # public keys that are to be nobody's here any more, whatever an inventory says
    handlers: tuple[str, ...] = ()  # notified and not yet run, for an applier that dies between a file and its handler

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, so that equal ledgers are equal bytes."""
        document = {
            "version": LEDGER_VERSION,
            "interfaces": {
                name: {
                    "created": i.created,
                    "backend": i.backend,
                    "peers": {k: [p.endpoint, p.keepalive_s] for k, p in i.peers.items()},
                    "addresses": list(i.addresses),
                    "routes": list(i.routes),
                    **({"peers_of_boot": i.peers_of_boot} if i.peers_of_boot else {}),
                }
                for name, i in self.interfaces.items()
            },
            "files": dict(self.files),
            "sysctls": dict(self.sysctls),
            "units": dict(self.units),
            "tables": {name: [t.source, t.listing] for name, t in self.tables.items()},
            "cleanups": {name: list(argv) for name, argv in self.cleanups.items()},
            "handlers": list(self.handlers),
            **({"revoked": list(self.revoked)} if self.revoked else {}),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """sha256 of it, in hex: by this a host is known to be the one that was read."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Parse `to_json`'s output. Raises ValueError for anything else, a newer version included."""
        try:
            document: dict[str, Any] = json.loads(text)
            if document["version"] != LEDGER_VERSION:
                raise ValueError(f"ledger version {document['version']!r} is not {LEDGER_VERSION}")
            return cls(
                interfaces={
                    name: InterfaceRecord(
                        created=bool(i["created"]),
                        backend=str(i["backend"]),
                        peers={k: PeerRecord(p[0], int(p[1])) for k, p in i["peers"].items()},
                        addresses=tuple(i["addresses"]),
                        routes=tuple(i["routes"]),
                        peers_of_boot=str(i.get("peers_of_boot", "")),
                    )
                    for name, i in document["interfaces"].items()
                },
                files={str(k): str(v) for k, v in document["files"].items()},
                sysctls={str(k): str(v) for k, v in document["sysctls"].items()},
                units={str(k): str(v) for k, v in document["units"].items()},
                tables={str(k): TableRecord(str(v[0]), str(v[1])) for k, v in document["tables"].items()},
                # Absent in the first ledgers.
                cleanups={str(k): tuple(map(str, v)) for k, v in document.get("cleanups", {}).items()},
                revoked=tuple(str(key) for key in document.get("revoked", ())),
                handlers=tuple(str(name) for name in document.get("handlers", ())),
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"not a ledger: {error!r}") from error
