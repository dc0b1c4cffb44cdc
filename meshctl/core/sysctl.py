"""Kernel parameters: names as sysctl(8) spells them, and values in comparable form."""

from __future__ import annotations


def proc_path(name: str) -> str:
    """The file below /proc/sys. Either separator may be used; the first one decides, and the other one stands for
    itself (`net.ipv4.conf.eth0/100.rp_filter` is the VLAN interface eth0.100), as sysctl(8) has it."""
    first = next((c for c in name if c in "./"), ".")
    if first == "/":
        return "/proc/sys/" + name
    return "/proc/sys/" + name.translate(str.maketrans("./", "/."))


def normal_value(value: str) -> str:
    """One space between parts: the kernel prints tabs where people write spaces."""
    return " ".join(value.split())
