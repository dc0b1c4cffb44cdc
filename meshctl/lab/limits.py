"""Limits of the machine that a lab outgrows."""

from __future__ import annotations

from pathlib import Path

from meshctl.lab.names import LabError

# All hosts' root users are this machine's, so they share one allowance. Debian's 128 is used up by about nine hosts,
# and then systemd ("Failed to allocate manager object") or wireguard-go dies in the next. An instance costs nothing
# until it is opened; this is enough for several hundred hosts.
INOTIFY_INSTANCES = 8192
INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")


def raise_limits(path: Path = INOTIFY_LIMIT) -> None:
    """Raise what is too low, until the next boot; a higher setting stays. Raises LabError when it cannot be raised."""
    try:
        if int(path.read_text()) < INOTIFY_INSTANCES:
            path.write_text(f"{INOTIFY_INSTANCES}\n")
    except (OSError, ValueError) as error:
        hint = f"sysctl -w fs.inotify.max_user_instances={INOTIFY_INSTANCES}"
        raise LabError(f"cannot raise {path}: {error}", hint=hint) from error
