"""This machine as the only host (`--local`)."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess

from meshctl.deploy import sudo
from meshctl.deploy.transport import Completed
from meshctl.errors import RemoteError, UsageError
from meshctl.model.keys import Secret
from meshctl.model.mesh import Mesh, Node


class LocalTransport:
    """Runs commands here, by sudo when we are not root."""

    def __init__(self, node: Node, password: Secret | None) -> None:
        self._node = node
        self._password = password

    def run(self, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:
        """As Transport.run. A session of its own: Ctrl-C at our terminal must not reach a running transaction."""
        limit_s = timeout_s or self._node.ssh.command_timeout_s
        as_root = os.geteuid() != 0
        if as_root:
            command, stdin = sudo.wrap(command, stdin, self._password)
        try:
            done = subprocess.run(
                ["sh", "-c", command], input=stdin, capture_output=True, timeout=limit_s, check=False,
                start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise RemoteError(
                f"no end of the command after {limit_s:g} s", node=self._node.name, kind="timeout",
                hint="look at the machine's load, or raise ssh.command_timeout",
            ) from error  # fmt: skip
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        completed = Completed(status, done.stdout, done.stderr)
        if as_root:
            sudo.check(completed, self._node.name, getpass.getuser(), self._password is not None)
        return completed

    def close(self) -> None:
        """Nothing is open."""


def this_machine(mesh: Mesh, selected: frozenset[str]) -> str:
    """The node that is this machine: by hostname, else the one that --limit leaves. Raises UsageError."""
    names = {socket.gethostname(), socket.getfqdn()}
    names |= {name.partition(".")[0] for name in names}
    found = sorted(n.name for n in mesh.managed() if n.name in selected and ({n.name, n.ssh.host} & names))
    if len(found) == 1:
        return found[0]
    if len(selected) == 1:
        return next(iter(selected))
    raise UsageError(
        f"--local: {'no node is' if not found else 'several nodes are'} called {socket.gethostname()}",
        hint="say which node this machine is with --limit NAME",
    )
