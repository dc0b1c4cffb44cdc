"""Zipapps of earlier versions: the one that runs and the one before it stay, for two controllers of two versions."""

from __future__ import annotations

import contextlib
from pathlib import Path

from meshctl.model.places import AGENT_PREFIX, AGENT_SUFFIX

PATTERN = f"{AGENT_PREFIX}*{AGENT_SUFFIX}"
KEPT_BESIDE = 1


def forget_old(running: Path) -> None:
    """Remove older zipapps beside `running`, the newest KEPT_BESIDE excepted. Call it with the host's lock held."""
    if not running.match(PATTERN):
        return
    others = [path for path in running.parent.glob(PATTERN) if path.name != running.name]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT_BESIDE:]:
        with contextlib.suppress(OSError):  # a leftover does no harm
            path.unlink()
