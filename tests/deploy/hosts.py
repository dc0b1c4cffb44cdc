"""Hosts without systemd: a mount and a network namespace each, entered by every SSH command; /etc is an overlay."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path

from sshlab import SshLab

# What meshctl touches is the host's own; the rest of the system is shared and read by all.
_SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {work}
mkdir {work}/up {work}/over
mount -t overlay -o lowerdir=/etc,upperdir={work}/up,workdir={work}/over overlay /etc
for d in /run /opt /var/lib; do mount -t tmpfs -o size={size} tmpfs $d; done
mkdir -p /run/sshd /var/lib/dpkg
ip link set lo up
echo ready
exec cat
"""
_ENTER = """#!/bin/sh
exec nsenter --mount=/proc/{pid}/ns/mnt --net=/proc/{pid}/ns/net -- sh -c "$SSH_ORIGINAL_COMMAND"
"""
# What a host without systemd can follow. Variable `motd`.
ROLES = {
    "wireguard": [
        "- file: {path: /etc/wireguard, state: directory, mode: '0700'}",
        "- template: {src: wg-quick.conf.j2, dest: '/etc/wireguard/wg0.conf', mode: '0600'}",
        "  loop: '{{ interfaces }}'",
        "  no_log: true",
        "- wireguard: {interface: wg0}",
        "- file: {path: /etc/app, state: directory, mode: '0755'}",
        "- copy: {dest: /etc/app/motd, content: \"{{ vars.motd }}\", mode: '0640'}",
        "- copy: {dest: /etc/app/token, content: 'sesame open wide', mode: '0600'}",
    ],
    "firewall": ["- nftables: {family: inet, table: meshctl, src: firewall.nft.j2}"],
}


def write_roles(folder: Path) -> None:
    """These roles, beside an inventory in `folder`."""
    for role, tasks in ROLES.items():
        (folder / "roles" / role / "tasks").mkdir(parents=True)
        (folder / "roles" / role / "tasks" / "main.yml").write_text("\n".join(tasks) + "\n")


class Host:
    """One host; `sh` looks into it."""

    def __init__(self, folder: Path, size: str = "16m") -> None:
        folder.mkdir()
        work = folder / "work"
        work.mkdir()
        script = _SETUP.format(work=shlex.quote(str(work)), size=size)
        self._keeper = subprocess.Popen(
            ["unshare", "-m", "-n", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "ready\n"
        self.enter = folder / "enter"
        self.enter.write_text(_ENTER.format(pid=self._keeper.pid))
        self.enter.chmod(0o755)

    @property
    def namespaces(self) -> list[str]:
        """Words that run what follows inside the host."""
        pid = self._keeper.pid
        return ["nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--net=/proc/{pid}/ns/net", "--"]

    def sh(self, script: str, check: bool = True) -> str:
        """Standard output of a shell script in the host."""
        done = subprocess.run(
            [*self.namespaces, "sh", "-c", script], capture_output=True, text=True, check=check, timeout=60
        )
        return done.stdout

    def close(self) -> None:
        """The namespaces go with their last process; wireguard-go is a daemon that only a signal ends."""
        own = Path(f"/proc/{self._keeper.pid}/ns/net").stat().st_ino
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(process.name) != self._keeper.pid and (process / "ns/net").stat().st_ino == own:
                    os.kill(int(process.name), signal.SIGTERM)
        self._keeper.communicate(timeout=10)


def start(sshlab: SshLab, *names: str) -> dict[str, Host]:
    """Hosts behind real servers, trusted."""
    hosts = {}
    for name in names:
        hosts[name] = Host(sshlab.folder / f"host-{name}")
        sshlab.start(name, force=str(hosts[name].enter))
    return hosts
