"""This host's own history, and what is kept of it: journals as evidence, snapshots as ways back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from meshctl.agent import deadman, files
from meshctl.agent.journal import JOURNAL_DIR, read_all, read_events
from meshctl.agent.saved import MANIFEST, SNAPSHOT_DIR, kept
from meshctl.core.history import DAMAGED, Entry, entries, number, parts_of, standing, states

# So many applies can be taken back; each needs its snapshot.
SNAPSHOTS_KEPT = 5
# With those that have failed or were undone, which nobody goes back to and somebody may ask about.
JOURNALS_KEPT = 20


def read() -> tuple[Entry, ...]:
    """The newest first. Raises OSError."""
    pending = deadman.read()
    return entries(read_all().values(), kept(), pending.id if pending else None)


def next_number() -> int:
    """That of the journal which begins now. Call it with the host's lock held. Raises OSError."""
    return 1 + max(map(number, read_all().values()), default=0)


def was_confirmed(transaction_id: str) -> bool:
    """Whether an apply that does not wait any more stays because it was confirmed."""
    try:
        events = [event.get("event") for event in read_events(JOURNAL_DIR / f"{transaction_id}.jsonl")]
    except OSError:
        return False
    return "confirmed" in events and "reverted" not in events


def forget_old() -> None:
    """Remove what nobody can go back by or will ask for: snapshots of what was undone or has changed nothing, and those
    that are older than SNAPSHOTS_KEPT others. One whose journal is damaged goes once it is older, by the host's clock,
    than all states that can be gone back to. Call it with the host's lock held. A leftover does no harm: whatever is
    wrong with the disk, or a journal, ends it quietly."""
    with suppress(Exception):
        pending = deadman.read()
        history = read()
        whole = [entry for entry in standing(history) if entry.became != DAMAGED]
        ways_back = {*parts_of(whole[:SNAPSHOTS_KEPT]), *((pending.id,) if pending else ())}
        oldest = whole[SNAPSHOTS_KEPT].time if len(whole) > SNAPSHOTS_KEPT else 0.0
        damaged = (SNAPSHOT_DIR / entry.id for entry in history if entry.became == DAMAGED)
        ways_back |= {folder.name for folder in damaged if (folder / MANIFEST).stat().st_mtime >= oldest}
        for folder in SNAPSHOT_DIR.glob("*"):
            if folder.name not in ways_back:
                _remove(folder)
        shown = {*parts_of(states(read())), *ways_back}
        numbers = {path: number(events) for path, events in read_all().items()}
        for path in sorted(numbers, key=lambda path: (numbers[path], path.name), reverse=True)[JOURNALS_KEPT:]:
            if path.stem not in shown:
                files.remove_quietly(path)


def _remove(folder: Path) -> None:
    """Its manifest first: without one it is no snapshot."""
    for path in (folder / MANIFEST, *folder.iterdir()):
        files.remove_quietly(path)
    folder.rmdir()
