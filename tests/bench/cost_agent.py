"""What one agent takes of its host: the real program among so many peers, in namespaces, with a userspace WireGuard.

The mesh is a star: the hub has all other nodes as peers, and each of them the hub; an anchor knows them all.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import yaml
from agentnode_scene import Scene, Tunnel
from agentnode_stage import Stage
from cost_watch import SETTLE_S, Row, watched

from meshctl.agent.node.options import METRICS_EVERY_S
from meshctl.lab.shell import ip_batch
from meshctl.render import zipapp

HUB, ANCHOR = "hub", "mid"
ANCHOR_IP = "203.0.113.10"
SOCKETS = Path("/run/wireguard")  # of userspace WireGuards, for wg(8)
# Peers, and whether their agents are started, too: five hundred Pythons more are too many for a machine of two cores.
SIZES = ((100, True), (500, False))
SILENT = "peers that do not answer"
# One peer's agent starts after another: a hundred at once would keep a few cores busy for minutes.
JOIN_S = 1.0
# After the last one; then it is told how many paths are direct.
PATIENCE_S = 120.0


class Star(Stage):
    """The hub, its peers and the anchor, with the program and the intervals that a host has. Each node with a tunnel
    has a place of its own for the control sockets of WireGuards, for `wg show all` asks all that it finds there."""

    metrics_every_s = METRICS_EVERY_S

    def __init__(self, peers: int, folder: Path, *, alive: bool) -> None:
        self._archive = folder / "meshctl-agent.pyz"
        self._archive.write_bytes(zipapp.build().content)
        self.peers = tuple(f"peer{number}" for number in range(peers))
        self._alive = {HUB, ANCHOR, *(self.peers if alive else ())}
        super().__init__("bench-star", inventory(self.peers), folder)
        SOCKETS.mkdir(parents=True, exist_ok=True)
        for tunnel in super().scene().tunnels:
            if tunnel.node in self._alive:
                self._raise(tunnel)

    def scene(self) -> Scene:
        """Without tunnels, and without nodes that are not alive."""
        plan = super().scene().blueprint
        hosts = tuple(host for host in plan.hosts if host.name in self._alive)
        links = tuple(link for link in plan.links if link.child in self._alive)
        return Scene(replace(plan, hosts=hosts, links=links), ())

    def program(self, node: str) -> list[str]:
        """As the unit has it."""
        return self._apart(node, "/usr/bin/python3", "-I", "-S", str(self._archive))

    def direct(self) -> int:
        """Peers that the hub's WireGuard sends to, and not by the anchor."""
        lines = self.run(HUB, *self._apart(HUB, "wg", "show", self.interface(HUB), "endpoints")).splitlines()
        endpoints = [line.split("\t")[1] for line in lines]
        return sum(1 for to in endpoints if to not in ("", "(none)") and to.rpartition(":")[0] != ANCHOR_IP)

    def _raise(self, tunnel: Tunnel) -> None:
        (self.folder / "sockets" / tunnel.node).mkdir(parents=True)
        device = tunnel.interface
        self.run(tunnel.node, *self._apart(tunnel.node, "wireguard-go", device))
        self.run(tunnel.node, *self._apart(tunnel.node, "wg", "setconf", device, "/dev/stdin"), text=tunnel.config)
        lines = [f"addr add {address} dev {device}" for address in tunnel.addresses]
        ip_batch([*lines, f"link set {device} up mtu 1420"], lab=self.name, element=tunnel.node)

    def _apart(self, node: str, *words: str) -> list[str]:
        """For `ip netns exec`, under which mounts are the program's own."""
        mounted = f'mount --bind "$0" {SOCKETS} && exec "$@"'
        return ["sh", "-c", mounted, str(self.folder / "sockets" / node), *words]


def inventory(peers: Iterable[str]) -> str:
    """Of a star: nobody has a NAT, and only the anchor's address is written down."""
    return yaml.safe_dump({
        "version": 1,
        "networks": {"corp": {"cidr": ["10.42.0.0/16"], "policy": "deny"}},
        "nodes": {
            ANCHOR: {"roles": ["anchor"], "endpoint": f"{ANCHOR_IP}:51820"},
            **{name: {"lab": {"nat": "none"}} for name in (HUB, *peers)},
        },
        "policies": [{"name": "star", "from": [HUB], "to": ["*"], "allow": ["any"], "both_ways": True}],
    }, sort_keys=False)  # fmt: skip


def measure() -> list[Row]:
    """One row for each size and state."""
    rows = []
    for peers, settled in SIZES:
        with tempfile.TemporaryDirectory() as scratch, Star(peers, Path(scratch), alive=settled) as here:
            rows += star(here, settled=settled)
    return rows


def star(here: Star, *, settled: bool) -> list[Row]:
    """The hub beside peers whose agents do not run; `settled`: then beside those that do."""
    pids = {ANCHOR: here.start(ANCHOR), HUB: here.start(HUB)}
    time.sleep(SETTLE_S)
    rows = watched(len(here.peers), {SILENT: pids[HUB]})
    if settled:
        for peer in here.peers:
            here.start(peer)
            time.sleep(JOIN_S)
        end = time.monotonic() + PATIENCE_S
        while (direct := here.direct()) < len(here.peers) and time.monotonic() < end:
            time.sleep(1.0)
        time.sleep(SETTLE_S)
        settled_as = f"{direct} of {len(here.peers)} direct"
        rows += watched(len(here.peers), {settled_as: pids[HUB], f"their anchor, {settled_as}": pids[ANCHOR]})
    return rows
