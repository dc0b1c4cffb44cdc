"""Hosts that one command goes to again and again, for what is not an apply: their connections are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from meshctl.core.psk import PskRing
from meshctl.deploy import applier
from meshctl.deploy.door import Door, NetworkDoor
from meshctl.deploy.host import Host, Terms
from meshctl.deploy.options import RunOptions
from meshctl.deploy.phases import Phases
from meshctl.deploy.progress import Progress
from meshctl.deploy.ssh import Connections
from meshctl.inventory import Inventory
from meshctl.policy import compile_mesh
from meshctl.render import Renderer


class Crew:
    """The hosts of `names`, by name, and the connections that they share. A context manager."""

    def __init__(
        self, inventory: Inventory, ring: PskRing | None, names: Collection[str], options: RunOptions,
        door: Door | None, progress: Progress,
    ) -> None:  # fmt: skip
        """Raises RenderError."""
        self._options, self._progress = options, progress
        nodes = inventory.mesh.nodes
        self._nodes, self._door = nodes, door or NetworkDoor()
        self._opened: list[Connections] = []
        self.connections = self._new_connections()
        renderer = Renderer(compile_mesh(inventory.mesh), ring)
        self.hosts = {
            name: Host(name, renderer.node(name), partial(self.connections.transport, nodes[name]))
            for name in sorted(names)
        }

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for connections in self._opened:
            connections.close()

    def terms(self) -> Terms:
        """Of a transaction of its own that nobody confirms."""
        return Terms(applier.new_id(), self._options.who, self._options.revision)

    def read(self) -> None:
        """The facts of all hosts, without a comparison. Raises KeyboardInterrupt."""
        self.each("reading", list(self.hosts), partial(Host.read, compare=False))

    def each(self, phase: str, names: Sequence[str], work: Callable[[Host], None], *, finish: bool = False) -> None:
        """`work` for each of these hosts that nothing has stopped yet. See Phases.each; with `finish`, a Ctrl-C ends
        the command when the hosts at work are done. Raises KeyboardInterrupt."""
        hosts = [self.hosts[name] for name in names if self.hosts[name].error is None]
        with Phases(self._options.forks, self._progress) as phases:
            phases.each(phase, hosts, work, finish=finish)
            if phases.interrupted:
                raise KeyboardInterrupt

    def refresh(self) -> None:
        """Hosts whose connections have broken are connected to anew by whoever goes there next."""
        self.connections.forget_lost()
        for host in self.hosts.values():
            host.transport = None

    def connect_anew(self, host: Host) -> None:
        """The host is reached by a connection of its own from now on, with nothing in it of the one that it has."""
        host.connect = partial(self._new_connections().transport, self._nodes[host.name])

    def note(self, text: str) -> None:
        """Tell the operator."""
        self._progress.note(text)

    def _new_connections(self) -> Connections:
        options = self._options
        self._opened.append(Connections(self._nodes, self._door, options.accept_new_host_keys, options.sudo_password))
        return self._opened[-1]
