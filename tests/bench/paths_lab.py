"""A lab for measurements of paths: hosts behind NATs, agents that can be started as new, and meters on hosts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import yaml
from measure import CACHE, run
from paths_meter import METER
from paths_way import Way, Ways

from meshctl import inventory, lab
from meshctl.lab import enter
from meshctl.lab.names import INTERNET

NAME = "paths"
INTERFACE = "wg0"
UNIT = "meshctl-agent.service"
# No session, no endpoint but those of the files, and no memory of the agent's.
FORGET = f"systemctl stop {UNIT} && rm -rf /var/lib/meshctl/agent/* && systemctl restart wg-quick@{INTERFACE}"
START = f"systemctl start {UNIT}"
READ_S = 0.1
# How long all pairs of a lab are watched that begin at once (a splice may need a third attempt, 30 s after the second),
# and how often they ask each other.
ALL_S, SELDOM_S = 90.0, 0.1
DELAY = "20ms"  # one way, on every line
ANCHORS = {
    "mid": {"roles": ["anchor"], "endpoint": "203.0.113.10:51820", "lab": {"delay": DELAY}},
    "far": {"roles": ["anchor"], "endpoint": "198.51.100.10:51820", "lab": {"delay": DELAY}},
}
# Who does not reach whom in the internet: nobody yet.
MEND = """
table inet cut
delete table inet cut
table inet cut {
  set apart { type ipv4_addr . ipv4_addr; }
  chain between {
    type filter hook forward priority 0;
    ip saddr . ip daddr @apart drop
  }
}
"""
OPEN = {"networks": {"corp": {"cidr": ["10.42.0.0/16"], "policy": "open"}}}


class PathsLab:
    """One lab that is up and applied. `more` are the inventory's further parts."""

    def __init__(self, nodes: Mapping[str, Any], **more: Any) -> None:
        self.document = {"version": 1, "defaults": {"ssh": {"user": "root"}}, **OPEN, "nodes": dict(nodes), **more}
        folder = CACHE / NAME
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "inventory.yml"
        self._write()
        lab.down(NAME)
        lab.up(inventory.read(self.path).mesh, NAME)
        self.meshctl("apply")
        mesh = inventory.read(self.path, lock_path=lab.lock_path(NAME)).mesh
        self.hosts = tuple(node.name for node in mesh.managed())
        self.anchors = {ip: node.name for node in mesh.managed() if node.is_anchor for ip in self._outer_ips(node.name)}
        at = {node.name: node.attachments[0] for node in mesh.managed()}
        # Mesh address and public key.
        self.peers = {name: (place.addresses[0], str(place.public_key)) for name, place in at.items()}

    def _write(self) -> None:
        self.path.write_text(yaml.safe_dump(self.document, sort_keys=False), encoding="utf-8")

    def _outer_ips(self, host: str) -> tuple[str, ...]:
        devices = json.loads(self.sh(host, "ip -json addr show scope global"))
        return tuple(a["local"] for d in devices if d["ifname"] != INTERFACE for a in d["addr_info"] if a)

    def meshctl(self, command: str, *words: str) -> str:
        """A command on the lab."""
        return run([sys.executable, "-m", "meshctl", command, self.path, "--lab", NAME, *words]).stdout

    def apply(self, **parts: Any) -> None:
        """Replace parts of the inventory, and apply it."""
        self.document.update(parts)
        self._write()
        self.meshctl("apply")

    def sh(self, element: str, script: str) -> str:
        """A shell script on a host or router. Raises SystemExit when it fails."""
        done = lab.exec_(NAME, element, ["sh", "-c", script])
        if done.returncode:
            raise SystemExit(f"bench: {element}: {script!r}: {(done.stdout + done.stderr).decode(errors='replace')}")
        return done.stdout.decode()

    def everywhere(self, script: str, hosts: Iterable[str]) -> None:
        """A script on many hosts at once."""
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda host: self.sh(host, script), hosts))

    def from_nothing(self) -> tuple[float, Ways]:
        """Start all agents at once on hosts that know nothing yet. When that was, and what meters saw of all pairs."""
        self.everywhere(FORGET, self.hosts)
        asked = {host: [peer for peer in self.hosts if peer != host] for host in self.hosts}
        with self.meters(SELDOM_S, asked) as ways:
            begun = now()
            self.everywhere(START, self.hosts)
            time.sleep(ALL_S)  # from when all run: on a busy machine the last one is late
        return begun, ways

    def endpoint(self, host: str, peer: str) -> str:
        """The IP to which the host's WireGuard sends what is for the peer."""
        lines = self.sh(host, f"wg show {INTERFACE} endpoints").splitlines()
        found = dict(line.split("\t") for line in lines)[self.peers[peer][1]]
        return found.rpartition(":")[0].strip("[]")

    def mend(self) -> None:
        """Everything passes between all routers, until `cut`."""
        self.sh(INTERNET, f"nft '{MEND}'")

    def cut(self, one: str, other: str) -> None:
        """Nothing passes any more between these two IPs; `mend` came before. May be called by several threads."""
        self.sh(INTERNET, f"nft 'add element inet cut apart {{ {one} . {other}, {other} . {one} }}'")

    def wan(self, router: str) -> str:
        """Its outer IPv4 address."""
        address: str = json.loads(self.sh(router, "ip -json -4 addr show dev wan"))[0]["addr_info"][0]["local"]
        return address

    @contextmanager
    def meters(
        self, every_s: float, asked: Mapping[str, Iterable[str]], *, eager: bool = False, read_s: float = READ_S,
        peers: Mapping[str, tuple[str, str]] | None = None,
    ) -> Iterator[Ways]:  # fmt: skip
        """Meters while the block runs, host -> the peers that it asks; what they found is in the mapping afterwards.
        `eager`: they ask peers without an endpoint too. `peers`: addresses and keys that are not the mesh's."""
        book = self.peers if peers is None else peers
        started = {}
        for host in asked:
            how = [f"{every_s}", f"{read_s}", "eager" if eager else "waits"]
            argv = enter.command(NAME, host, ["python3", "-c", METER, INTERFACE, *how])
            started[host] = subprocess.Popen(argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ways: Ways = {}
        try:
            for host, process in started.items():
                print(json.dumps({other: book[other] for other in asked[host]}), file=process.stdin, flush=True)
            for host, process in started.items():
                if process.stdout is None or process.stdout.readline() != "up\n":
                    raise SystemExit(f"bench: no meter on {host}")
            yield ways
            for host, process in started.items():
                for other, seen in json.loads(process.communicate(timeout=30)[0]).items():
                    answered = {int(number): at for number, at in seen["answered"].items()}
                    endpoints = tuple((at, endpoint) for at, endpoint in seen["endpoints"])
                    ways[host, other] = Way(tuple(seen["sent"]), answered, endpoints, frozenset(self.anchors))
        finally:
            for process in started.values():
                process.kill()

    def down(self) -> None:
        """Take it away."""
        lab.down(NAME)


def now() -> float:
    """The clock that meters have."""
    return time.monotonic()
