"""The Debian trees under the hosts, one a release: made by debootstrap, cached, made anew when a recipe changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshctl.lab.blueprint import SUITE
from meshctl.lab.names import CACHE_ROOT, LabError
from meshctl.lab.shell import run

# Debian 11, the oldest that a node may run: Python 3.9, systemd 247, nftables 0.9.8.
OLDEST_SUITE = "bullseye"
# A minimal server as an operator would rent it, with what a node needs, and tools to look at networks with.
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "iproute2", "nftables", "wireguard-tools",
    "wireguard-go", "iputils-ping", "procps", "conntrack", "sudo", "kmod", "miniupnpc", "natpmpc",
)
# What the oldest one has from SUITE: its own kernel has WireGuard, and so it has no wireguard-go, which needs the libc.
BORROWED = ("wireguard-go", "libc6", "libc-bin")
# Timers that would wake fifty hosts at once, and consoles that nobody reads.
MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "console-getty.service", "getty@tty1.service", "systemd-timesyncd.service",
)
SSHD_CONFIG = """\
# A lab host: root comes in with the lab's key, and no name server answers.
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
"""
DEFAULT_MIRROR = "http://deb.debian.org/debian"
# debootstrap takes 90 s here; a slow mirror should not be cut off.
BUILD_TIMEOUT_S = 1800.0


def image_path(suite: str) -> Path:
    """Where the release's image of today's recipe is, or will be."""
    recipe = "\n".join([suite, *PACKAGES, *_borrowed(suite), *MASKED_UNITS, SSHD_CONFIG])
    return CACHE_ROOT / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def ensure_image(suite: str = SUITE) -> Path:
    """The image's root, built first when it is not in the cache. One builder at a time; the others wait for it."""
    path = image_path(suite)
    if path.is_dir():
        return path
    CACHE_ROOT.mkdir(parents=True, exist_ok=True)
    with locked(CACHE_ROOT):
        if not path.is_dir():
            _build(path, suite)
    return path


def mirror(sources: Path = Path("/etc/apt")) -> str:
    """The Debian mirror that this machine itself uses, so that a proxy or local mirror serves the lab too."""
    files = [sources / "sources.list", *sorted(sources.glob("sources.list.d/*"))]
    text = "\n".join(f.read_text(errors="replace") for f in files if f.is_file())
    found = re.search(r"^(?:URIs:|deb\s+(?:\[[^]]*\]\s+)?)\s*(\S*/debian)/?(?:\s|$)", text, re.MULTILINE)
    return found.group(1) if found else DEFAULT_MIRROR


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder for one process alone; the others wait."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _borrowed(suite: str) -> tuple[str, ...]:
    return BORROWED if suite == OLDEST_SUITE else ()


def _build(path: Path, suite: str) -> None:
    """Build beside `path` and rename, so that a build that was cut off is never mistaken for an image."""
    half = path.with_name(f"{path.name}.part")
    _discard(half)
    borrowed = _borrowed(suite)
    packages = ",".join(p for p in PACKAGES if p not in borrowed)
    words = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(half), mirror()]
    try:
        run(words, timeout_s=BUILD_TIMEOUT_S, where="lab image")
        if borrowed:
            _borrow(half, borrowed)
    except LabError as error:
        log = half / "debootstrap" / "debootstrap.log"
        tail = log.read_text(errors="replace").splitlines()[-3:] if log.is_file() else []
        _discard(half)
        hint = "look at the mirror in /etc/apt/sources.list and at the network"
        raise LabError("\n".join([error.message, *tail]), where="lab image", hint=hint) from error
    customise(half)
    half.rename(path)


def _borrow(root: Path, packages: tuple[str, ...]) -> None:
    """Install packages of SUITE in an older release's tree, and nothing else of it."""
    newer = root / "etc/apt/sources.list.d/newer.list"
    newer.write_text(f"deb {mirror()} {SUITE} main\n")
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "chroot", str(root), "apt-get", "-q"]
    exact = [f"{package}/{SUITE}" for package in packages]
    run([*apt, "update"], timeout_s=BUILD_TIMEOUT_S, where="lab image")
    run([*apt, "install", "-y", "--no-install-recommends", *exact], timeout_s=BUILD_TIMEOUT_S, where="lab image")
    newer.unlink()


def customise(root: Path) -> None:
    """Turn a fresh debootstrap tree into the image: no host keys, no name server, quiet units, sshd for the lab."""
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/ssh/sshd_config.d/lab.conf").write_text(SSHD_CONFIG)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("# Names are in /etc/hosts; the lab has no name server.\n")
    (root / "etc/machine-id").unlink(missing_ok=True)
    for unit in MASKED_UNITS:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)


def _discard(tree: Path) -> None:
    """Remove a half-built tree; debootstrap may have left its own /proc and /sys mounted there."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{tree}/")), reverse=True):
        run(["umount", mount], where="lab image")
    shutil.rmtree(tree, ignore_errors=True)
