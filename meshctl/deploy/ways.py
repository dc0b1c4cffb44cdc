"""Whose SSH connection goes through certain nodes: those that are to be cut off, and that no way may lead through."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import replace

from meshctl.deploy.ssh import Connections
from meshctl.deploy.sshsettings import Way
from meshctl.deploy.waves import through
from meshctl.errors import RemoteError
from meshctl.model.mesh import Mesh, Node


class Ways:
    """The ways to the managed nodes of a mesh, and what some of its nodes, those that are `gone`, are to them."""

    def __init__(self, mesh: Mesh, connections: Connections, gone: Collection[str]) -> None:
        self._connections, self._gone = connections, frozenset(gone)
        # They carry what they carried, whatever the lock says of them by now.
        nodes = {name: replace(n, revoked=False) if name in self._gone else n for name, n in mesh.nodes.items()}
        self._nodes = nodes
        self._ways: dict[str, Way] = {}
        for name, node in nodes.items():
            if not node.client:
                with contextlib.suppress(RemoteError):  # who connects is told
                    self._ways[name] = connections.way(node)
        hops = {name: (way.host, way.jumps) for name, way in self._ways.items()}
        self._through = through(replace(mesh, nodes=nodes), hops)

    def trail(self, name: str) -> tuple[str, ...]:
        """The jump hosts by which the way to the node leads to one that is gone, each behind the next; () when it does
        not."""
        return self._trail(name, frozenset((name,)))

    def carried(self, name: str) -> frozenset[str]:
        """Who of those that are gone may carry the node's SSH connection inside the mesh: the inventory does not say
        who does."""
        return self._through.get(name, frozenset()) & self._gone

    def _trail(self, name: str, seen: frozenset[str]) -> tuple[str, ...]:
        way = self._ways.get(name)
        if way is None or not way.jumps:
            return ()
        for jump in way.jumps:
            if jump in self._gone or (jump not in self._nodes and self._is_gone(jump, way, name)):
                return (jump,)
        # Only the first of a chain is reached by its own jump hosts.
        first = way.jumps[0]
        if first in seen or first not in self._nodes:
            return ()
        further = self._trail(first, seen | {first})
        return (first, *further) if further else ()

    def _is_gone(self, jump: str, way: Way, node: str) -> bool:
        """Whether a jump host that is written as `user@host:port` is one of those that are gone."""
        try:
            at = self._connections.jump_way(jump, way.settings, node)
        except RemoteError:
            return False
        host = at.host.lower()
        for name in self._gone:
            if name.lower() == host:
                return True  # also when the inventory has it no more
            if (gone := self._nodes.get(name)) and (
                host in _mesh_addresses(gone) or (host in self._hosts(gone) and at.port == self._port(gone))
            ):
                return True
        return False

    def _hosts(self, node: Node) -> set[str]:
        ends = {a.endpoint.rpartition(":")[0].strip("[]") for a in node.attachments if a.endpoint}
        way = self._ways.get(node.name)
        return {host.lower() for host in (*ends, node.ssh.host, way.host if way else "")}

    def _port(self, node: Node) -> int | None:
        way = self._ways.get(node.name)
        return way.port if way else None


def _mesh_addresses(node: Node) -> set[str]:
    return {address for a in node.attachments for address in a.addresses}
