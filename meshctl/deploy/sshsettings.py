"""From a node's settings and the user's ssh_config to one resolved way in. The inventory wins over ssh_config."""

from __future__ import annotations

import getpass
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshctl.errors import RemoteError
from meshctl.model.mesh import SshSettings

DEFAULT_CONFIG = "~/.ssh/config"
DEFAULT_KNOWN_HOSTS = "~/.ssh/known_hosts"
GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
NO_CONFIG = "none"
_JUMP = re.compile(r"(?:(?P<user>[^@]+)@)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:@]+))(?::(?P<port>\d{1,5}))?")
DEFAULT_PORT = 22
DEFAULT_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Way:
    """Everything that one SSH connection needs. `jumps` are as written: node names or user@host:port, nearest first."""

    host: str
    port: int
    user: str
    key_files: tuple[str, ...]
    identities_only: bool
    jumps: tuple[str, ...]
    proxy_command: str
    known_hosts: tuple[Path, ...]
    host_key_name: str
    settings: SshSettings
    connect_timeout_s: float


class SshConfigs:
    """ssh_config files, each parsed once a run. Used by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parsed: dict[str, Any] = {}

    def lookup(self, path: str, host: str, node: str) -> dict[str, Any]:
        """Options for `host` in lower case; {} without a file. Raises RemoteError for a file that does not parse."""
        import paramiko

        if path == NO_CONFIG:
            return {}
        file = Path(path or DEFAULT_CONFIG).expanduser()
        try:
            with self._lock:
                if path not in self._parsed:
                    if not path and not file.is_file():
                        self._parsed[path] = paramiko.SSHConfig()
                    else:
                        self._parsed[path] = paramiko.SSHConfig.from_path(str(file))
                return dict(self._parsed[path].lookup(host))
        except (OSError, paramiko.SSHException, ImportError) as error:
            # ImportError: `Match exec` needs a package of paramiko's that we do not ship.
            raise RemoteError(
                f"cannot use {file}: {error}", node=node, kind="unreachable",
                hint="correct the file, or set ssh.config: none",
            ) from error  # fmt: skip


def resolve(settings: SshSettings, configs: SshConfigs, node: str) -> Way:
    """The way in for a node. A setting that the inventory does not make is open to ssh_config."""
    found = configs.lookup(settings.config, settings.host, node)
    host = str(found.get("hostname", settings.host))
    port = settings.port or int(found.get("port", DEFAULT_PORT))
    timeout_s = settings.connect_timeout_s or float(found.get("connecttimeout", DEFAULT_CONNECT_TIMEOUT_S))
    jumps = settings.jump or _config_jumps(str(found.get("proxyjump", "")))
    proxy = "" if jumps else str(found.get("proxycommand", "") or "")
    files = settings.known_hosts.split() or str(found.get("userknownhostsfile", DEFAULT_KNOWN_HOSTS)).split()
    if not settings.known_hosts:
        files = [*files, str(found.get("globalknownhostsfile", GLOBAL_KNOWN_HOSTS))]
    from meshctl.deploy.hostkeys import known_name

    return Way(
        host=host,
        port=port,
        user=settings.user or str(found.get("user", "")) or getpass.getuser(),
        key_files=(settings.key,) if settings.key else tuple(found.get("identityfile", ())),
        identities_only=bool(settings.key) or str(found.get("identitiesonly", "no")).lower() == "yes",
        jumps=jumps,
        proxy_command="" if proxy.lower() == "none" else proxy,
        known_hosts=tuple(Path(f).expanduser() for f in files),
        host_key_name=str(found.get("hostkeyalias", "")).lower() or known_name(host, port),
        settings=settings,
        connect_timeout_s=timeout_s,
    )


def jump_settings(text: str, like: SshSettings, node: str) -> SshSettings:
    """Settings for a jump host that is not a node: `[user@]host[:port]`. Raises RemoteError when it is not that.

    Files and limits are those of the node that is reached through it, whose keys the operator named.
    """
    found = _JUMP.fullmatch(text)
    if found is None or not 0 < int(found["port"] or 22) < 65536:
        raise RemoteError(
            f"{text!r} is not a jump host", node=node, kind="unreachable", hint="use a node or user@host:port"
        )
    return SshSettings(
        host=found["v6"] or found["host"],
        port=int(found["port"]) if found["port"] else None,
        user=found["user"] or "",
        key=like.key,
        config=like.config,
        known_hosts=like.known_hosts,
        connect_timeout_s=like.connect_timeout_s,
        command_timeout_s=like.command_timeout_s,
        keepalive_s=like.keepalive_s,
    )


def _config_jumps(text: str) -> tuple[str, ...]:
    if text.lower() in ("", "none"):
        return ()
    return tuple(part.strip() for part in text.split(",") if part.strip())
