"""Peers of a live interface: what differs, by the rules of ownership."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshctl.core.change import Change
from meshctl.core.diff.keys import KNOWN_AFTER_APPLY
from meshctl.core.prefixes import sort_prefixes
from meshctl.model.facts import InterfaceFacts, PeerFacts
from meshctl.model.keys import PublicKey, Secret
from meshctl.model.ledger import InterfaceRecord, PeerRecord
from meshctl.model.resources import Peer, WireGuard


def peer_changes(
    index: int, want: WireGuard, live: InterfaceFacts, record: InterfaceRecord | None, node: str
) -> tuple[Change, ...]:
    """Changes named `IFACE PEER` (`IFACE PUBLICKEY` for removals).

    A prefix that moves between peers moves in one step when its new owner takes it, so peers that gain come first,
    those that only lose after them, removals last: at no moment does a prefix belong to nobody.
    """
    gaining: list[Change] = []
    others: list[Change] = []
    for peer, psk in zip(_as_followed(want.peers, live), want.psks):
        name = f"{want.interface} {peer.name}"
        found = live.peers.get(peer.public_key) if peer.public_key else None
        if found is None:
            gaining.append(Change(node, "peer", "create", name, None, _creation(peer, psk), index))
            continue
        before, after = _differing(peer, psk, found, record)
        if after:
            gains = not set(peer.allowed_ips) <= set(found.allowed_ips)
            (gaining if gains else others).append(Change(node, "peer", "update", name, before, after, index))
    return (*gaining, *others, *_removals(index, want, live, record, node))


def _as_followed(peers: tuple[Peer, ...], live: InterfaceFacts) -> tuple[Peer, ...]:
    """The wanted peers. Prefixes belong to a peer's next key once its node has switched to that: the newer handshake
    says which of the two it uses. Without one they stay where the host has brought them (`meshctl.agent.follow`)."""
    moved: dict[PublicKey, tuple[str, ...]] = {}
    for peer in peers:
        key, following = peer.public_key, peer.next_key
        if key and following and key in live.peers and following in live.peers:
            now, later = live.peers[key], live.peers[following]
            are_there = not now.allowed_ips and set(later.allowed_ips) == set(peer.allowed_ips)
            newer = later.latest_handshake - now.latest_handshake
            if newer > 0 or (newer == 0 and are_there):
                moved |= {key: (), following: peer.allowed_ips}
    if not moved:
        return peers
    return tuple(
        replace(peer, allowed_ips=moved[peer.public_key]) if peer.public_key and peer.public_key in moved else peer
        for peer in peers
    )


def shown_secret(secret: Secret | None) -> str | None:
    """A pre-shared key as plans show it: two different ones can be told apart, none can be read."""
    return None if secret is None else f"(sensitive {secret.fingerprint()})"


def _creation(peer: Peer, psk: Secret | None) -> dict[str, Any]:
    return {
        "public_key": peer.public_key.text if peer.public_key else KNOWN_AFTER_APPLY,
        "allowed_ips": list(peer.allowed_ips),
        "psk": shown_secret(psk) if peer.public_key else KNOWN_AFTER_APPLY,
        "endpoint": peer.endpoint,
        "keepalive_s": peer.keepalive_s,
    }


def _differing(
    peer: Peer, psk: Secret | None, found: PeerFacts, record: InterfaceRecord | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    applied = record.peers.get(found.public_key.text) if record else None
    if set(peer.allowed_ips) != set(found.allowed_ips):
        before["allowed_ips"], after["allowed_ips"] = list(sort_prefixes(found.allowed_ips)), list(peer.allowed_ips)
    if psk != found.psk:
        before["psk"], after["psk"] = shown_secret(found.psk), shown_secret(psk)
    if endpoint_is_due(peer, found, applied):
        # Not the live endpoint: it may roam between plan and apply, and the plan is no staler for that.
        known = applied.endpoint if applied and found.endpoint else None
        before["endpoint"], after["endpoint"] = known, peer.endpoint
    keepalive_s = applied.keepalive_s if applied else found.keepalive_s
    if keepalive_s != peer.keepalive_s:
        before["keepalive_s"], after["keepalive_s"] = keepalive_s, peer.keepalive_s
    if record is not None and applied is None and not after:
        before["managed"], after["managed"] = False, True
    return before, after


def endpoint_is_due(peer: Peer, found: PeerFacts, applied: PeerRecord | None) -> bool:
    """Whether the repository's endpoint is to be set: there is none, or the repository itself changed it. A live
    endpoint of a peer that is just adopted works for somebody and stays."""
    if peer.endpoint is None:
        return False
    return found.endpoint is None or (applied is not None and applied.endpoint != peer.endpoint)


def _removals(
    index: int, want: WireGuard, live: InterfaceFacts, record: InterfaceRecord | None, node: str
) -> tuple[Change, ...]:
    wanted = {peer.public_key.text for peer in want.peers if peer.public_key}
    owned = sorted(record.peers) if record else []
    gone = [key for key in owned if key not in wanted]
    return removed_peers(index, want.interface, gone, live, node)


def removed_peers(index: int, interface: str, keys: list[str], live: InterfaceFacts, node: str) -> tuple[Change, ...]:
    """One removal for each of `keys` that is a peer of the live interface."""
    found = {key.text: peer for key, peer in live.peers.items()}
    return tuple(
        Change(
            node, "peer", "delete", f"{interface} {key}",
            {"public_key": key, "allowed_ips": list(sort_prefixes(found[key].allowed_ips))}, None, index,
        )
        for key in keys
        if key in found
    )
