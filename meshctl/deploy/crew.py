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
    """The hosts of `names`, by name. A context manager."""

    def __init__(
        self, inventory: Inventory, ring: PskRing | None, names: Collection[str], options: RunOptions,
        door: Door | None, progress: Progress,
    ) -> None:  # fmt: skip
        """Raises RenderError."""
        self._options, self._progress = options, progress
        nodes = inventory.mesh.nodes
        self._connections = Connections(
            nodes, door or NetworkDoor(), options.accept_new_host_keys, options.sudo_password
        )
        renderer = Renderer(compile_mesh(inventory.mesh), ring)
        self.hosts = {
            name: Host(name, renderer.node(name), partial(self._connections.transport, nodes[name]))
            for name in sorted(names)
        }

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.close()

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
        self._connections.forget_lost()
        for host in self.hosts.values():
            host.transport = None
