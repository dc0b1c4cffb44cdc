"""A namespace in which the applier runs as it ships: as a zipapp, by the system's Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

from meshctl.model.places import PENDING_PATH, REVERT_LINK
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

    def apply(self, *steps: Step, id_: str = "t1", confirm_s: float = 0.0, **about: str) -> Result:
        """`about`: more of the transaction's fields."""
        process = self.start(Transaction(id_, "n", steps, confirm_s=confirm_s, who="ann@desk", **about))
        out, err = process.communicate(timeout=60)
        assert err == b"", err.decode()
        return Result.from_json(out.decode())

    def decide(self, what: str, id_: str = "t1") -> Result:
        """`confirm` or `undo` it."""
        return Result.from_json(self.sh(f"/usr/bin/python3 -I -S {REVERT_LINK} {what} {id_}", check=False))

    def await_decided(self) -> None:
        """Until no apply is pending."""
        self.sh(f"timeout 20 sh -c 'while [ -e {PENDING_PATH} ]; do sleep 0.05; done'")

    def close(self) -> None:
        # A userspace WireGuard ends with its interface, and not with the namespace that it is in.
        self.sh("for i in $(wg show interfaces); do ip link delete $i; done", check=False)
        self._keeper.communicate(timeout=10)


def write(path: str, content: str, mode: str = "0644") -> Step:
    return Step("write", path=path, content=content.encode(), mode=mode, owner="root", group="root")


def script(text: str) -> Step:
    return Step("run", argv=("sh", "-c", text))
