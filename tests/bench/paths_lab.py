"""A lab for measurements of paths: hosts behind NATs, agents that can be started as new, and meters on all hosts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from measure import CACHE, run
from paths_meter import METER

from meshctl import inventory, lab
from meshctl.lab import enter

NAME = "paths"
INTERFACE = "wg0"
UNIT = "meshctl-agent.service"
# No session, no endpoint but those of the files, and no memory of the agent's.
FORGET = f"systemctl stop {UNIT} && rm -rf /var/lib/meshctl/agent/* && systemctl restart wg-quick@{INTERFACE}"
START = f"systemctl start {UNIT}"
READ_S = 0.1
# How a peer is reached, by WireGuard's endpoint.
DIRECT, RELAYED, NONE = "direct", "relayed", "none"


@dataclass(frozen=True)
class Way:
    """What one host's meter found out about one peer. Times are seconds of the machine's monotonic clock."""

    answered: tuple[float, ...]
    endpoints: tuple[tuple[float, str], ...]
    anchors: frozenset[str]

    def first_s(self, since: float) -> float | None:
        """From `since` to the first answer after it."""
        return min((at - since for at in self.answered if at >= since), default=None)

    def kind(self, at: float = float("inf")) -> str:
        """How the peer was reached at that time, by WireGuard's endpoint."""
        last = [endpoint for when, endpoint in self.endpoints if when <= at]
        if not last or last[-1] == "(none)":
            return NONE
        return RELAYED if last[-1].rpartition(":")[0].strip("[]") in self.anchors else DIRECT

    def direct_s(self, since: float) -> float | None:
        """From `since` until the endpoint was direct and stayed so. None where it is not."""
        if self.kind() != DIRECT:
            return None
        begun = since
        for when, _ in self.endpoints:
            if self.kind(when) != DIRECT:
                begun = float("inf")
            elif begun == float("inf") or when < since:
                begun = max(when, since)
        return begun - since


Ways = dict[tuple[str, str], Way]


class PathsLab:
    """One lab that is up and applied."""

    def __init__(self, nodes: Mapping[str, Any], name: str = NAME, **more: Any) -> None:
        document = {
            "version": 1,
            "defaults": {"ssh": {"user": "root"}},
            "networks": {"corp": {"cidr": ["10.42.0.0/16"], "policy": "open"}},
            "nodes": dict(nodes),
            **more,
        }
        folder = CACHE / name
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.path = name, folder / "inventory.yml"
        self.path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        lab.down(name)
        lab.up(inventory.read(self.path).mesh, name)
        self.meshctl("apply")
        self.mesh = inventory.read(self.path, lock_path=lab.lock_path(name)).mesh
        self.hosts = tuple(n.name for n in self.mesh.managed())
        self.anchors = frozenset(
            str(node["endpoint"]).rpartition(":")[0] for node in nodes.values() if "anchor" in node.get("roles", ())
        )

    def meshctl(self, command: str, *words: str) -> str:
        """A command on the lab."""
        return run([sys.executable, "-m", "meshctl", command, self.path, "--lab", self.name, *words]).stdout

    def sh(self, element: str, script: str) -> str:
        """A shell script on a host or router. Raises SystemExit when it fails."""
        done = lab.exec_(self.name, element, ["sh", "-c", script])
        if done.returncode:
            raise SystemExit(f"bench: {element}: {script!r}: {(done.stdout + done.stderr).decode(errors='replace')}")
        return done.stdout.decode()

    def everywhere(self, script: str) -> None:
        """A script on all hosts at once."""
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda host: self.sh(host, script), self.hosts))

    def fresh(self) -> None:
        """All hosts as before the agents' first start."""
        self.everywhere(FORGET)

    @contextmanager
    def meters(self, every_s: float) -> Iterator[Ways]:
        """Meters on all hosts while the block runs; what they found is in the mapping afterwards."""
        at = {node.name: node.attachments[0] for node in self.mesh.managed()}
        of = {name: (place.addresses[0], str(place.public_key)) for name, place in at.items()}
        started = {}
        for host in self.hosts:
            argv = enter.command(self.name, host, ["python3", "-c", METER, INTERFACE, f"{every_s}", f"{READ_S}"])
            started[host] = subprocess.Popen(argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ways: Ways = {}
        try:
            for host, process in started.items():
                peers = {other: of[other] for other in self.hosts if other != host}
                print(json.dumps(peers), file=process.stdin, flush=True)
            for host, process in started.items():
                if process.stdout is None or process.stdout.readline() != "up\n":
                    raise SystemExit(f"bench: no meter on {host}")
            yield ways
            for host, process in started.items():
                found = json.loads(process.communicate(timeout=30)[0])
                for other, seen in found.items():
                    endpoints = tuple((at, endpoint) for at, endpoint in seen["endpoints"])
                    ways[host, other] = Way(tuple(seen["answered"]), endpoints, self.anchors)
        finally:
            for process in started.values():
                process.kill()

    def down(self) -> None:
        """Take it away."""
        lab.down(self.name)


def now() -> float:
    """The clock that meters have."""
    return time.monotonic()
