"""Peers as text: stanzas of wg(8)/wg-quick(8) configs and of systemd.netdev(5) files.

A stanza without its pre-shared key is the same for every node that shares the `Peer` object; only the key's line
belongs to a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from meshctl.core.endpoints import set_apart
from meshctl.model.keys import SecretRow
from meshctl.model.resources import Peer

WG_SECTION = "[Peer]"
NETWORKD_SECTION = "[WireGuardPeer]"


def stanza(peer: Peer, section: str = WG_SECTION) -> str:
    """One peer, without pre-shared key, ending in a newline. The public key must be known."""
    lines = [f"# {peer.name}", section, f"PublicKey = {peer.public_key}"]
    if peer.allowed_ips:
        lines.append(f"AllowedIPs = {', '.join(peer.allowed_ips)}")
    if peer.endpoint:
        lines.append(f"Endpoint = {peer.endpoint}")
    if peer.keepalive_s:
        lines.append(f"PersistentKeepalive = {peer.keepalive_s}")
    return "\n".join(lines) + "\n"


class StanzaCache:
    """Stanzas of shared peers, made once. One cache per kind of file; it lives as long as the topology.

    With `names_apart`, endpoints that commands of their own set (core.endpoints.set_apart) are left out.
    """

    def __init__(self, section: str = WG_SECTION, *, names_apart: bool = False) -> None:
        self._section = section
        self._names_apart = names_apart
        self._apart: set[int] = set()
        # By identity: hashing a Peer by its fields would cost more than writing it. The peers are kept alive with it.
        self._known: dict[int, str] = {}
        self._keyed: dict[int, str] = {}  # the same after the end of a key's line, up to where the next key follows
        self._peers: list[Peer] = []

    def text(self, peers: Sequence[Peer], psks: SecretRow) -> str:
        """All stanzas, each with its key and after an empty line; peers whose key is unknown are left out."""
        keys = psks.reveal()
        try:
            if keys and all(keys):
                return self._all_keyed(peers, keys)
            stanzas = list(map(self._known.__getitem__, map(id, peers)))
        except KeyError:
            self._add(peers)
            return self.text(peers, psks)
        return "".join([f"{text}PresharedKey = {key}\n" if key else text for text, key in zip(stanzas, keys)])

    def apart(self, peers: Sequence[Peer]) -> list[Peer]:
        """Those of `peers`, which `text` was asked for before, whose endpoint was left out."""
        return [peer for peer in peers if id(peer) in self._apart] if self._apart else []

    def _all_keyed(self, peers: Sequence[Peer], keys: Sequence[str | None]) -> str:
        """As `text`, where every peer has a key: a full mesh is a million of them, so one join, without more strings.

        Raises KeyError for a peer that is not in the cache.
        """
        parts: list[Any] = [None] * (2 * len(keys))
        parts[::2] = map(self._keyed.__getitem__, map(id, peers))
        parts[1::2] = keys
        parts[0] = parts[0][1:]  # there is no key's line to end before the first stanza
        parts.append("\n")
        return "".join(parts)

    def _add(self, peers: Sequence[Peer]) -> None:
        for peer in peers:
            if id(peer) not in self._known:
                apart = self._names_apart and set_apart(peer)
                shown = replace(peer, endpoint=None) if apart else peer
                text = "\n" + stanza(shown, self._section) if peer.public_key else ""
                if apart and peer.public_key:
                    self._apart.add(id(peer))
                self._known[id(peer)] = text
                self._keyed[id(peer)] = f"\n{text}PresharedKey = "
                self._peers.append(peer)
