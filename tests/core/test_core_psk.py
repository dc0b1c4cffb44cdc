"""Pre-shared keys: RFC 5869, and what a ring promises."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from meshctl.core.psk import EXPAND_LABEL, EXTRACT_SALT, PskRing, hkdf_extract
from meshctl.model.keys import PublicKey, Secret, is_key_text

SECRET = Secret("correct horse battery staple, thirty-two bytes and more")

# RFC 5869 appendix A, the cases with SHA-256: IKM, salt, PRK.
VECTORS = [
    ("0b" * 22, "000102030405060708090a0b0c", "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"),
    (
        bytes(range(0x00, 0x50)).hex(), bytes(range(0x60, 0xB0)).hex(),
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
    ),
    ("0b" * 22, "", "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"),
]

keys = st.binary(min_size=32, max_size=32).map(lambda raw: PublicKey(_b64(raw)))


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode()


@pytest.mark.parametrize(("ikm", "salt", "prk"), VECTORS)
def test_hkdf_extract_gives_the_rfc_s_test_vectors(ikm: str, salt: str, prk: str) -> None:
    assert hkdf_extract(bytes.fromhex(salt), bytes.fromhex(ikm)).hex() == prk


@given(keys, keys)
def test_a_pair_s_key_is_the_same_from_both_sides_and_from_another_ring(a: PublicKey, b: PublicKey) -> None:
    key = PskRing(SECRET).psk(a, b)
    assert PskRing(SECRET).psk(b, a) == key
    assert is_key_text(key.reveal())


@given(keys, keys)
def test_a_pair_s_key_is_hkdf_as_another_library_computes_it(a: PublicKey, b: PublicKey) -> None:
    info = EXPAND_LABEL + b"".join(sorted((a.raw(), b.raw())))
    other = HKDF(SHA256(), 32, EXTRACT_SALT, info).derive(SECRET.reveal().encode())
    assert b64decode(PskRing(SECRET).psk(a, b).reveal()) == other


@given(st.lists(keys, min_size=2, max_size=8, unique=True), st.permutations(range(8)))
def test_keys_in_bulk_are_the_keys_one_by_one_whatever_the_order_of_the_nodes(
    nodes: list[PublicKey], order: list[int]
) -> None:
    ring = PskRing(SECRET)
    for _ in range(2):
        for own in (nodes[i] for i in order if i < len(nodes)):
            others = [*(n for n in nodes if n != own), None]
            assert tuple(ring.psks(own, others)) == (*(PskRing(SECRET).psk(own, n) for n in others[:-1]), None)


def test_different_pairs_and_different_secrets_have_different_keys() -> None:
    nodes = [PublicKey(_b64(bytes([i]) * 32)) for i in range(4)]
    rings = [PskRing(SECRET), PskRing(Secret(SECRET.reveal() + "x"))]
    made = [ring.psk(a, b).reveal() for ring in rings for a in nodes for b in nodes if a < b]
    assert len(set(made)) == len(made)


def test_a_ring_does_not_print_its_secret() -> None:
    ring = PskRing(SECRET)
    ring.psk(PublicKey(_b64(bytes(32))), PublicKey(_b64(b"1" * 32)))
    assert SECRET.reveal() not in repr(ring) + str(ring)
