"""What tables log: the kernel's own log, which by default has nothing from network namespaces but the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ALL_NAMESPACES = Path("/proc/sys/net/netfilter/nf_log_all_netns")


class KernelLog:
    """The lines that the kernel logs from now on, about all namespaces while the block lasts."""

    def __init__(self, device: int) -> None:
        self._device = device

    def lines(self) -> Iterator[str]:
        """The text of each line that has not been read yet; the kernel writes one before it judges the next packet."""
        while True:
            try:
                record = os.read(self._device, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            yield record.partition(";")[2].partition("\n")[0]  # Documentation/ABI/testing/dev-kmsg


@contextmanager
def kernel_log() -> Iterator[KernelLog]:
    """A KernelLog; afterwards the kernel logs as it did before."""
    before = _ALL_NAMESPACES.read_text()
    device = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.lseek(device, 0, os.SEEK_END)
        _ALL_NAMESPACES.write_text("1")
        yield KernelLog(device)
    finally:
        _ALL_NAMESPACES.write_text(before)
        os.close(device)
