"""Pre-shared keys by derivation: HKDF-SHA256 (RFC 5869) from one mesh secret and a pair's public keys.

Nothing is stored and nothing is sent between nodes: whoever has the mesh secret can make the key of any pair again,
and who has one pair's key learns nothing about another's.
"""

from __future__ import annotations

import hashlib
import hmac
from binascii import b2a_base64
from collections import defaultdict
from collections.abc import Iterable

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
        self._raw: dict[str, bytes] = {}
        self._begun: dict[bytes, hashlib._Hash] = {}
        self._waiting: dict[bytes, dict[bytes, Secret]] = defaultdict(dict)  # other end -> this end -> key

    def __repr__(self) -> str:
        return "PskRing(…)"

    def psk(self, a: PublicKey, b: PublicKey) -> Secret:
        """32 bytes of HKDF(secret, label + sorted raw keys), in base64."""
        return self._derive(self._bytes(a), self._bytes(b))

    def psks(self, own: PublicKey, others: Iterable[PublicKey | None]) -> tuple[Secret | None, ...]:
        """`psk(own, other)` for each of `others`; None for None."""
        one = self._bytes(own)
        here = self._waiting.pop(one, {})
        raw, waiting = self._raw, self._waiting
        out: list[Secret | None] = []
        for key in others:
            if key is None:
                out.append(None)
                continue
            other = raw.get(key.text) or self._bytes(key)
            known = here.get(other)
            if known is None:
                known = waiting[other][one] = self._derive(one, other)
            out.append(known)
        return tuple(out)

    def _bytes(self, key: PublicKey) -> bytes:
        if key.text not in self._raw:
            self._raw[key.text] = key.raw()
        return self._raw[key.text]

    def _derive(self, one: bytes, other: bytes) -> Secret:
        first, second = (one, other) if one < other else (other, one)
        begun = self._begun.get(first)
        if begun is None:
            begun = self._begun[first] = self._inner.copy()
            begun.update(first)
        inner = begun.copy()
        inner.update(second + b"\x01")
        outer = self._outer.copy()
        outer.update(inner.digest())
        return Secret(b2a_base64(outer.digest(), newline=False).decode())
