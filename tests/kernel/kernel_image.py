"""The guest's kernel, initrd and disk, made from the lab's image and cached beside it.

The cloud flavour of Debian's kernel is 27 MB instead of 70 and has all that is needed: ext4 built in; virtio,
WireGuard, veth and nftables as modules. It has no 9p, and a disk is several times faster than 9p under emulation.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from meshctl.lab.image import ensure_image, locked
from meshctl.lab.shell import run

CACHE_ROOT = Path("/var/cache/meshctl/kernel")
# apt inside the guest's tree: two small packages and a kernel, from a mirror that may be slow.
BUILD_TIMEOUT_S = 900.0
DISK_SIZE = "2G"  # sparse; about 600 MB are used
# In the order in which insmod needs them.
INITRD_MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
# What a test guest has no use for; together they are half of the time to boot.
MASKED_UNITS = (
    "systemd-logind.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "systemd-repart.service",
    "getty.target", "serial-getty@ttyS0.service", "getty-static.service", "remote-fs.target", "modprobe@drm.service",
    "modprobe@fuse.service", "modprobe@efi_pstore.service", "modprobe@dm_mod.service", "modprobe@loop.service",
    "modprobe@configfs.service", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "dev-hugepages.mount", "dev-mqueue.mount", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-journal-flush.service",
    "systemd-firstboot.service", "systemd-sysusers.service", "systemd-network-generator.service",
)  # fmt: skip
# QEMU's user network: the guest is 10.0.2.15 behind 10.0.2.2 (QEMU's manual, "Using the user mode network stack").
UPLINK = """\
[Match]
Name=eth0
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
# Says on the second serial port that this boot is done and sshd can be reached.
READY_UNIT = """\
[Unit]
Description=Tell the test that the guest is up
After=multi-user.target ssh.service systemd-networkd.service
[Service]
Type=oneshot
ExecStart=/lib/systemd/systemd-networkd-wait-online --interface=eth0
ExecStart=/bin/sh -c 'echo ready >/dev/ttyS1'
[Install]
WantedBy=multi-user.target
"""
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module.ko; done
/bin/busybox mount -t ext4 /dev/vda /root || exec /bin/busybox poweroff -f
/bin/busybox cp -a /seed/. /root/
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /sbin/init
"""
BUILD = Path(__file__).with_name("build_image.sh")


@dataclass(frozen=True)
class GuestImage:
    """What QEMU boots: kernel, initrd (a test's own files can be appended as another cpio archive), raw ext4 disk."""

    kernel: Path
    initrd: Path
    disk: Path


def ensure_guest_image() -> GuestImage:
    """The image of today's recipe, built first when it is not in the cache. Needs root. Raises LabError."""
    base = ensure_image()
    texts = (base.name, UPLINK, READY_UNIT, INIT, BUILD.read_text(), DISK_SIZE, *INITRD_MODULES, *MASKED_UNITS)
    path = CACHE_ROOT / hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    CACHE_ROOT.mkdir(parents=True, exist_ok=True)
    with locked(CACHE_ROOT):
        if not path.is_dir():
            _build(base, path)
    return GuestImage(path / "vmlinuz", path / "initrd.cpio", path / "disk.img")


def pack(folder: Path, archive: Path) -> None:
    """Write the folder as a cpio archive that the kernel unpacks into its initial root, owned by root."""
    script = 'cd "$1" && find . -print0 | sort -z | cpio --quiet --null -o -H newc -R 0:0 >"$2"'
    run(["sh", "-c", script, "pack", str(folder), str(archive)], where="guest image")


def _build(base: Path, path: Path) -> None:
    """Build beside `path` and rename, so that a build that was cut off is never mistaken for an image."""
    half = path.with_name(f"{path.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    _write(half / "system/etc/systemd/network/10-uplink.network", UPLINK)
    _write(half / "system/etc/systemd/system/guest-ready.service", READY_UNIT)
    words = [str(base), str(half), " ".join(INITRD_MODULES), " ".join(MASKED_UNITS), DISK_SIZE]
    run(["unshare", "--mount", str(BUILD), *words], timeout_s=BUILD_TIMEOUT_S, where="guest image")
    init = half / "initrd/init"
    _write(init, INIT.format(modules=" ".join(INITRD_MODULES)))
    init.chmod(0o755)
    pack(half / "initrd", half / "initrd.cpio")
    for scratch in ("upper", "work", "tree", "kernel", "system", "initrd"):
        shutil.rmtree(half / scratch)
    half.rename(path)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
