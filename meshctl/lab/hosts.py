"""Debian hosts: systemd-nspawn over an overlay of the image, each in its own network namespace and cgroup."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from meshctl.lab import procs
from meshctl.lab.blueprint import Blueprint, Host
from meshctl.lab.names import LabError, netns, netns_path, state_dir
from meshctl.lab.shell import run

# One boot takes half a second on an idle machine, a dozen at once on a busy one some more.
BOOT_TIMEOUT_S = 120.0
SHUTDOWN_TIMEOUT_S = 30.0
CGROUPS = Path("/sys/fs/cgroup")
# Moves itself into its cgroups ($1 is their number), then becomes the container.
_LAUNCH = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit; shift; n=$((n-1)); done; exec "$@"'


@dataclass(frozen=True)
class Disk:
    """The folders of one host's overlay."""

    base: Path

    @property
    def root(self) -> Path:
        """Where the overlay is mounted: the host's own /."""
        return self.base / "root"

    @property
    def console(self) -> Path:
        """What the host printed while booting."""
        return self.base / "console.log"


def disk(lab: str, node: str) -> Disk:
    """The host's disk."""
    return Disk(state_dir(lab) / "hosts" / node)


def prepare_disk(lab: str, host: Host, blueprint: Blueprint, image: Path, login_key: str) -> None:
    """Mount the host's overlay and write what is its own. A disk that exists keeps everything else on it."""
    place = disk(lab, host.name)
    for folder in ("upper", "root"):
        (place.base / folder).mkdir(parents=True, exist_ok=True)
    if not place.root.is_mount():
        work = place.base / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        # Volatile: nothing waits for this machine's disk, which a dozen booting hosts would otherwise sync in turn. A
        # host's power cut loses nothing by it: its pages are in this kernel, which does not go down.
        options = f"lowerdir={image},upperdir={place.base / 'upper'},workdir={work},volatile"
        run(["mount", "-t", "overlay", "overlay", "-o", options, str(place.root)], where=host.name)
    root = place.root
    (root / "etc/hostname").write_text(f"{hostname(host.name)}\n")
    (root / "etc/hosts").write_text(_hosts_file(host, blueprint))
    (root / "etc/machine-id").write_text(hashlib.sha256(netns(lab, host.name).encode()).hexdigest()[:32] + "\n")
    keys = root / "root/.ssh/authorized_keys"
    keys.write_text(login_key)
    keys.chmod(0o600)
    key = root / "etc/ssh/ssh_host_ed25519_key"
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(key)], where=host.name)


