"""Pre-shared keys by derivation: HKDF-SHA256 (RFC 5869) from one mesh secret and a pair's public keys.

Nothing is stored and nothing is sent between nodes: whoever has the mesh secret can make the key of any pair again,
and who has one pair's key learns nothing about another's.
"""

from __future__ import annotations

import hashlib
import hmac
from binascii import b2a_base64
from collections.abc import Sequence

from meshctl.model.keys import PublicKey, Secret, SecretRow

# For messages of one block, making OpenSSL's objects costs more than the hashing; Python's own SHA-256 is lighter.
try:
    from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]  # from Python 3.12
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]
    except ImportError:  # a Python built without it
        from hashlib import sha256

# Labels separate this use of the mesh secret from any other (RFC 5869 sections 3.1 and 3.2).
EXTRACT_SALT = b"meshctl mesh secret v1"
# 32 bytes: with the HMAC key's block and the first public key it fills two blocks of SHA-256, so that what is left to
# do for a pair is one block.
EXPAND_LABEL = b"meshctl pre-shared key of a pair"

_BLOCK_BYTES = 64  # of SHA-256
_IPAD = bytes(x ^ 0x36 for x in range(256))  # RFC 2104
_OPAD = bytes(x ^ 0x5C for x in range(256))


def hkdf_extract(salt: bytes, key_material: bytes) -> bytes:
    """RFC 5869 section 2.2 with SHA-256: a pseudo-random key of 32 bytes."""
    return hmac.new(salt or bytes(hashlib.sha256().digest_size), key_material, hashlib.sha256).digest()


class _End:
    """One public key: its bytes, the HMAC state with it as the first of a pair, and keys that wait for it."""

    __slots__ = ("begin", "last", "made_by", "raw", "waiting")

    def __init__(self, raw: bytes, keyed: hashlib._Hash) -> None:
        self.raw = raw
        begun = keyed.copy()
        begun.update(raw)
        self.begin = begun.copy
        self.last = raw + b"\x01"  # the second of a pair, and HKDF's counter of the first block
        self.waiting: list[str | None] = []  # the keys of pairs whose other end asked first
        self.made_by: list[str | None] = []  # and for each of them that end's key text


class PskRing:
    """Makes the pre-shared key of any pair of public keys; the order of the two does not matter.

    A full mesh of 1,000 nodes needs half a million keys, so HKDF-Expand of one block (RFC 5869 section 2.3) is
    written out here: the HMAC states that depend on the secret and on one of the keys are kept, and each pair's key
    is kept from its first use (by one end) to its second (by the other).
    """

    def __init__(self, secret: Secret) -> None:
        padded = hkdf_extract(EXTRACT_SALT, secret.reveal().encode()).ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(padded.translate(_IPAD) + EXPAND_LABEL)
        self._outer = sha256(padded.translate(_OPAD))
        self._ends: dict[str, _End] = {}

    def __repr__(self) -> str:
        return "PskRing(…)"

    def psk(self, a: PublicKey, b: PublicKey) -> Secret:
        """32 bytes of HKDF(secret, label + sorted raw keys), in base64."""
        return next(filter(None, self.psks(a, [b])))

    def psks(self, own: PublicKey, others: Sequence[PublicKey | None]) -> SecretRow:
        """`psk(own, other)` for each of `others`; None for None."""
        me = self._end(own)
        name, raw, begin, last, finish = own.text, me.raw, me.begin, me.last, self._outer.copy
        texts, known = self._take(me, others)
        for i in range(known, len(texts)):
            key = others[i]
            if key is None or texts[i] is not None:
                continue
            other = self._ends.get(key.text) or self._end(key)
            if other.raw < raw:
                inner = other.begin()
                inner.update(last)
            else:
                inner = begin()
                inner.update(other.last)
            outer = finish()
            outer.update(inner.digest())
            text = texts[i] = b2a_base64(outer.digest(), newline=False).decode()
            other.waiting.append(text)
            other.made_by.append(name)
        return SecretRow(texts)

    @staticmethod
    def _take(me: _End, others: Sequence[PublicKey | None]) -> tuple[list[str | None], int]:
        """The keys that waited for `me`, each at its name's place, and how many of the first places are known full."""
        names = [None if key is None else key.text for key in others]
        waiting, made_by = me.waiting, me.made_by
        me.waiting, me.made_by = [], []
        count = len(waiting)
        if names[:count] == made_by:  # as when all nodes of a mesh ask in the order in which they are listed as peers
            return waiting + [None] * (len(names) - count), count
        return list(map(dict(zip(made_by, waiting)).get, names)), 0

    def _end(self, key: PublicKey) -> _End:
        end = self._ends.get(key.text)
        if end is None:
            end = self._ends[key.text] = _End(key.raw(), self._inner)
        return end
