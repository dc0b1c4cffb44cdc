"""Secrets that somebody typed into a file by mistake: findings about such a line must not carry them into CI logs."""

from __future__ import annotations

import re

# Shorter texts are mistakes for true and false, or too weak to be anybody's secret.
_MIN_LENGTH = 8
_NAME = r"(?:private_?key|preshared_?key|psk|secret|token|pass(?:word|wd|phrase)?|sudo_pass(?:word)?)"
_SENSITIVE_NAME = re.compile(_NAME + r"\Z", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"(?<![A-Za-z0-9_])({_NAME}['\"]?\s*:\s*)(\"[^\"]*\"?|'[^']*'?|[^\s,{{}}\[\]#&*|>'\"][^\s,}}#]*)", re.IGNORECASE
)


def is_sensitive(path: tuple[object, ...], value: object) -> bool:
    """Whether the text at `path` of a document may be a secret."""
    last = next((part for part in reversed(path) if isinstance(part, str)), "")
    return isinstance(value, str) and len(value) >= _MIN_LENGTH and bool(_SENSITIVE_NAME.match(last))


def mask(line: str) -> str:
    """A source line with `*` for what may be a secret, as long as before, so that a caret stays true."""

    def starred(found: re.Match[str]) -> str:
        value = found[2]
        return found[1] + (value if len(value) < _MIN_LENGTH else "*" * len(value))

    return _ASSIGNED.sub(starred, line)
