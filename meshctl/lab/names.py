"""What the lab calls things. All that it makes on the machine carries one prefix, so that it can be found again.

A lab's name has no dot, so the prefix of one lab (`mlab-demo.`) is never the prefix of another.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from meshctl.errors import MeshctlError

PREFIX = "mlab-"
STATE_ROOT = Path("/var/lib/meshctl-lab")
CACHE_ROOT = Path("/var/cache/meshctl/lab")
NETNS_ROOT = Path("/run/netns")
# Set in the environment of every process that the lab starts outside its namespaces; `down` finds them by it.
ENVIRONMENT_MARK = "MESHCTL_LAB"
INTERNET = "internet"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class LabError(MeshctlError):
    """The lab cannot be built, found or used. Says what is missing and what to do."""


def check_name(name: str) -> str:
    """`name` if it can name a lab, else LabError."""
    if not _NAME.fullmatch(name):
        hint = "use up to 32 of a-z, 0-9 and -, such as demo"
        raise LabError(f"{name!r} cannot name a lab", hint=hint)
    return name


def prefix(lab: str) -> str:
    """What all namespaces of the lab begin with."""
    return f"{PREFIX}{check_name(lab)}."


def netns(lab: str, element: str) -> str:
    """The network namespace of a host, router or LAN device."""
    return prefix(lab) + element


def netns_path(lab: str, element: str) -> Path:
    """The file that holds the namespace open (iproute2's convention)."""
    return NETNS_ROOT / netns(lab, element)


def state_dir(lab: str) -> Path:
    """Where the lab keeps its state; exists only while the lab does."""
    return STATE_ROOT / check_name(lab)


def device(*parts: str) -> str:
    """A short, stable interface name for the far end of a link (IFNAMSIZ is 16 with the final zero)."""
    return "v" + hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]
