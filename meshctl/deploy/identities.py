"""The operator's SSH keys: an agent's, and files, each opened once a run."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from meshctl.deploy.sshsettings import Way

if TYPE_CHECKING:
    import paramiko

DEFAULT_KEY_FILES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


class Identities:
    """Keys to offer, in OpenSSH's order. `notes` say which ones could not be used and why."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, paramiko.PKey | str | None] = {}
        self._agent: paramiko.Agent | None = None
        # One agent connection serves all threads: requests and answers on it must not mix.
        self.signing = threading.Lock()

    def offer(self, way: Way) -> Iterator[tuple[str, paramiko.PKey, bool]]:
        """(label, key, whether it is the agent's), best first. Keys named by configuration come before others."""
        named = [*way.key_files]
        files = named or [*DEFAULT_KEY_FILES]
        wanted = {blob for blob in (_public_blob(path) for path in named) if blob}
        agent_keys = self._agent_keys()
        for key in agent_keys:
            if key.get_base64() in wanted:
                yield "agent", key, True
        if named:
            yield from self._from_files(named)
        if not way.identities_only:
            for key in agent_keys:
                if key.get_base64() not in wanted:
                    yield "agent", key, True
        if not named:
            yield from self._from_files(files)

    def problems(self, way: Way) -> list[str]:
        """Why key files could not be used, in words."""
        named = set(way.key_files)
        out = []
        for path in named or DEFAULT_KEY_FILES:
            loaded = self._load(path)
            if isinstance(loaded, str):
                out.append(loaded)
            elif loaded is None and path in named:
                out.append(f"there is no {path}")
        return out

    def _from_files(self, paths: list[str]) -> Iterator[tuple[str, paramiko.PKey, bool]]:
        for path in paths:
            key = self._load(path)
            if key is not None and not isinstance(key, str):
                yield path, key, False

    def _load(self, path: str) -> paramiko.PKey | str | None:
        """The key, None where there is no file, or the reason why it cannot be used."""
        import paramiko

        with self._lock:
            if path not in self._files:
                loaded: paramiko.PKey | str | None
                try:
                    loaded = paramiko.PKey.from_path(Path(path).expanduser())
                except FileNotFoundError:
                    loaded = None
                except (paramiko.PasswordRequiredException, TypeError):
                    # cryptography says TypeError for a key that wants a password and got none
                    loaded = f"{path} is encrypted: add it to an agent with ssh-add {path}"
                except (OSError, ValueError, paramiko.SSHException) as error:
                    loaded = f"{path} cannot be read: {error}"
                self._files[path] = loaded
            return self._files[path]

    def _agent_keys(self) -> list[paramiko.AgentKey]:
        import paramiko

        with self._lock:
            if self._agent is None:
                try:
                    self._agent = paramiko.Agent()
                except (OSError, paramiko.SSHException):
                    return []
            return list(self._agent.get_keys())

    def close(self) -> None:
        """Close the agent's connection."""
        if self._agent is not None:
            self._agent.close()


def _public_blob(path: str) -> str:
    """The base64 of PATH.pub, by which a key that only an agent can use is recognised."""
    try:
        blob = Path(path + ".pub").expanduser().read_text(encoding="utf-8").split()[1]
        base64.b64decode(blob, validate=True)
    except (OSError, ValueError, IndexError):
        return ""
    return blob
