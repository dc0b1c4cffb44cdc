"""What can go wrong on the node, classified where it is known: next to the command or system call that failed."""

from __future__ import annotations

import errno
import re
from typing import NoReturn

NO_STEP = -1
# A failing program's output is shown up to here: enough for the reason, too little to flood a terminal.
OUTPUT_SHOWN_CHARS = 400

# What programs print (LC_ALL=C) when the cause is one that an operator can act on. First match wins.
_SIGNS = (
    ("disk-full", re.compile(r"No space left on device|not have enough free space|Disk quota exceeded", re.I)),
    ("package-lock", re.compile(r"Could not get lock|Unable to acquire the dpkg|is another process using it"
                                r"|dpkg frontend lock|Unable to lock|waiting for .* lock", re.I)),
    # Where wg-quick goes on to start wireguard-go, an unknown device type is not what stopped it.
    ("wireguard", re.compile(r"Unknown device type(?!.*Falling back)|wireguard-go: (?:command )?not found"
                             r"|wg(?:-quick)?: (?:command )?not found|module wireguard not found", re.I | re.S)),
)  # fmt: skip
# 32 bytes in base64, with or without padding: programs quote the line that they did not like.
_KEY_TEXT = re.compile(r"[A-Za-z0-9+/]{42,}={0,2}")
# Tokens of a step's input shorter than this are words and addresses, not secrets.
_SECRET_TOKEN_CHARS = 20
# An endpoint, which is what wg complains of most.
_HOST_AND_PORT = re.compile(r"[A-Za-z0-9.:\[\]-]+:\d{1,5}")


class ApplyError(Exception):
    """The transaction cannot go on. `kind` is one of RemoteError's, `index` the step or NO_STEP."""

    def __init__(self, kind: str, message: str, index: int = NO_STEP) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.index = index


def of_os_error(error: OSError, doing: str, index: int = NO_STEP) -> ApplyError:
    """A failed system call as an ApplyError; `doing` is a phrase such as `writing /etc/x`."""
    kind = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "command"
    return ApplyError(kind, f"{doing}: {error.strerror or error}", index)


def raise_for_os_error(error: OSError, doing: str, index: int = NO_STEP) -> NoReturn:
    """Raise `of_os_error`."""
    raise of_os_error(error, doing, index) from error


def classify_output(output: str) -> str:
    """The RemoteError kind that a failed program's output speaks of."""
    for kind, sign in _SIGNS:
        if sign.search(output):
            return kind
    return "command"


def redact(output: str, stdin: bytes | None = None) -> str:
    """`output` without anything that looks like a key or that came in by `stdin`, on one line, each of its lines once,
    shortened."""
    for token in sorted(set((stdin or b"").decode(errors="replace").split()), key=len, reverse=True):
        if len(token) >= _SECRET_TOKEN_CHARS and not _HOST_AND_PORT.fullmatch(token):
            output = output.replace(token, "(redacted)")
    lines = (line.strip() for line in _KEY_TEXT.sub("(redacted)", output).splitlines())
    output = " / ".join(dict.fromkeys(line for line in lines if line))
    return output if len(output) <= OUTPUT_SHOWN_CHARS else "… " + output[-OUTPUT_SHOWN_CHARS:]
