"""Nodes behind NATs as namespaces of the guest, on its kernel's WireGuard, with agents that run as nodes have them."""

from __future__ import annotations

import base64
import io
import pickle
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from agentnode_cast import Cast
from kernel_guest import Guest

from meshctl.core.agent.document import encode
from meshctl.lab.names import netns
from meshctl.render import zipapp

NAME = "stage"
HERE = "/root/stage"
ROOT = Path(__file__).parents[2]
# What building needs: the standard library and this.
PROGRAM = (
    "meshctl/__init__.py", "meshctl/errors.py", "meshctl/lab/__init__.py", "meshctl/lab/blueprint.py",
    "meshctl/lab/names.py", "meshctl/lab/nat.py", "meshctl/lab/netns.py", "meshctl/lab/network.py",
    "meshctl/lab/procs.py", "meshctl/lab/shell.py", "meshctl/lab/wiring.py", "tests/agent/agentnode_scene.py",
)  # fmt: skip
BUILD = f"""\
import pickle, sys
sys.path[:0] = ["{HERE}", "{HERE}/tests/agent"]
from agentnode_scene import KERNEL, build
with open("{HERE}/scene", "rb") as file:
    build("{NAME}", pickle.load(file), KERNEL)
"""
# argv: nodes. Starts an agent for each, from one process: under emulation it takes 10 s to compile a zipapp.
START = f"""\
import ctypes, os, sys
sys.path.insert(0, "{HERE}/agent.pyz")
import meshctl.agent.main, meshctl.agent.node.service
CLONE_NEWNET = 0x40000000
for node in sys.argv[1:]:
    if os.fork():
        continue
    os.setsid()
    os.umask(0o077)
    with open(f"/run/netns/{netns(NAME, "")}{{node}}") as space:
        assert ctypes.CDLL(None).setns(space.fileno(), CLONE_NEWNET) == 0
    with open("/dev/null") as nothing, open(f"{HERE}/{{node}}.log", "w") as log:
        for number, file in enumerate((nothing, log, log)):
            os.dup2(file.fileno(), number)
    files = {{"document": "json", "state": "state", "socket": "sock", "metrics-file": "prom"}}
    sys.argv[1:] = ["run", *(f"--{{name}}={HERE}/{{node}}.{{end}}" for name, end in files.items())]
    os._exit(meshctl.agent.main.main())
"""
# A command in the guest takes a tenth of a second and more.
STEP_S = 0.5


class KernelStage(Cast):
    """The inventory's nodes. They go with the guest."""

    def __init__(self, guest: Guest, text: str, folder: Path) -> None:
        super().__init__(text, folder)
        self.guest = guest
        guest.sh(f"mkdir -p {HERE} && base64 -d | tar -x -C {HERE}", stdin=self._archive())
        guest.sh("modprobe wireguard; python3 -", stdin=BUILD)

    def _archive(self) -> str:
        files = {name: (ROOT / name).read_bytes() for name in PROGRAM}
        files |= {"scene": pickle.dumps(self.scene()), "agent.pyz": zipapp.build().content}
        files |= {f"{node.name}.json": encode(self.content(node.name)) for node in self.mesh.managed()}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o600
                archive.addfile(member, io.BytesIO(content))
        return base64.b64encode(packed.getvalue()).decode()

    def sh(self, element: str, script: str, *, check: bool = True) -> str:
        """Standard output of a shell script on a node or router."""
        return self.guest.sh(f"ip netns exec {netns(NAME, element)} sh", check=check, stdin=script)

    def start(self, *nodes: str) -> None:
        """Start agents."""
        self.guest.sh(f"python3 - {' '.join(nodes)}", stdin=START)

    def logs(self) -> str:
        """What all agents have said."""
        return self.guest.sh(f"tail -n +1 {HERE}/*.log")

    def endpoint(self, node: str, peer: str) -> str:
        """Where the node's WireGuard sends what is for the peer; "(none)" for nowhere."""
        shown = self.sh(node, f"wg show {self.interface(node)} endpoints")
        return dict(line.split("\t") for line in shown.splitlines())[self.key(peer)]

    def until(self, what: Callable[[], bool], timeout_s: float) -> None:
        """Wait for something that only looking at shows; fails with what agents have said."""
        end = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < end, f"not within {timeout_s} s: {self.logs()}"
            time.sleep(STEP_S)
