"""Nodes with real WireGuards and real agents behind real NATs, in network namespaces: a lab without its hosts.

Files and processes are this machine's own, so interfaces have names that nobody else here has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentnode_cast import Cast
from agentnode_pings import Pings
from agentnode_scene import GO, build

from meshctl.core.agent.document import encode
from meshctl.lab import nat, network, teardown, upnp
from meshctl.lab.names import netns, state_dir
from meshctl.lab.shell import in_netns

ROOT = Path(__file__).parents[2]
_STEP_S = 0.05


class Stage(Cast):
    """The inventory's nodes as namespaces called NAME; `down` takes everything away."""

    metrics_every_s = 0.5

    def __init__(self, name: str, text: str, folder: Path) -> None:
        super().__init__(text, folder)
        self.name, self.folder = name, folder
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        scene = self.scene()
        self.names_resolve(scene.blueprint.hosts_file)
        build(name, scene, GO)
        for router in scene.blueprint.routers:
            if router.upnp:
                self.restart_router(router.name)
        for node in self.mesh.nodes:
            self.document(node).parent.mkdir(parents=True)
            self.document(node).write_bytes(encode(self.content(node)))
            self.document(node).chmod(0o600)

    def document(self, node: str) -> Path:
        """The file that says it. Nobody else writes to its folder, which the agent watches, as on a host."""
        return self.folder / "documents" / node / "agent.json"

    def log(self, node: str) -> str:
        """What the node's agents have said."""
        return (self.folder / f"{node}.log").read_text()

    def logs(self) -> str:
        """What all agents have said."""
        return "\n".join(f"{node.name}:\n{self.log(node.name)}" for node in self.mesh.managed())

    def state(self, node: str) -> Path:
        """The agent's state file."""
        return self.folder / "state" / f"{node}.json"

    def socket(self, node: str) -> Path:
        """Where the agent answers."""
        return self.folder / f"{node}.sock"

    def metrics(self, node: str) -> Path:
        """What it writes for Prometheus."""
        return self.folder / f"{node}.prom"

    def program(self, _node: str) -> list[str]:
        """What is run in the node's namespace as `meshctl-agent`."""
        return [sys.executable, "-m", "meshctl.agent.main"]

    def start(self, node: str) -> int:
        """Start the node's agent; its process id."""
        words = [*self.program(node), "run"]
        words += ["--document", str(self.document(node)), "--state", str(self.state(node))]
        words += ["--socket", str(self.socket(node)), "--metrics-file", str(self.metrics(node))]
        words += ["--metrics-every", str(self.metrics_every_s)]
        with (self.folder / f"{node}.log").open("ab") as log:
            self._agents[node] = subprocess.Popen(
                ["ip", "netns", "exec", netns(self.name, node), *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)},
                umask=0o077,  # as the unit has it
            )  # fmt: skip
        return self._agents[node].pid

    def start_all(self) -> None:
        """Start the agent of every node that has one. Hosts forward, as the role `forwarding` has it, for relays."""
        for node in self.mesh.managed():
            self.run(node.name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            self.start(node.name)

    def agent(self, node: str, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`meshctl-agent COMMAND WORDS` on the node, with its files."""
        files = {"--socket": self.socket(node)}
        if command == "cleanup":
            files |= {"--document": self.document(node), "--state": self.state(node)}
        argv = [*self.program(node), command, *words]
        return subprocess.run(
            ["ip", "netns", "exec", netns(self.name, node), *argv, *(str(w) for pair in files.items() for w in pair)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd="/", text=True, capture_output=True, check=False,
            timeout=30,
        )  # fmt: skip

    def kill(self, node: str) -> None:
        """End the agent as a crash would."""
        self._agents[node].kill()
        self._agents.pop(node).wait()

    def signal(self, node: str, number: int) -> None:
        """Send the agent a signal; 0 only sees whether it runs."""
        os.kill(self._agents[node].pid, number)

    def stop(self, node: str) -> int:
        """End the agent as systemd does; its exit status."""
        self._agents[node].terminate()
        return self._agents.pop(node).wait(timeout=10)

    def run(self, node: str, *words: str, text: str = "") -> str:
        """A command's output on the node."""
        return in_netns(self.name, node, words, stdin=text)

    def move(self, node: str, *, ipv4: bool = True, **place: Any) -> None:
        """Plug the node's cable in elsewhere, by the inventory's words (`lab:`). What it is plugged into must be there.

        Its device goes and another one comes; without `ipv4`, that has IPv6 alone.
        """
        (old,) = self.scene().blueprint.links_of(node)
        self.edit(lambda document: document["nodes"][node].update(lab=place))
        (new,) = self.scene().blueprint.links_of(node)
        if not ipv4:
            addresses, gateways = (tuple(a for a in had if ":" in a) for had in (new.addresses, new.gateways))
            new = replace(new, addresses=addresses, gateways=gateways)
        network.disconnect(self.name, [old])
        network.connect(self.name, [new], frozenset())

    def apply(self, change: Callable[[dict[str, Any]], None], *nodes: str) -> None:
        """Change the inventory, and bring WireGuards and documents of these nodes to what it says then."""
        self.edit(change)
        for tunnel in (t for t in self.scene().tunnels if t.node in nodes):
            self.run(tunnel.node, "wg", "syncconf", tunnel.interface, "/dev/stdin", text=tunnel.config)
            self.put(self.document(tunnel.node), encode(self.content(tunnel.node)))

    def restart_router(self, name: str) -> None:
        """Have it forget its mappings, leases of ports too."""
        router = self.router(name)
        upnp.stop(self.name, name)
        nat.apply(self.name, router, router.nat)
        if router.upnp:
            state_dir(self.name).mkdir(parents=True, exist_ok=True)
            upnp.start(self.name, router)

    def names_resolve(self, names: Iterable[tuple[str, tuple[str, ...]]]) -> None:
        """Make these (address, names) what nodes' files say, and their only resolver one that does not answer.

        `ip netns exec` lays what is there over /etc, for programs that it starts.
        """
        for node in self.mesh.nodes:
            folder = self._etc(node)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text("".join(f"{address} {' '.join(of)}\n" for address, of in names))
            (folder / "resolv.conf").write_text("nameserver 203.0.113.53\n")

    def _etc(self, node: str) -> Path:
        return Path("/etc/netns") / netns(self.name, node)

    def endpoint(self, node: str, peer: str) -> str:
        """Where the node's WireGuard sends what is for the peer; "(none)" for nowhere."""
        shown = self.run(node, "wg", "show", self.interface(node), "endpoints")
        return dict(line.split("\t") for line in shown.splitlines())[self.key(peer)]

    def ping(self, node: str, peer: str, count: int = 1, within_s: int = 10, size: int = 56) -> bool:
        """Whether that many pings through the mesh, of so many bytes, come back."""
        words = ["ping", "-q", "-i", "0.01", "-c", str(count), "-w", str(within_s), "-s", str(size), self.mesh_ip(peer)]
        space = ["ip", "netns", "exec", netns(self.name, node)]
        return subprocess.run([*space, *words], check=False, capture_output=True).returncode == 0

    @contextmanager
    def pinging(self, node: str, peer: str) -> Iterator[Pings]:
        """A hundred pings a second for as long as the block takes."""
        pings = Pings(["ip", "netns", "exec", netns(self.name, node)], self.mesh_ip(peer))
        try:
            yield pings
        finally:
            pings.stop()

    def put(self, path: Path, content: bytes) -> None:
        """Another file in this one's place, as an apply does it."""
        temp = path.with_suffix(".new")
        temp.write_bytes(content)
        temp.replace(path)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def down(self) -> None:
        """End all agents, and take everything away."""
        for agent in self._agents.values():
            agent.kill()
            agent.wait()
        teardown.down(self.name)
        for node in self.mesh.nodes:
            shutil.rmtree(self._etc(node), ignore_errors=True)


def until(what: Callable[[], bool], timeout_s: float, tell: Callable[[], str] = str) -> None:
    """Wait for something that only looking at shows; fails with what `tell` says."""
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, f"not within {timeout_s} s\n{tell()}"
        time.sleep(_STEP_S)
