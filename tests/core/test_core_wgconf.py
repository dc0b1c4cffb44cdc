"""Peers' stanzas: the fast way of a full mesh and the general one write the same text."""

from __future__ import annotations

from base64 import b64encode

import pytest

from meshctl.core.wgconf import NETWORKD_SECTION, WG_SECTION, StanzaCache, stanza
from meshctl.model.keys import PublicKey, SecretRow
from meshctl.model.resources import Peer

PEERS = tuple(
    Peer(f"n{i}", PublicKey(b64encode(bytes([i]) * 32).decode()), (f"10.42.0.{i}/32",), f"203.0.113.{i}:51820", 0)
    for i in range(1, 4)
)


@pytest.mark.parametrize("section", [WG_SECTION, NETWORKD_SECTION])
@pytest.mark.parametrize("keys", [("k1", "k2", "k3"), ("k1", None, "k3"), (None, None, None)], ids=str)
def test_each_stanza_follows_an_empty_line_and_ends_with_its_key(section: str, keys: tuple[str | None, ...]) -> None:
    lines = [f"PresharedKey = {key}\n" if key else "" for key in keys]
    expected = "".join(f"\n{stanza(peer, section)}{line}" for peer, line in zip(PEERS, lines, strict=True))
    cache = StanzaCache(section)
    assert [cache.text(PEERS, SecretRow(keys)) for _ in range(2)] == [expected, expected]


def test_a_node_without_peers_has_no_stanzas() -> None:
    assert StanzaCache().text((), SecretRow(())) == ""


def test_a_peer_whose_key_is_unknown_is_left_out() -> None:
    unknown = Peer("new", None, ("10.42.0.9/32",), None, 0)
    cache = StanzaCache()
    assert cache.text((unknown, *PEERS), SecretRow((None, "a", "b", "c"))) == cache.text(PEERS, SecretRow("abc"))
