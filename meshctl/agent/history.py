"""This host's own history, and what is kept of it: journals as evidence, snapshots as ways back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from meshctl.agent import deadman, files
from meshctl.agent.journal import JOURNAL_DIR, read_events
from meshctl.agent.saved import MANIFEST
from meshctl.agent.snapshot import SNAPSHOT_DIR
from meshctl.core.history import Entry, entries, parts_of, standing, states

# So many applies can be taken back; each needs its snapshot.
SNAPSHOTS_KEPT = 5
# With those that have failed or were undone, which nobody goes back to and somebody may ask about.
JOURNALS_KEPT = 20
_SUFFIX = ".jsonl"


def read() -> tuple[Entry, ...]:
    """The newest first. Raises OSError."""
    pending = deadman.read()
    journals = (read_events(path) for path in sorted(JOURNAL_DIR.glob(f"*{_SUFFIX}")))
    kept = {path.parent.name for path in SNAPSHOT_DIR.glob(f"*/{MANIFEST}")}
    return entries(journals, kept, pending.id if pending else None)


def forget_old() -> None:
    """Remove what nobody can go back by or will ask for: snapshots of what was undone or has changed nothing, and those
    that are older than SNAPSHOTS_KEPT others. Call it with the host's lock held. A leftover does no harm: whatever is
    wrong with the disk, or a journal, ends it quietly."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        pending = deadman.read()
        history = read()
        ways_back = {*parts_of(standing(history)[:SNAPSHOTS_KEPT]), *((pending.id,) if pending else ())}
        for folder in SNAPSHOT_DIR.glob("*"):
            if folder.name not in ways_back:
                _remove(folder)
        shown = {*parts_of(states(read())), *ways_back}
        names = sorted((path.name for path in JOURNAL_DIR.glob(f"*{_SUFFIX}")), reverse=True)
        for name in names[JOURNALS_KEPT:]:
            if name[: -len(_SUFFIX)] not in shown:
                files.remove_quietly(JOURNAL_DIR / name)


def _remove(folder: Path) -> None:
    """Its manifest first: without one it is no snapshot."""
    for path in (folder / MANIFEST, *folder.iterdir()):
        files.remove_quietly(path)
    folder.rmdir()
