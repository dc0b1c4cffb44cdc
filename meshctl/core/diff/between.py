"""Between the old and the new: what a host has while an apply goes on in several waves.

In a first round every host gets what is new and keeps what goes, so that both ends know a path before packets take it;
in a second it gets all that is wanted. A prefix belongs to one peer of an interface at a time, so one that another peer
has moves in the second round, when its new owner is ready for it. A file, and a firewall's table, is one text that
cannot be halved: it is exchanged in the first round, but for the table of a node that others still go through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from meshctl.core.change import Change
from meshctl.core.diff import diff, due_handlers
from meshctl.core.diff.interface import DEFAULT
from meshctl.core.prefixes import DEFAULT_ROUTES, sort_prefixes
from meshctl.model.facts import HostFacts, InterfaceFacts
from meshctl.model.keys import PublicKey, Secret
from meshctl.model.ledger import InterfaceRecord
from meshctl.model.resources import NodeDoc, Peer, WireGuard

# What only goes when it goes with the whole of the document's change.
_LATER = (("file", "delete"), ("package", "delete"))
# Folders of the files by which wg-quick and systemd-networkd bring an interface up.
_BOOT_FOLDERS = ("/etc/wireguard", "/etc/systemd/network")


def first_round(doc: NodeDoc, facts: HostFacts, *, carries: bool) -> tuple[NodeDoc, tuple[Change, ...]]:
    """The document that the host has after the first round, and the changes to it, of which the resource is an index
    into that document too. `carries`: others go through this node until the second. Raises as `diff` does."""
    between = prepared(doc, facts)
    kept = {one.interface for one, other in zip(doc.interfaces(), between.interfaces()) if one != other}
    found = diff(between, facts)
    now = tuple(
        change for change in found
        if change.resource >= 0 and (change.kind, change.action) not in _LATER
        and not (carries and change.kind == "table")
        and not (change.kind == "file" and brings_up(change.name, kept))
    )  # fmt: skip
    due = {handler.name for handler in due_handlers(doc, now, facts.ledger.handlers)}
    return between, (*now, *(c for c in found if c.kind == "handler" and c.name in due))


def prepared(doc: NodeDoc, facts: HostFacts) -> NodeDoc:
    """The document with what its live interfaces have of meshctl's making and will lose, too; it is `doc` where they
    lose nothing."""
    return replace(doc, resources=tuple(
        _prepared(resource, facts, doc) if isinstance(resource, WireGuard) else resource for resource in doc.resources
    ))  # fmt: skip


def left_behind(doc: NodeDoc, facts: HostFacts) -> set[PublicKey]:
    """The peers that lose a prefix to another peer in the second round: packets go through them until then."""
    found: set[PublicKey] = set()
    for want in doc.interfaces():
        live = facts.interfaces.get(want.interface)
        if live is not None:
            holders = _holders(want, live)
            found |= {
                holders[prefix] for peer in want.peers for prefix in peer.allowed_ips
                if holders.get(prefix, peer.public_key) != peer.public_key
            }  # fmt: skip
    return found


def _prepared(want: WireGuard, facts: HostFacts, doc: NodeDoc) -> WireGuard:
    live, record = facts.interfaces.get(want.interface), facts.ledger.interfaces.get(want.interface)
    if live is None or record is None:  # a new one loses nothing; of one that is adopted nothing is ours yet
        return want
    elsewhere = {
        each for other in doc.interfaces() if other.interface != want.interface
        for each in (*other.addresses, *other.routes)
    }  # fmt: skip
    records = facts.ledger.interfaces
    # All interfaces' own packets are marked while one of them has the default route, or they would go into it.
    turns = any(w.default_route != (DEFAULT in records[w.interface].routes) for w in doc.interfaces()
                if w.interface in records)  # fmt: skip
    pairs = [*_staying(want, live, record), *_going(want, live, record)]
    return replace(
        want,
        peers=tuple(peer for peer, _ in pairs),
        psks=tuple(psk for _, psk in pairs),
        addresses=_with_old(want.addresses, record.addresses, live.addresses, elsewhere),
        routes=_with_old(want.routes, record.routes, live.routes, elsewhere),
        default_route=DEFAULT in record.routes,
        fwmark=live.fwmark if turns else want.fwmark,
    )


def _staying(
    want: WireGuard, live: InterfaceFacts, record: InterfaceRecord
) -> Iterator[tuple[Peer, Secret | None]]:
    """The peers that are wanted, with what they have and what is nobody's."""
    holders = _holders(want, live)
    # Packets take the default route as soon as it is there.
    later = set(DEFAULT_ROUTES.values()) if want.default_route and DEFAULT not in record.routes else set()
    for peer, psk in zip(want.peers, want.psks):
        found = live.peers.get(peer.public_key) if peer.public_key else None
        allowed = {prefix for prefix in peer.allowed_ips if prefix not in holders and prefix not in later}
        allowed.update(found.allowed_ips if found else ())
        yield (peer if allowed == set(peer.allowed_ips) else replace(peer, allowed_ips=sort_prefixes(allowed))), psk


def _going(want: WireGuard, live: InterfaceFacts, record: InterfaceRecord) -> Iterator[tuple[Peer, Secret | None]]:
    """The peers of ours that are no longer wanted, with what nobody takes from them."""
    holders = _holders(want, live)
    wanted = {prefix for peer in want.peers for prefix in peer.allowed_ips}
    for key in sorted(live.peers.keys() - {peer.public_key for peer in want.peers}):
        found, applied = live.peers[key], record.peers.get(key.text)
        allowed = [prefix for prefix in found.allowed_ips if prefix in holders or prefix not in wanted]
        if applied is not None and allowed:
            endpoint = applied.endpoint if found.endpoint else None
            yield Peer(key.text, key, sort_prefixes(allowed), endpoint, applied.keepalive_s), found.psk


def _holders(want: WireGuard, live: InterfaceFacts) -> dict[str, PublicKey]:
    """Which peer has each prefix. What has the address of a peer that is no longer wanted is that node's new key, or
    its successor: there is nobody behind the old one, so its address is nobody's."""
    wanted = {peer.public_key for peer in want.peers}
    return {
        prefix: key for key, peer in live.peers.items() for prefix in peer.allowed_ips
        if key in wanted or not prefix.endswith(("/32", "/128"))
    }  # fmt: skip


def _with_old(
    wanted: tuple[str, ...], owned: tuple[str, ...], live: tuple[str, ...], elsewhere: set[str]
) -> tuple[str, ...]:
    """What is wanted, and of what is ours what is still there; not what another interface is about to get."""
    return (*wanted, *(each for each in owned if each in live and each not in wanted and each not in elsewhere))


def brings_up(path: str, interfaces: Collection[str]) -> bool:
    """Whether wg-quick or systemd-networkd brings one of the interfaces up by this file: a boot finds it as it was
    until the second round."""
    file = PurePosixPath(path)
    return str(file.parent) in _BOOT_FOLDERS and any(
        file.stem == name or file.stem.endswith(f"-{name}") for name in interfaces
    )
