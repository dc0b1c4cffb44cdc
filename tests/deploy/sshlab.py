"""Real sshd processes on loopback, each with its own keys, port and files; commands run where a test says."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

from meshctl.model.mesh import Attachment, Node, SshSettings

SSHD = "/usr/sbin/sshd"


def free_port() -> int:
    """A TCP port on loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """A new SSH key pair at `path`."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path


@dataclass
class Sshd:
    """One running server. `log` is what it wrote."""

    name: str
    folder: Path
    port: int
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None
    hung: list[int] = field(default_factory=list)

    @property
    def host_key(self) -> str:
        """`TYPE BASE64`."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def hang(self) -> None:
        """Its sessions do nothing from here on; the kernel goes on taking what is sent to them."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        self.hung += map(int, found.stdout.split())
        for pid in self.hung:
            os.kill(pid, signal.SIGSTOP)

    def stop(self) -> None:
        """End the server and its sessions."""
        for pid in self.hung:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.terminate()
        self.process.wait(timeout=10)
        if self.reader is not None:
            self.reader.join(timeout=10)


class SshLab:
    """Starts servers; one client key opens all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = make_key(folder / "client_key")
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.touch()
        self.servers: dict[str, Sshd] = {}

    def start(self, name: str, *, trusted: bool = True, force: str = "", more: str = "", kind: str = "ed25519") -> Sshd:
        """A server that is listening when this returns. `force` wraps every command (`… sh -c COMMAND`)."""
        folder = self.folder / name
        folder.mkdir()
        make_key(folder / "host_key", kind=kind)
        (folder / "authorized_keys").write_text((self.key.with_suffix(".pub")).read_text())
        (folder / "authorized_keys").chmod(0o600)
        port = free_port()
        lines = [
            f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host_key", "PidFile none",
            f"AuthorizedKeysFile {folder}/authorized_keys", "StrictModes no", "PermitRootLogin yes",
            "PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "LogLevel VERBOSE", more,
        ]  # fmt: skip
        if force:
            lines.append(f"ForceCommand {force}")
        (folder / "sshd_config").write_text("\n".join(lines) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        server = Sshd(name, folder, port, process)
        self.servers[name] = server
        _wait_for(server, "Server listening on")
        if trusted:
            with self.known_hosts.open("a") as file:
                file.write(f"[127.0.0.1]:{port} {server.host_key}\n")
        return server

    def settings(self, name: str, **more: object) -> SshSettings:
        """Settings that reach a server."""
        values: dict[str, object] = {
            "host": "127.0.0.1", "port": self.servers[name].port, "key": str(self.key), "config": "none",
            "known_hosts": str(self.known_hosts), "user": getpass.getuser(), "connect_timeout_s": 5.0, **more,
        }  # fmt: skip
        return SshSettings(**values)  # type: ignore[arg-type]

    def node(self, name: str, **more: object) -> Node:
        """A node that is that server."""
        return node(name, self.settings(name, **more))

    def close(self) -> None:
        """End all servers."""
        for server in self.servers.values():
            server.stop()


def node(name: str, settings: SshSettings) -> Node:
    """A minimal node."""
    return Node(name, (Attachment("corp", "wg0", ("10.42.0.1",), 51820),), settings)


def _wait_for(server: Sshd, text: str) -> None:
    """Until the server's log has `text`; the log is read on, so that its pipe never fills."""
    found = threading.Event()

    def read() -> None:
        assert server.process.stderr is not None
        with server.process.stderr as lines:
            for line in lines:
                server.log.append(line)
                if text in line:
                    found.set()

    server.reader = threading.Thread(target=read, daemon=True)
    server.reader.start()
    assert found.wait(10), f"sshd did not start: {server.log}"


class Agent:
    """An ssh-agent of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "agent.sock"
        self.process = subprocess.Popen(["ssh-agent", "-D", "-a", str(self.socket)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # printed when the socket is there

    def add(self, key: Path, passphrase: str = "") -> None:
        """Load a key."""
        ask = key.with_name("askpass")
        ask.write_text(f"#!/bin/sh\necho {shlex.quote(passphrase)}\n")
        ask.chmod(0o700)
        env = {**os.environ, "SSH_AUTH_SOCK": str(self.socket), "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env=env, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """End the agent."""
        self.process.terminate()
        self.process.communicate(timeout=10)
