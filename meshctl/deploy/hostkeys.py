"""known_hosts as OpenSSH has it (sshd(8)): plain, hashed and pattern entries, `[host]:port`, `@revoked`.

Our own parser, because ours must be shared by many threads and parsed once a run, and because a library that skips
`@revoked` would accept what the operator refused. Host certificates are not supported: `@cert-authority` is skipped.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

SSH_PORT = 22


@dataclass(frozen=True)
class KnownKey:
    """One line: `patterns` as written, `kind` such as ssh-ed25519, `blob` the key's base64."""

    patterns: str
    kind: str
    blob: str
    revoked: bool = False

    def covers(self, name: str) -> bool:
        """Whether the line speaks of `name` (`host` or `[host]:port`)."""
        if self.patterns.startswith("|1|"):
            return _hash_covers(self.patterns, name)
        covered = False
        for pattern in self.patterns.lower().split(","):
            if pattern.startswith("!"):
                if _matches(name, pattern[1:]):
                    return False
            elif _matches(name, pattern):
                covered = True
        return covered


class HostKeyRefused(Exception):  # noqa: N818
    """The server's key is not to be trusted. `hint` is the next thing to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def known_name(host: str, port: int) -> str:
    """The name under which OpenSSH keeps a host."""
    host = host.lower()
    return host if port == SSH_PORT else f"[{host}]:{port}"


def fingerprint(blob: str) -> str:
    """`SHA256:…` as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")


def parse(text: str) -> list[KnownKey]:
    """Lines of a known_hosts file; what is malformed matches nothing, as with OpenSSH."""
    known = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) >= 3 and marker in ("", "@revoked"):
            known.append(KnownKey(words[0], words[1], words[2], revoked=marker == "@revoked"))
    return known


class KnownHosts:
    """Several files read once; new keys are appended to the first. Used by many threads."""

    def __init__(self, paths: Iterable[Path], accept_new: bool = False) -> None:
        self._paths = tuple(paths)
        self._accept_new = accept_new
        self._lock = threading.Lock()
        self._known = [key for path in self._paths for key in parse(_read(path))]

    def kinds(self, name: str) -> list[str]:
        """Key types known for `name`, so that the server can be asked for one of them."""
        with self._lock:
            return [k.kind for k in self._known if k.covers(name) and not k.revoked]

    def check(self, name: str, kind: str, blob: str) -> bool:
        """Whether the key had to be learned. Raises HostKeyRefused for an unknown, changed or revoked one."""
        with self._lock:
            known = [k for k in self._known if k.covers(name)]
            if any(k.blob == blob and k.revoked for k in known):
                raise HostKeyRefused(f"{name} offers a revoked key {fingerprint(blob)}", "the host may be an impostor")
            known = [k for k in known if not k.revoked]
            if any(k.blob == blob and k.kind == kind for k in known):
                return False
            if known:
                raise HostKeyRefused(
                    f"the host key of {name} has changed: it is now {kind} {fingerprint(blob)}",
                    f"if the host was reinstalled: ssh-keygen -R '{name}' -f {self._paths[0]}; "
                    "if not, somebody may be in between",
                )
            if not self._accept_new:
                raise HostKeyRefused(
                    f"the host key of {name} is not known: {kind} {fingerprint(blob)}",
                    f"compare it with the host's, then use --accept-new-host-keys (learns it into {self._paths[0]})",
                )
            self._append(KnownKey(name, kind, blob))
            return True

    def _append(self, key: KnownKey) -> None:
        path = self._paths[0]
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # another meshctl may be learning too
            size = os.fstat(fd).st_size
            joint = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
            os.write(fd, joint + f"{key.patterns} {key.kind} {key.blob}\n".encode())
        finally:
            os.close(fd)
        self._known.append(key)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _matches(name: str, pattern: str) -> bool:
    """OpenSSH knows `*` and `?` alone; a bracket is only ever that of `[host]:port`."""
    if "*" not in pattern and "?" not in pattern:
        # Nearly every line: a regular expression for each would take a minute for a thousand hosts.
        return name == pattern
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _hash_covers(pattern: str, name: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        mac = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1)
        return hmac.compare_digest(mac.digest(), base64.b64decode(digest))
    except (ValueError, binascii.Error):
        return False
