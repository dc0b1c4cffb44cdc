"""Apply over SSH to 20 and 50 hosts: meshctl against Ansible and pyinfra, first run and no-op.

The hosts are a lab's (Debian, systemd, sshd). All three controllers run in the lab's own internet, the one namespace
from which every host is reached by plain TCP, so that none of them has a shorter way than another. Ansible and pyinfra
get the files that meshctl rendered and put the same bytes in the same places.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_side
import bench_meshes
import pyinfra_side
from measure import CACHE, environment_of, run

from meshctl import inventory, lab
from meshctl.lab.names import INTERNET, netns_path
from meshctl.model.resources import File, NodeDoc, Service
from meshctl.policy import compile_mesh
from meshctl.render import Renderer
from meshctl.render.secret import ring_for

NAME = "bench"
ANSIBLE = "ansible-core==2.19.*"
PYINFRA = "pyinfra==3.*"
# Hosts and round-trip time in ms; the lab's wires delay each way by half of it.
CASES = ((20, 0), (50, 0), (50, 50))
NO_OPS = 3
# Every host has these few peers: fifty times forty-nine handshakes of userspace WireGuard on one machine would be the
# same load under all three tools, and hide them.
HUBS = 2
SECRET = {"MESHCTL_SECRET": bench_meshes.SECRET}
# Everything that an apply leaves behind, but for the node's key: it stays, so that the three runs start alike.
RESET = """
systemctl disable --now -q {services} 2>/dev/null
nft delete table inet meshctl 2>/dev/null
rm -rf {files} /etc/meshctl /var/lib/meshctl /opt/meshctl /root/.ansible
systemctl daemon-reload
sync
"""


@dataclass(frozen=True)
class Bench:
    """One lab that is up. `documents` are what each node should have, `folder` is for the tools' own files."""

    folder: Path
    path: Path
    documents: dict[str, NodeDoc]
    addresses: dict[str, str]

    def inside(self, words: list[str | Path], environment: dict[str, str] | None = None) -> float:
        """Run one controller in the lab's internet; wall seconds."""
        entered = ["nsenter", f"--net={netns_path(NAME, INTERNET)}", "--", *words]
        return run(entered, cwd=self.folder, environment=environment).wall_s

    def everywhere(self, script: str) -> dict[str, str]:
        """Run a shell script on every host; what each printed."""

        def one(node: str) -> str:
            done = lab.exec_(NAME, node, ["sh"], input=script.encode())
            if done.returncode:
                raise SystemExit(f"bench: on {node}: {done.stderr.decode()}")
            return done.stdout.decode()

        with ThreadPoolExecutor(8) as pool:
            return dict(zip(self.documents, pool.map(one, self.documents), strict=True))

    def reset(self) -> None:
        """Take away what any of the three put there."""
        document = next(iter(self.documents.values()))
        services = " ".join(r.name for r in document.resources if isinstance(r, Service))
        files = " ".join(r.path for r in document.resources if isinstance(r, File) and r.state == "file")
        self.everywhere(RESET.format(services=services, files=files))

    def check(self, tool: str) -> None:
        """All three must have reached the same state, or the comparison means nothing."""
        wanted = {
            node: "".join(f"{_sha(r)}  {r.path}\n" for r in document.resources if isinstance(r, File) and r.content)
            for node, document in self.documents.items()
        }
        paths = " ".join(line.split()[1] for line in next(iter(wanted.values())).splitlines())
        found = self.everywhere(f"sha256sum {paths}; wg show wg0 peers | wc -l")
        for node, text in found.items():
            peers = sum(len(interface.peers) for interface in self.documents[node].interfaces())
            if text != f"{wanted[node]}{peers}\n":
                raise SystemExit(f"bench: {tool} left {node} with\n{text}instead of\n{wanted[node]}")


def _sha(file: File) -> str:
    import hashlib

    return hashlib.sha256(file.content or b"").hexdigest()


def meshctl_command(path: Path) -> list[str | Path]:
    """One `meshctl apply` over the network."""
    return [Path(sys.executable).with_name("meshctl"), "apply", path]


def build(count: int, rtt_ms: int) -> Bench:
    """Bring the lab up, let meshctl make the keys, and render what everybody has to write."""
    folder = CACHE / "apply"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inventory.yml"
    state = lab.state_dir(NAME)
    ssh = f"{{user: root, key: {state}/id_ed25519, known_hosts: {state}/known_hosts, config: none}}"
    path.write_text(bench_meshes.text(count, hubs=HUBS, delay_ms=rtt_ms / 2, ssh=ssh), encoding="utf-8")
    path.with_name("inventory.lock.yml").unlink(missing_ok=True)
    lab.down(NAME)
    mesh = inventory.read(path).mesh
    lab.up(mesh, NAME)
    addresses = {node.name: node.ssh.host for node in mesh.managed()}
    Bench(folder, path, {}, addresses).inside(meshctl_command(path), SECRET)
    mesh = inventory.read(path).mesh
    run_secret = folder / "secret"
    run_secret.write_text(bench_meshes.SECRET, encoding="utf-8")
    renderer = Renderer(compile_mesh(mesh), ring_for(mesh, str(run_secret)))
    documents = {name: renderer.node(name) for name in addresses}
    return Bench(folder, path, documents, addresses)


def measure_case(count: int, rtt_ms: int) -> list[dict[str, Any]]:
    """Two rows: the first run and the no-op."""
    ansible = environment_of("ansible", ANSIBLE)
    pyinfra = environment_of("pyinfra", PYINFRA)
    bench = build(count, rtt_ms)
    key = lab.state_dir(NAME) / "id_ed25519"
    known_hosts = lab.state_dir(NAME) / "known_hosts"
    runs: dict[str, Callable[[], float]] = {
        "meshctl": lambda: bench.inside(meshctl_command(bench.path), SECRET),
        "ansible": ansible_side.prepare(bench, ansible, key, known_hosts),
        "pyinfra": pyinfra_side.prepare(bench, pyinfra, key, known_hosts),
    }
    first: dict[str, Any] = {"hosts": count, "rtt_ms": rtt_ms, "run": "first"}
    no_op: dict[str, Any] = {"hosts": count, "rtt_ms": rtt_ms, "run": "no-op"}
    for tool, once in runs.items():
        bench.reset()
        first[f"{tool}_s"] = once()
        bench.check(tool)
        no_op[f"{tool}_s"] = statistics.median(once() for _ in range(NO_OPS))
        bench.check(tool)
    print(first, no_op, file=sys.stderr)
    return [first, no_op]


def measure() -> list[dict[str, Any]]:
    """All cases; the lab is gone afterwards."""
    try:
        return [row for count, rtt_ms in CASES for row in measure_case(count, rtt_ms)]
    finally:
        lab.down(NAME)
