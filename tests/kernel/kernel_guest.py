"""One QEMU guest with Debian's own kernel, systemd and sshd, reached by SSH on a loopback port.

KVM is not needed: QEMU translates (TCG), which is slow but the same everywhere. The disk is a throw-away snapshot that
lives as long as the QEMU process, so what a test writes survives a reboot of the guest and nothing else.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import paramiko
from kernel_image import ensure_guest_image, pack

# A boot takes 25 s on two idle cores; at a load of 12 it took 180 s.
BOOT_TIMEOUT_S = 400.0
COMMAND_TIMEOUT_S = 300.0
# Rarely a guest's kernel is caught in an endless loop under QEMU 7.2 (seen: in netif_receive_skb_list_internal), and
# says so itself. An emulated core that is slow, since others use this machine, may be "stuck" too, but not for so long.
STUCK_S = 60
_STUCK = re.compile(rb"soft lockup - CPU#\d+ stuck for (\d+)s")
HUNG = Path(__file__).parents[2] / ".pytest_cache" / "v" / "cache" / "guesthung"
# Not `max`: more CPU seconds a boot (53 against 45), and one of seven boots hung under QEMU 7.2 on a busy machine.
CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,-svm"
KERNEL_ARGUMENTS = (
    "console=ttyS0 net.ifnames=0 mitigations=off panic=-1 systemd.show_status=no"
    " module_blacklist=ata_piix,ata_generic,psmouse,button,serio_raw,evdev"  # drivers that udev would find work for
)


class GuestError(AssertionError):
    """The guest did not boot, or a command in it failed; carries what it printed."""


@dataclass(frozen=True)
class Identity:
    """The files of one guest that the controller needs: its own key, and the guest's host key in known_hosts form."""

    key: Path
    known_hosts: Path


class Guest:
    """A running guest. Use as a context manager; `console` keeps all that its kernel and systemd printed."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.console = folder / "console.log"
        self.identity, seed = _seed(folder, self.port)
        self._ssh: paramiko.SSHClient | None = None
        self._said = b""
        self._qemu = self._start(folder, seed)
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="guest's console", daemon=True).start()

    def _start(self, folder: Path, seed: Path) -> subprocess.Popen[bytes]:
        image = ensure_guest_image()
        initrd = folder / "initrd.cpio"
        pack(seed, initrd)
        # The kernel unpacks concatenated archives one after the other (its Documentation/driver-api/early-userspace).
        initrd.write_bytes(image.initrd.read_bytes() + initrd.read_bytes())
        words = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", "1024",
            "-nodefaults", "-display", "none", "-monitor", "none",
            "-serial", f"file:{self.console}", "-serial", "stdio",
            "-kernel", str(image.kernel), "-initrd", str(initrd), "-append", KERNEL_ARGUMENTS,
            "-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on",
            "-netdev", f"user,id=uplink,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device", "virtio-net-pci,netdev=uplink,romfile=", "-device", "virtio-rng-pci",
        ]  # fmt: skip
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __enter__(self) -> Guest:
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Switch the guest off, as by its power plug."""
        self._stopped.set()
        self._disconnect()
        self._qemu.kill()
        self._qemu.communicate()

    def wait_ready(self) -> None:
        """Return when the guest says on its second serial port that this boot is done. Raises GuestError."""
        assert self._qemu.stdout is not None
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while b"ready\r\n" not in self._said:
            readable, _, _ = select.select([self._qemu.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._qemu.stdout.fileno(), 4096) if readable else b""
            if not piece:
                why = "QEMU ended" if readable else f"no sign of life after {BOOT_TIMEOUT_S:.0f} s"
                raise GuestError(f"{why}: {self._said.decode(errors='replace')}\n{self._console_tail()}")
            self._said += piece
        self._said = b""

    def reboot(self) -> None:
        """Reboot in an orderly way and wait until the guest is up again."""
        self.sh("systemctl --no-block reboot")
        self._disconnect()
        self.wait_ready()

    def sh(self, script: str, *, check: bool = True, stdin: str = "") -> str:
        """Standard output of a shell script run as root in the guest. Raises GuestError unless it ends with 0."""
        channel = self._connection().open_session()
        channel.settimeout(COMMAND_TIMEOUT_S)
        with channel:
            channel.exec_command(script)
            channel.sendall(stdin.encode())
            channel.shutdown_write()
            out = channel.makefile("rb").read().decode(errors="replace")
            err = channel.makefile_stderr("rb").read().decode(errors="replace")
            code = channel.recv_exit_status()
        if check and code:
            raise GuestError(f"{script!r} ended with {code}: {out}{err}")
        return out

    def _watch(self) -> None:
        """Switch a guest off that hangs, so that who waits for it ends; and leave word of it for tests/run.py."""
        while not self._stopped.wait(5.0):
            if self.console.exists() and hangs(self.console.read_bytes()):
                HUNG.parent.mkdir(parents=True, exist_ok=True)
                HUNG.touch()
                self._qemu.kill()
                return

    def _connection(self) -> paramiko.Transport:
        if self._ssh is None:
            self._ssh = paramiko.SSHClient()
            self._ssh.load_host_keys(str(self.identity.known_hosts))
            self._ssh.connect(
                "127.0.0.1", self.port, "root",
                key_filename=str(self.identity.key), look_for_keys=False, allow_agent=False,
                timeout=COMMAND_TIMEOUT_S, banner_timeout=COMMAND_TIMEOUT_S, auth_timeout=COMMAND_TIMEOUT_S,
            )  # fmt: skip
        transport = self._ssh.get_transport()
        assert transport is not None
        return transport

    def _disconnect(self) -> None:
        if self._ssh is not None:
            self._ssh.close()
            self._ssh = None

    def _console_tail(self) -> str:
        if not self.console.exists():
            return ""
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-20:])


def hangs(console: bytes) -> bool:
    """Whether the kernel says there that one of its cores is caught."""
    return any(int(seconds) >= STUCK_S for seconds in _STUCK.findall(console))


def _free_port() -> int:
    """A loopback port that nobody listens on. QEMU says so if somebody else was quicker."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _seed(folder: Path, port: int) -> tuple[Identity, Path]:
    """Keys of both sides, and the files that the initrd copies into the guest's root before systemd starts."""
    seed = folder / "seed"
    ssh, root = seed / "seed/etc/ssh", seed / "seed/root/.ssh"
    ssh.mkdir(parents=True)
    root.mkdir(parents=True)
    root.parent.chmod(0o700)
    root.chmod(0o700)
    key, host_key = folder / "id_ed25519", ssh / "ssh_host_ed25519_key"
    for path in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    shutil.copy(key.with_suffix(".pub"), root / "authorized_keys")
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {host_key.with_suffix('.pub').read_text()}")
    return Identity(key, known_hosts), seed
