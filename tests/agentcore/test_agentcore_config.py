"""The agent's configuration: keys by derivation, and what it refuses."""

from __future__ import annotations

import pytest
from agentcore_values import interface, key, peer
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from meshctl.core.agent.config import PeerConfig, node_id, pair_key, purpose_key


def test_the_keys_of_a_pair_are_hkdf_of_its_psk() -> None:
    psk = bytes(range(32))
    assert pair_key(psk) != psk
    whole = HKDF(hashes.SHA256(), 32, b"meshctl agent v1", b"probes").derive(psk)
    assert purpose_key(pair_key(psk), b"probes") == whole
    assert purpose_key(psk, b"probes") == HKDFExpand(hashes.SHA256(), 32, b"probes").derive(psk)


def test_a_node_is_named_on_the_wire_by_eight_bytes_of_its_keys_hash() -> None:
    assert peer("a", "b", 2).id == node_id(key("b"))
    assert len({node_id(key(str(n))) for n in range(1000)}) == 1000
    assert {len(node_id(key(str(n)))) for n in range(10)} == {8}


def test_a_peer_does_not_print_its_key() -> None:
    assert repr(peer("a", "b", 2).pair_key) not in repr(interface("a", 1, peer("a", "b", 2)))


@pytest.mark.parametrize("settings", [{"kind": "router"}, {"override": "direct!"}])
def test_a_word_that_a_setting_does_not_know_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is none of"):
        peer("a", "b", 2, **settings)


def test_a_peer_without_a_whole_key_or_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="must have 32 bytes"):
        PeerConfig("b", key("b"), ("10.42.0.2",), b"short")
    with pytest.raises(ValueError, match="has no mesh address"):
        PeerConfig("b", key("b"), (), bytes(32))


def test_two_peers_cannot_share_a_name_a_key_or_an_address() -> None:
    for twin in (peer("a", "b", 3), peer("a", "c", 2), peer("a", "c", 1), peer("a", "a", 3)):
        with pytest.raises(ValueError, match="given twice"):
            interface("a", 1, peer("a", "b", 2), twin)
