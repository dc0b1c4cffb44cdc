"""Scenarios on the kernel's own WireGuard, in the virtual machine of tests/kernel."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from kernel_guest import Guest
from wgreal import KERNEL
from wgscenarios import Scenario
from wgstage import Record

# Without `__init__.py`: a namespace package, so that what else there is in `meshctl` is not wanted.
_MODULES = ("wgstage", "wghandshakes", "wgplaces", "wgsessions", "wgscenarios", "wgwire", "wgreal", "wgplay")
_NETNS = "meshctl/lab/netns.py"


def play_in_guest(guest: Guest, scenarios: Iterable[Scenario]) -> dict[str, Record]:
    """The record of each, by name."""
    names = [scenario.name for scenario in scenarios]
    guest.sh("mkdir -p /root/wgmodel && base64 -d | tar -x -C /root/wgmodel", stdin=_archive())
    said = guest.sh(f"modprobe -a wireguard tun; cd /root/wgmodel && python3 wgplay.py {KERNEL} {' '.join(names)}")
    records = (line.split(" ", 1) for line in said.splitlines())
    return {name: Record.from_json(json.loads(text)) for name, text in records}


def _archive() -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in _MODULES:
            archive.add(Path(__file__).with_name(f"{name}.py"), f"{name}.py")
        archive.add(Path(__file__).parents[2] / _NETNS, _NETNS)
    return base64.b64encode(packed.getvalue()).decode()
