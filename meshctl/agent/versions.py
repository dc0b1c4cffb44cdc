"""Zipapps of earlier versions: the one that runs and the one before it stay, for two controllers of two versions, and
the one that the agent runs from, which reads its modules when it needs them, and those that it ran from in a state that
can be gone back to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from meshctl.agent import compiled
from meshctl.agent.saved import MANIFEST, SNAPSHOT_DIR
from meshctl.model.places import AGENT_LINK, AGENT_PREFIX, AGENT_SUFFIX

PATTERN = f"{AGENT_PREFIX}*{AGENT_SUFFIX}"
KEPT_BESIDE = 1


def forget_old(running: Path) -> None:
    """Remove older zipapps beside `running`, but for the newest KEPT_BESIDE and the agent's, and what was compiled of
    them, or by another Python. Call it with the host's lock held."""
    if not running.match(PATTERN):
        return
    used = {running.name, (running.parent / Path(AGENT_LINK).name).resolve().name, *_of_snapshots()}
    others = [path for path in running.parent.glob(PATTERN) if path.name not in used]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    old = others[KEPT_BESIDE:]
    kept = {f"{name}{compiled.SUFFIX}" for name in (*used, *(path.name for path in others[:KEPT_BESIDE]))}
    old += [path for path in running.parent.glob(f"{PATTERN}{compiled.ANY_SUFFIX}") if path.name not in kept]
    for path in old:
        with contextlib.suppress(OSError):  # a leftover does no harm
            path.unlink()


def _of_snapshots() -> Iterator[str]:
    """The names of what the agent ran from when they were made."""
    for path in SNAPSHOT_DIR.glob(f"*/{MANIFEST}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a damaged one, or none of the agent's
            yield Path(json.loads(path.read_text(encoding="utf-8"))["files"][AGENT_LINK]["target"]).name
