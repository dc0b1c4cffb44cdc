"""The door through which a run reaches hosts: production's is the network, the lab supplies its own."""

from __future__ import annotations

import socket
from typing import Protocol

from meshctl.model.mesh import Node, SshSettings


class Door(Protocol):
    """Decides how nodes are reached. Called from several threads at once."""

    def settings(self, node: Node) -> SshSettings:
        """The settings to use for this node instead of the inventory's (`config="none"` ignores ssh_config)."""

    def open(self, node: Node) -> socket.socket | None:
        """A connected TCP socket to the node's sshd, or None to go by the settings' host and port.

        Not asked for a node whose settings name a jump host. Raises OSError or RemoteError when there is no way in.
        """


class NetworkDoor:
    """Production: the inventory's settings, over the network."""

    def settings(self, node: Node) -> SshSettings:
        """The inventory's own."""
        return node.ssh

    def open(self, node: Node) -> socket.socket | None:  # noqa: ARG002
        """No door of its own: go by the network."""
        return None
