"""A mesh of two in the guest: the guest itself as node `kern`, and a stock client in a network namespace inside it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import agentnode_pings
import yaml
from kernel_guest import COMMAND_TIMEOUT_S, Guest

SECRET = secrets.token_urlsafe(48)
# An emulated host answers slowly while it is busy; ten times a second is enough to see a bounced tunnel.
PING_INTERVAL_S = 0.1
LAST_ANSWER_S = 5
# The client's side of a veth pair, and its config brought up by wg-quick as any Linux user of it would.
CLIENT_UP = """\
ip netns add phone
ip link add outside type veth peer name eth0 netns phone
ip addr add 203.0.113.1/24 dev outside
ip link set outside up
ip -n phone addr add 203.0.113.2/24 dev eth0
ip -n phone link set lo up
ip -n phone link set eth0 up
ip netns exec phone wg-quick up /root/phone0.conf 2>&1
"""


class KernelMesh:
    """The inventory of one test module, and the real command line run against the guest."""

    def __init__(self, guest: Guest, folder: Path, backend: str) -> None:
        self.guest = guest
        self.path = folder / "inventory.yml"
        self.document: dict[str, Any] = {
            "version": 1,
            "networks": {"corp": {"cidr": ["10.42.0.0/16", "fd42:42::/48"], "policy": "open"}},
            "nodes": {
                "kern": {
                    "backend": backend,
                    "endpoint": "203.0.113.1:51820",
                    "ssh": {
                        "host": "127.0.0.1", "port": guest.port, "user": "root", "config": "none",
                        "key": str(guest.identity.key), "known_hosts": str(guest.identity.known_hosts),
                        "connect_timeout": COMMAND_TIMEOUT_S, "command_timeout": COMMAND_TIMEOUT_S,
                    },
                },
                "phone": {"client": True, "peers": ["kern"], "mtu": 1380},
            },
        }  # fmt: skip
        self.write()

    def write(self) -> None:
        """Write the document to the inventory file."""
        self.path.write_text(yaml.safe_dump(self.document, sort_keys=False))

    def set(self, **settings: Any) -> None:
        """Change settings of the node in the inventory."""
        self.document["nodes"]["kern"].update(settings)
        self.write()

    def meshctl(self, *words: str) -> str:
        """Standard output of `meshctl WORDS -i INVENTORY`, which must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "meshctl", *words, "-i", str(self.path)],
            check=False, text=True, capture_output=True, env={**os.environ, "MESHCTL_SECRET": SECRET},
            timeout=COMMAND_TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, f"meshctl {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def apply(self) -> list[tuple[str, str, str]]:
        """(kind, action, name) of each change that `apply` made to the node."""
        node = json.loads(self.meshctl("apply", "-o", "json"))["nodes"]["kern"]
        assert node["status"] == ("changed" if node["changes"] else "unchanged"), node
        return [(c["kind"], c["action"], c["name"]) for c in node["changes"]]

    def plan(self) -> list[tuple[str, str, str]]:
        """(kind, action, name) of each change that `apply` would make."""
        return [(c["kind"], c["action"], c["name"]) for c in json.loads(self.meshctl("plan", "-o", "json"))["changes"]]

    def enrol_client(self) -> None:
        """Make the client's key and put its config into the guest."""
        config = self.meshctl("client", "show", "phone", "--conf")
        self.guest.sh("umask 077; cat >/root/phone0.conf", stdin=config)

    def start_client(self) -> None:
        """Bring the client up in a fresh namespace, and with it the link over which it reaches the node."""
        self.guest.sh(CLIENT_UP)

    def address(self, node: str, family: int = 4) -> str:
        """The node's mesh address, from the lock."""
        lock = yaml.safe_load(self.path.with_name("inventory.lock.yml").read_text())
        addresses: list[str] = lock["nodes"][node]["corp"]["addresses"]
        return next(a for a in addresses if (":" in a) == (family == 6))

    def client_reaches_node(self, family: int = 4) -> bool:
        """Whether a ping of the client through the tunnel is answered; a dead session takes 15 s to be noticed."""
        ping = f"ping -n -q -c 1 -w 60 {self.address('kern', family)}"
        script = f"ip netns exec phone {ping} >/dev/null && echo yes"
        return self.guest.sh(script, check=False) == "yes\n"

    @contextmanager
    def lossless(self) -> Iterator[None]:
        """The client pings the node all the while; every packet must be answered."""
        target = self.address("kern")
        ping = f"ip netns exec phone ping -n -i {PING_INTERVAL_S} {target} >/tmp/ping 2>&1 </dev/null & echo $!"
        assert self.client_reaches_node()
        pid = int(self.guest.sh(ping))
        yield
        one_more = f"timeout {LAST_ANSWER_S} tail -n 0 -f /tmp/ping | grep -q -m 1 ttl"
        said = self.guest.sh(f"{one_more}; kill -INT {pid}; tail --pid={pid} -f /dev/null; cat /tmp/ping")
        numbers = agentnode_pings.answered(said)
        assert len(numbers) > 10, said
        assert sorted(set(range(1, max(numbers))) - set(numbers)) == [], said
        # What was under way when ping was told to stop is not lost; an emulated machine may take its time.
        assert agentnode_pings.sent(said) - max(numbers) < LAST_ANSWER_S / PING_INTERVAL_S, said

    def handshake(self) -> int:
        """Unix time of the client's latest handshake with the node, as the node's kernel has it; 0 for never."""
        rows = self.guest.sh("wg show wg0 latest-handshakes").split()
        return int(rows[1])

    def networkd(self) -> dict[str, Any]:
        """networkd's own description of wg0."""
        described: dict[str, Any] = json.loads(self.guest.sh("networkctl --json=short status wg0"))
        return described
