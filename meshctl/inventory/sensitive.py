"""Secrets that somebody typed into a file by mistake: findings about such a line must not carry them into CI logs."""

from __future__ import annotations

import re

# What stands where a secret would and is none.
_WORDS = frozenset({"", "true", "false", "null", "~", "yes", "no", "on", "off"})
_NAME = r"(?:private_?key|preshared_?key|psk|secret|token|pass(?:word|wd|phrase)?|sudo_pass(?:word)?)"
_SENSITIVE_NAME = re.compile(_NAME + r"\Z", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"(?<![A-Za-z0-9_])({_NAME}['\"]?\s*:\s*)(\"[^\"]*\"?|'[^']*'?|[^\s,{{}}\[\]#&*|>'\"][^\s,}}#]*)", re.IGNORECASE
)


def is_sensitive(path: tuple[object, ...], value: object) -> bool:
    """Whether the text at `path` of a document may be a secret."""
    last = next((part for part in reversed(path) if isinstance(part, str)), "")
    return isinstance(value, str) and value.lower() not in _WORDS and bool(_SENSITIVE_NAME.match(last))


def mask(line: str) -> str:
    """A source line with `*` for what may be a secret, as long as before, so that a caret stays true."""

    def starred(found: re.Match[str]) -> str:
        value = found[2]
        return found[1] + (value if value.lower() in _WORDS else "*" * len(value))

    return _ASSIGNED.sub(starred, line)