def host_key(lab: str, node: str) -> str:
    """The host's public key as known_hosts has it: type and base64."""
    text = (disk(lab, node).root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    return " ".join(text.split()[:2])


def boot(lab: str, host: Host) -> tuple[int, int]:
    """Start the host and wait until its systemd says that it is up. Returns its init's pid and start time."""
    address = "\0mlab-" + hashlib.sha256(f"{netns(lab, host.name)} {time.time_ns()}".encode()).hexdigest()[:16]
    place = disk(lab, host.name)
    extra = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network", "NOTIFY_SOCKET": f"@{address[1:]}"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(address)
        container = procs.spawn(lab, host.name, _command(lab, host), place.console, extra)
        leader = _await_ready(ready, container, host.name, place.console)
    return leader, procs.start_time(leader)


def stop(lab: str, node: str, *, power_cut: bool = False) -> None:
    """Shut the host down in order, or pull its plug. Everything in its namespace ends."""
    if not power_cut:
        for pid in procs.marked(lab, node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in procs.marked(lab, node):
            procs.wait_exit(pid, SHUTDOWN_TIMEOUT_S)
    procs.kill(procs.marked(lab, node) | procs.inside([netns(lab, node)]))
    remove_cgroups(netns(lab, node))


def unmount(lab: str, node: str) -> None:
    """Release the host's disk. Lazily: a killed container's own mounts may take a moment to go."""
    place = disk(lab, node)
    if place.root.is_mount():
        stat = place.root.stat()
        run(["umount", "--lazy", str(place.root)], where=node)
        lock = f"inode-{stat.st_dev}:{stat.st_ino}"
        Path("/run/systemd/nspawn/locks", lock).unlink(missing_ok=True)
    shutil.rmtree(Path("/run/systemd/nspawn/propagate", machine_name(lab, node)), ignore_errors=True)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups that `boot` made and the host filled; they must be empty of processes."""
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                Path(folder).rmdir()


def _command(lab: str, host: Host) -> list[str]:
    words = [
        "systemd-nspawn", "--quiet", "--register=no", f"--directory={disk(lab, host.name).root}",
        f"--network-namespace-path={netns_path(lab, host.name)}", "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        "--bind=/dev/net/tun", f"--machine={machine_name(lab, host.name)}", f"--hostname={hostname(host.name)}",
        "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only", "--notify-ready=yes",
        "--boot",
    ]
    if Path("/run/systemd/system").is_dir():
        return words  # systemd gives the container a scope of its own
    groups = [hierarchy / netns(lab, host.name) for hierarchy in hierarchies()]
    for group in groups:
        group.mkdir(exist_ok=True)
    files = [str(g / "cgroup.procs") for g in groups]
    return ["sh", "-c", _LAUNCH, "sh", str(len(files)), *files, words[0], "--keep-unit", *words[1:]]


def hierarchies() -> list[Path]:
    """Where systemd inside the container keeps its units: the v2 tree, or v1's named tree and hybrid's v2 beside it."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [p for p in (CGROUPS / "systemd", CGROUPS / "unified") if p.is_dir()]


def hostname(node: str) -> str:
    """What the host calls itself: the node's name, in the letters that host names have (RFC 1123)."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", node).strip("-")


def machine_name(lab: str, node: str) -> str:
    """A name for nspawn's own bookkeeping; 64 characters of a host name at most."""
    return "mlab-" + hashlib.sha256(netns(lab, node).encode()).hexdigest()[:16]


def _await_ready(ready: socket.socket, container: int, node: str, console: Path) -> int:
    """The leader's pid, once systemd in the container has sent READY=1 (its sshd has by then)."""
    leader = 0
    until = time.monotonic() + BOOT_TIMEOUT_S
    descriptor = os.pidfd_open(container)
    try:
        while True:
            left = max(0.0, until - time.monotonic())
            found, _, _ = select.select([ready.fileno(), descriptor], [], [], left)
            if ready.fileno() not in found:
                break
            for line in ready.recv(4096).decode(errors="replace").splitlines():
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    leader = int(line.partition("=")[2])
                if line == "READY=1" and leader:
                    return leader
    finally:
        os.close(descriptor)
    said = [*console.read_text(errors="replace").strip().splitlines()[-5:], *_jobs(leader)]
    raise LabError("\n".join(["the host did not boot:", *said]), where=node, hint=f"all of it is in {console}")


def _jobs(leader: int) -> list[str]:
    """What systemd in the container is still waiting for."""
    if not leader:
        return []
    enter = ["nsenter", f"--target={leader}", "--mount", "--pid", "--root", "--"]
    try:
        return run([*enter, "systemctl", "--no-pager", "list-jobs"]).splitlines()
    except LabError as error:
        return [error.message]


def _hosts_file(host: Host, blueprint: Blueprint) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    names = {name for _, known in blueprint.hosts_file for name in known}
    if host.name not in names:
        lines.append(f"127.0.1.1 {host.name}")
    lines += [f"{address} {' '.join(known)}" for address, known in blueprint.hosts_file]
    return "\n".join(lines) + "\n"


def remove_cgroups_of(start: str) -> None:
    """Remove the cgroups of all hosts whose namespace begins with `start`."""
    for hierarchy in hierarchies():
        for folder in hierarchy.glob(f"{start}*"):
            remove_cgroups(folder.name)
