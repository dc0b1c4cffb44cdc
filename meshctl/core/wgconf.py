"""Peers as text: stanzas of wg(8)/wg-quick(8) configs and of systemd.netdev(5) files.

A stanza without its pre-shared key is the same for every node that shares the `Peer` object; only the key's line
belongs to a pair.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Stanzas of shared peers, made once. One cache per kind of file; it lives as long as the topology."""

    def __init__(self, section: str = WG_SECTION) -> None:
        self._section = section
        # By identity: hashing a Peer by its fields would cost more than writing it. The peers are kept alive with it.
        self._known: dict[int, str] = {}
        self._peers: list[Peer] = []

    def text(self, peers: Sequence[Peer], psks: SecretRow) -> str:
        """All stanzas, each with its key and after an empty line; peers whose key is unknown are left out."""
        try:
            stanzas = list(map(self._known.__getitem__, map(id, peers)))
        except KeyError:
            self._add(peers)
            return self.text(peers, psks)
        return "".join(
            [f"{text}PresharedKey = {key}\n" if key else text for text, key in zip(stanzas, psks.reveal())]
        )

    def _add(self, peers: Sequence[Peer]) -> None:
        for peer in peers:
            if id(peer) not in self._known:
                self._known[id(peer)] = "\n" + stanza(peer, self._section) if peer.public_key else ""
                self._peers.append(peer)
