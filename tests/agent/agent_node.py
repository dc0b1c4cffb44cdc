"""A namespace in which the applier runs as it ships: as a zipapp, by the system's Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

from meshctl.model.steps import Result, Step, Transaction
from meshctl.render import zipapp

_SETUP = """
set -e
mount --make-rprivate /
for d in /etc/wireguard /var/lib /run /opt /mnt; do mount -t tmpfs -o size={size} tmpfs $d; done
mkdir /var/lib/dpkg /var/lib/meshctl
ip link set lo up
echo ready
exec cat
"""


class Node:
    """A namespace in which the applier may do as it likes."""

    def __init__(self, folder: Path, size: str = "8m") -> None:
        self.agent = folder / "agent.pyz"
        self.agent.write_bytes(zipapp.build().content)
        self._keeper = subprocess.Popen(
            ["unshare", "-m", "-n", "sh", "-c", _SETUP.format(size=size)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "ready\n"
        pid = self._keeper.pid
        self.enter = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--net=/proc/{pid}/ns/net", "--"]
        self.command = [*self.enter, "/usr/bin/python3", "-I", "-S", str(self.agent), "apply"]

    def sh(self, script: str, check: bool = True) -> str:
        words = [*self.enter, "sh", "-c", script]
        return subprocess.run(words, capture_output=True, text=True, check=check, timeout=30).stdout

    def start(self, transaction: Transaction) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(transaction.encode())
        process.stdin.close()
        process.stdin = None
        return process

    def apply(self, *steps: Step, id_: str = "t1", facts: str = "") -> Result:
        process = self.start(Transaction(id_, "n", steps, facts))
        out, err = process.communicate(timeout=60)
        assert err == b"", err.decode()
        return Result.from_json(out.decode())

    def close(self) -> None:
        # A userspace WireGuard ends with its interface, and not with the namespace that it is in.
        self.sh("for i in $(wg show interfaces); do ip link delete $i; done", check=False)
        self._keeper.communicate(timeout=10)


def write(path: str, content: str, mode: str = "0644") -> Step:
    return Step("write", path=path, content=content.encode(), mode=mode, owner="root", group="root")
