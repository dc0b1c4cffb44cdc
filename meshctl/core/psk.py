"""Pre-shared keys by derivation: HKDF-SHA256 (RFC 5869) from one mesh secret and a pair's public keys.

Nothing is stored and nothing is sent between nodes: whoever has the mesh secret can make the key of any pair again,
and who has one pair's key learns nothing about another's.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac

from meshctl.model.keys import PublicKey, Secret

# Labels separate this use of the mesh secret from any other (RFC 5869 sections 3.1 and 3.2).
EXTRACT_SALT = b"meshctl mesh secret v1"
EXPAND_LABEL = b"meshctl pair psk v1"

_BLOCK_BYTES = 64  # of SHA-256
_IPAD = bytes(x ^ 0x36 for x in range(256))  # RFC 2104
_OPAD = bytes(x ^ 0x5C for x in range(256))


def hkdf_extract(salt: bytes, key_material: bytes) -> bytes:
    """RFC 5869 section 2.2 with SHA-256: a pseudo-random key of 32 bytes."""
    return hmac.new(salt or bytes(hashlib.sha256().digest_size), key_material, hashlib.sha256).digest()


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 section 2.3 with SHA-256. Raises ValueError for more than 255 blocks."""
    size = hashlib.sha256().digest_size
    if not 0 < length <= 255 * size:
        raise ValueError(f"HKDF-SHA256 gives 1 to {255 * size} bytes, not {length}")
    out = block = b""
    counter = 0
    while len(out) < length:
        counter += 1
        block = hmac.new(key, block + info + bytes((counter,)), hashlib.sha256).digest()
        out += block
    return out[:length]


class PskRing:
    """Makes the pre-shared key of any pair of public keys; the order of the two does not matter.

    A full mesh of 1,000 nodes needs half a million keys, so this is `hkdf_expand` of one block written out: the HMAC
    states that depend on the secret and on one of the keys are kept, and each pair's key is kept from its first use
    (by one end) to its second (by the other).
    """

    def __init__(self, secret: Secret) -> None:
        padded = hkdf_extract(EXTRACT_SALT, secret.reveal().encode()).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(padded.translate(_IPAD) + EXPAND_LABEL)
        self._outer = hashlib.sha256(padded.translate(_OPAD))
        self._by_first: dict[bytes, hashlib._Hash] = {}
        self._raw: dict[PublicKey, bytes] = {}
        self._half_used: dict[bytes, Secret] = {}

    def __repr__(self) -> str:
        return "PskRing(…)"

    def psk(self, a: PublicKey, b: PublicKey) -> Secret:
        """32 bytes of HKDF(secret, label + sorted raw keys), in base64."""
        one, other = self.raw(a), self.raw(b)
        first, second = (one, other) if one < other else (other, one)
        pair = first + second
        known = self._half_used.pop(pair, None)
        if known is None:
            known = self._half_used[pair] = self._derive(first, second)
        return known

    def raw(self, key: PublicKey) -> bytes:
        """The key's 32 bytes, decoded once."""
        raw = self._raw.get(key)
        if raw is None:
            raw = self._raw[key] = key.raw()
        return raw

    def _derive(self, first: bytes, second: bytes) -> Secret:
        begun = self._by_first.get(first)
        if begun is None:
            begun = self._by_first[first] = self._inner.copy()
            begun.update(first)
        inner = begun.copy()
        inner.update(second + b"\x01")
        outer = self._outer.copy()
        outer.update(inner.digest())
        return Secret(binascii.b2a_base64(outer.digest(), newline=False).decode())
