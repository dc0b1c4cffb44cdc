"""SSH connections, opened once a run and shared: a node may be the jump host of others."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshctl.deploy import sshconnect
from meshctl.deploy.door import Door
from meshctl.deploy.hostkeys import KnownHosts
from meshctl.deploy.identities import Identities
from meshctl.deploy.sshalive import close
from meshctl.deploy.sshsettings import SshConfigs, Way, jump_settings, resolve
from meshctl.deploy.sshtransport import SshTransport
from meshctl.errors import RemoteError
from meshctl.model.keys import Secret
from meshctl.model.mesh import Node, SshSettings

if TYPE_CHECKING:
    import paramiko


class Connections:
    """All SSH connections of a run. Used by many threads; each connection is opened by the first who wants it."""

    def __init__(
        self, nodes: Mapping[str, Node], door: Door, accept_new_host_keys: bool = False, password: Secret | None = None
    ) -> None:
        self._nodes = nodes
        self._door = door
        self._accept_new = accept_new_host_keys
        self._password = password
        self._configs = SshConfigs()
        self._identities = Identities()
        self._lock = threading.Lock()
        self._open: dict[str, Future[paramiko.Transport]] = {}
        self._known: dict[tuple[Path, ...], KnownHosts] = {}
        self._proxies: list[subprocess.Popen[bytes]] = []

    def way(self, node: Node) -> Way:
        """How a connection to the node is made. Raises RemoteError for settings that cannot be read."""
        return resolve(self._door.settings(node), self._configs, node.name)

    def jump_way(self, jump: str, like: SshSettings, node: str) -> Way:
        """The same for a jump host that is not a node, before `node`, whose settings it has. Raises RemoteError."""
        return resolve(jump_settings(jump, like, node), self._configs, node)

    def transport(self, node: Node) -> SshTransport:
        """A connected SshTransport. Raises RemoteError."""
        way = self.way(node)
        self._check_jumps(node, (node.name,))
        connection = self._shared(f"node {node.name}", lambda: self._connect_node(node))
        return SshTransport(node.name, way, connection, self._password)

    def forget_lost(self) -> None:
        """Connections that failed or broke are opened anew when they are wanted; nobody may be opening one now."""
        with self._lock:
            for key, future in list(self._open.items()):
                if future.exception() is not None or not future.result().is_active():
                    del self._open[key]

    def close(self) -> None:
        """Close every connection. Never raises."""
        with self._lock:
            connections = list(self._open.values())
            self._open.clear()
        for future in reversed(connections):
            if future.done() and future.exception() is None:
                close(future.result())
        for process in self._proxies:
            process.terminate()
            process.wait()
        self._identities.close()

    def _shared(self, key: str, connect: Callable[[], paramiko.Transport]) -> paramiko.Transport:
        """The connection of that key; who comes first connects, the others wait for it and share its failure. One that
        has broken since it was opened is opened anew."""
        with self._lock:
            future = self._open.get(key)
            if future is not None and _has_broken(future):
                future = None
            first = future is None
            if future is None:
                future = self._open[key] = Future()
        if first:
            try:
                future.set_result(connect())
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _check_jumps(self, node: Node, through: tuple[str, ...]) -> None:
        """Raises RemoteError for jump hosts that go in a circle: each would wait for the other's connection."""
        for name in resolve(self._door.settings(node), self._configs, node.name).jumps:
            if name in through:
                raise RemoteError(
                    f"jump hosts go in a circle: {' -> '.join((*through, name))}", node=through[0], kind="unreachable",
                    hint="remove one of the ssh.jump settings",
                )  # fmt: skip
            if name in self._nodes:
                self._check_jumps(self._nodes[name], (*through, name))

    def _connect_node(self, node: Node) -> paramiko.Transport:
        way = resolve(self._door.settings(node), self._configs, node.name)
        sock = None if way.jumps else self._door_socket(node, way)
        if sock is None:
            sock = self._socket(way, node.name)
        return sshconnect.handshake(sock, way, node.name, self._known_hosts(way), self._identities)

    def _door_socket(self, node: Node, way: Way) -> socket.socket | None:
        try:
            sock = self._door.open(node)
        except OSError as error:
            raise RemoteError(
                f"cannot reach {way.host}: {error.strerror or error}", node=node.name, kind="unreachable",
                hint="is the host up? (meshctl lab status)",
            ) from error  # fmt: skip
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _socket(self, way: Way, node: str) -> Any:
        """A socket or channel to the host itself: direct, by command, or through the chain of jumps."""
        if way.proxy_command:
            return self._proxy(way.proxy_command)
        if not way.jumps:
            return sshconnect.tcp(way, node)
        last = self._jump(way.jumps, way.settings, node)
        return self._tunnel(last, way, node, way.jumps[-1])

    def _proxy(self, command: str) -> socket.socket:
        """ProxyCommand as a real socket: its process has the other end as standard input and output."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(["sh", "-c", f"exec {command}"], stdin=theirs.fileno(), stdout=theirs.fileno())
        with self._lock:
            self._proxies.append(process)
        return ours

    def _jump(self, jumps: tuple[str, ...], like: SshSettings, node: str) -> Any:
        """The connection to the last of `jumps`, opened through those before it."""
        *before, name = jumps
        if name in self._nodes and not before:
            target = self._nodes[name]
            return self._as_jump(f"node {name}", name, node, lambda: self._connect_node(target))
        settings = self._door.settings(self._nodes[name]) if name in self._nodes else jump_settings(name, like, node)
        way = resolve(settings, self._configs, node)

        def connect() -> paramiko.Transport:
            if before:
                sock = self._tunnel(self._jump(tuple(before), like, node), way, node, before[-1])
            else:
                sock = self._socket(way, node)
            return sshconnect.handshake(sock, way, node, self._known_hosts(way), self._identities)

        return self._as_jump(f"jump {'>'.join(jumps)} {like.key} {like.known_hosts}", name, node, connect)

    def _as_jump(self, key: str, name: str, node: str, connect: Callable[[], paramiko.Transport]) -> Any:
        """A jump's failure, told about the node that is behind it."""
        try:
            return self._shared(key, connect)
        except RemoteError as error:
            message = error.message if error.node == node and error.message.startswith("jump") else (
                f"jump host {name}: {error.message}")  # fmt: skip
            raise RemoteError(message, node=node, kind=error.kind, hint=error.hint) from error

    def _tunnel(self, jump: paramiko.Transport, way: Way, node: str, jump_name: str) -> Any:
        import paramiko

        try:
            return jump.open_channel(
                "direct-tcpip", (way.host, way.port), ("127.0.0.1", 0), timeout=way.connect_timeout_s
            )
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise RemoteError(
                f"{jump_name} cannot reach {way.host}:{way.port}: {error}", node=node, kind="unreachable",
                hint=f"try it there: ssh {jump_name} nc -vz {way.host} {way.port}",
            ) from error  # fmt: skip

    def _known_hosts(self, way: Way) -> KnownHosts:
        with self._lock:
            if way.known_hosts not in self._known:
                self._known[way.known_hosts] = KnownHosts(way.known_hosts, self._accept_new)
            return self._known[way.known_hosts]


def _has_broken(connection: Future[paramiko.Transport]) -> bool:
    return connection.done() and connection.exception() is None and not connection.result().is_active()
