"""SSH into the lab without a management network: a TCP socket opened inside the host's own namespace, to its own sshd.

So no path exists in the lab over which hosts could find each other but those that NATs allow (DESIGN section 8).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from functools import cached_property

from meshctl.errors import RemoteError
from meshctl.lab import enter, state
from meshctl.lab.blueprint import Host
from meshctl.lab.names import LabError, netns_path, state_dir
from meshctl.lab.netns import within
from meshctl.model.mesh import Node, SshSettings

LOOPBACK = "127.0.0.1"
SSH_PORT = 22
CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class LabDoor:
    """The doors of one lab. Raises LabError when the lab is not up."""

    name: str

    @cached_property
    def _state(self) -> state.State:
        return state.load(self.name)

    def settings(self, node: Node) -> SshSettings:
        """How to log in to the twin of `node`: as root with the lab's key, known_hosts under the node's name.

        The jump hosts and the production address are kept only where the door is shut (`by_mesh`).
        """
        folder = state_dir(self.name)
        inside = replace(
            node.ssh, user="root", key=str(folder / "id_ed25519"), sudo=False, config="none",
            known_hosts=str(folder / "known_hosts"), port=SSH_PORT,
        )
        return inside if self.by_mesh(node.name) else replace(inside, host=node.name, jump=())

    def by_mesh(self, node: str) -> bool:
        """Whether SSH has to go by jump host and mesh: `--ssh-over-mesh`, a node with a jump, its mesh already up."""
        host = self._host(node)
        return self._state.ssh_over_mesh and bool(host.jump) and self._has_mesh(host)

    def open(self, node: Node) -> socket.socket | None:
        """A connected TCP socket (TCP_NODELAY) to the host's sshd, or None where the door is shut (`by_mesh`).

        Raises RemoteError: `unreachable` when the host is not running, `refused` when its sshd does not listen.
        """
        name = node.name
        if self.by_mesh(name):
            return None
        try:
            enter.leader(self.name, state.load(self.name), name)
            return within(netns_path(self.name, name), _connect)
        except LabError as error:
            raise RemoteError(error.message, node=name, kind="unreachable", step="connect", hint=error.hint) from error
        except ConnectionRefusedError as error:
            hint = f"look at it with `meshctl lab exec --name {self.name} {name} -- systemctl status ssh`"
            raise RemoteError("sshd does not listen", node=name, kind="refused", step="connect", hint=hint) from error
        except OSError as error:
            raise RemoteError(str(error), node=name, kind="unreachable", step="connect") from error

    def _host(self, node: str) -> Host:
        return state.host(self.name, self._state, node)

    def _has_mesh(self, host: Host) -> bool:
        try:
            names = within(netns_path(self.name, host.name), socket.if_nameindex)
        except OSError:
            return False
        return not {name for _, name in names}.isdisjoint(host.interfaces)


def _connect() -> socket.socket:
    connection = socket.create_connection((LOOPBACK, SSH_PORT), timeout=CONNECT_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
