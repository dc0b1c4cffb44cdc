"""WireGuard keys as types: a public half that may be shown, and secrets that cannot print themselves."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

KEY_BYTES = 32
REDACTED = "(sensitive)"


def is_key_text(text: str) -> bool:
    """Whether `text` is a WireGuard key: 44 characters of canonical base64 for 32 bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == KEY_BYTES and base64.b64encode(raw).decode() == text


@dataclass(frozen=True, order=True)
class PublicKey:
    """A public key in WireGuard's base64 text. Raises ValueError for anything else."""

    text: str

    def __post_init__(self) -> None:
        if not is_key_text(self.text):
            raise ValueError(f"not a WireGuard public key: {self.text!r}")

    def __str__(self) -> str:
        return self.text

    def __hash__(self) -> int:
        return hash(self.text)  # without a tuple around it: what is known of peers is looked up by key

    def raw(self) -> bytes:
        """The 32 bytes."""
        return base64.b64decode(self.text)


class Secret:
    """Text that redacts itself in repr, str, format, and refuses to be pickled or serialised by accident.

    `reveal()` is the one way to the text; call it where the bytes leave for a file or a socket, nowhere else.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def fingerprint(self) -> str:
        """Twelve hex digits that tell two secrets apart. Only for secrets of full entropy (keys)."""
        import hashlib  # here, for it loads OpenSSL, and reading an inventory needs no hash

        return hashlib.sha256(self._text.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised; reveal() it where it is written")

    def __getstate__(self) -> Any:
        raise TypeError("a Secret is not serialised; reveal() it where it is written")


class SecretRow:
    """Secrets in a row, None where there is none, in one object that redacts itself as Secret does.

    A full mesh of a thousand nodes has a million ends of pre-shared keys: too many for an object each.
    """

    __slots__ = ("_texts",)

    def __init__(self, texts: Sequence[str | None]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Secret | None]:
        return (None if text is None else Secret(text) for text in self._texts)

    def reveal(self) -> Sequence[str | None]:
        """The texts themselves."""
        return self._texts

    def __repr__(self) -> str:
        return REDACTED

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not serialised; reveal() them where they are written")
