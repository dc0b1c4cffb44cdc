"""Secrets that somebody typed into a file by mistake: findings about such a line must not carry them into CI logs."""

from __future__ import annotations

import re

# What stands where a secret would and is none.
_WORDS = frozenset({"", "true", "false", "null", "~", "yes", "no", "on", "off", "|", ">", "|-", ">-"})
# A name that holds one of these, or a part that is one but for a slip of the finger, names a secret.
_LONG = (
    "password", "passwd", "passphrase", "secret", "token", "private", "preshared", "credential", "privatekey",
    "presharedkey",
)  # fmt: skip
# Too short for slips: `psk` is one letter away from half of the alphabet.
_SHORT = frozenset({"pass", "pwd", "psk", "key"})
# Keys that everybody may see.
_OPEN = frozenset({"public", "pub", "publickey", "pubkey", "host", "authorized"})
_PART = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_KEY = re.compile(r"([\w.-]+)['\"]?\s*[:=]\s*")
_QUOTED = r"\"(?:\\.|[^\"\\])*\"?|'(?:''|[^'])*'?"
_SCALAR = re.compile(_QUOTED + r"|[^\s{}\[\],'\"][^{}\[\],]*")
_PIECE = re.compile(_QUOTED + "|.", re.DOTALL)
_COMMENT = re.compile(r"\s#")
# What `ssh.key` names is a file.
_KEY_FILE = re.compile(r"['\"]?(?:~|\.\.?)/")
# Below these stand names that people chose.
_NAMED = frozenset({"nodes", "groups", "networks", "services"})


def is_sensitive(path: tuple[object, ...], value: object) -> bool:
    """Whether the text at `path` of a document may be a secret."""
    last = next((part for part in reversed(path) if isinstance(part, str)), "")
    return isinstance(value, str) and value.lower() not in _WORDS and _names_secret(last)


def mask(line: str, path: str = "") -> str:
    """A source line with `*` for what may be a secret, as long as before, so that a caret stays true.

    `path` is the place of the finding (`secret.value`): below a secret's name all values may be secret.
    """
    around = path.split(".")[:-1]
    if around and around[0] in _NAMED:
        del around[:2]
    if any(map(_names_secret, around)):
        return _mask_all(line)
    shown, done = [], 0
    for found in _KEY.finditer(line):
        if found[1] == "key" and _KEY_FILE.match(line, found.end()):
            continue
        if found.start() >= done and _names_secret(found[1]):
            end = _end_of_value(line, found.end())
            shown += [line[done : found.end()], _mask_all(line[found.end() : end])]
            done = end
    return "".join((*shown, line[done:]))


def _names_secret(name: str) -> bool:
    parts = [part.lower() for part in _PART.findall(name)]
    joined = "".join(parts)
    if any(word in joined for word in _LONG) or any(_is_slip(part, word) for part in parts for word in _LONG):
        return True
    return not _SHORT.isdisjoint(parts) and _OPEN.isdisjoint(parts)


def _is_slip(typed: str, word: str) -> bool:
    """Whether one letter is missing, too many, another one, or two have changed places."""
    if typed == word or abs(len(typed) - len(word)) > 1:
        return typed == word
    start = next((i for i, (a, b) in enumerate(zip(typed, word, strict=False)) if a != b), min(len(typed), len(word)))
    ours, theirs = typed[start:], word[start:]
    return (
        ours[1:] == theirs[1:] or ours[1:] == theirs or ours == theirs[1:]
        or (ours[:2] == theirs[1::-1] and ours[2:] == theirs[2:])
    )  # fmt: skip


def _end_of_value(line: str, start: int) -> int:
    """Where the value at `start` ends: at its closing quote or bracket, or with what it stands in."""
    first = line[start : start + 1]
    inside = line.count("{", 0, start) + line.count("[", 0, start) > 0  # else commas and brackets are text
    depth = 0
    for piece in _PIECE.finditer(line, start):
        depth += (piece[0] in "{[") - (piece[0] in "}]")
        if depth < 0 or (inside and depth == 0 and piece[0] == ","):
            return piece.start()
        if depth == 0 and (first in ("{", "[") or (piece.start() == start and first in ("'", '"'))):
            return piece.end()
    comment = _COMMENT.search(line, start)
    return comment.start() if comment else len(line)


def _mask_all(text: str) -> str:
    """All but the names of keys."""

    def starred(found: re.Match[str]) -> str:
        if re.match(r"\s*:", text[found.end() :]):  # a quoted key
            return found[0]
        key, colon, value = re.match(r"(?s)((?:[^:]|:(?=\S))*)(:\s+|:\Z)?(.*)", found[0]).groups("")  # type: ignore[union-attr]
        if not colon:
            key, value = "", key
        bare = value.rstrip()
        return key + colon + (bare if bare.lower() in _WORDS else "*" * len(bare)) + value[len(bare) :]

    return _SCALAR.sub(starred, text)
