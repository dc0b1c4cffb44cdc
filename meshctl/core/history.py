"""What was applied to a host and what became of it, from the journals that its applier keeps. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# One line of a journal.
Event = Mapping[str, Any]

# What became of it: `applied` stays; `waiting` is to be confirmed; `undone`: the host was put back; `failed` before it
# was done; `unfinished`: it has no end (it still runs, or its applier was killed); `damaged`: there is a snapshot, and
# its journal is gone or cut short, so that nobody knows what was done, and before and after which others.
APPLIED, WAITING, UNDONE, FAILED, UNFINISHED = "applied", "waiting", "undone", "failed", "unfinished"
DAMAGED = "damaged"
_WHY_DAMAGED = "its journal is lost, and with it its place among the others: no way leads back before six newer applies"
# The events of a journal that say all this.
TELLING = ("begin", "phase", "end", "confirmed", "revert", "reverted")
# Phases in which the host is changed.
_TOUCHING = frozenset({"converge", "verify", "done"})


@dataclass(frozen=True)
class Entry:
    """One transaction, and what is a first part of it: `begun_by` are the ids of those. `time` is when it began, in
    Unix seconds of the host's clock, which may be set; `number` is what tells the order, counted by the host (0 in
    journals of before it did). `to` is the id of the state that a rollback has gone back to, "" for an apply.
    `stands`: what it did, or a part of that, is there and does not wait to be confirmed. `is_state`: the host was whole
    after it, and was to stay so. `kept`: there is a snapshot of what was before it."""

    id: str
    time: float
    who: str
    revision: str
    to: str
    became: str
    why: str
    stands: bool
    is_state: bool
    kept: bool
    changes: tuple[Mapping[str, Any], ...] = ()
    begun_by: tuple[str, ...] = ()
    number: int = 0


def entries(journals: Iterable[Sequence[Event]], kept: Collection[str], pending: str | None) -> tuple[Entry, ...]:
    """All of a host, the newest first: by number, and those without one after them, by the host's clock. `kept` are the
    ids of its snapshots, `pending` that of the apply that waits to be confirmed. Journals without a beginning, of a
    damaged disk, are left out, and so are those that say what no journal says; where there is a snapshot, it may be the
    newest of all that is missing, which no way back may leave out: so it counts as that."""
    found: dict[str, Entry] = {}
    told: set[str] = set()
    prepared: dict[str, Entry] = {}
    begun: dict[str, Entry] = {}
    for events in journals:
        begin = _begin(events)
        entry = _entry(begin, events, kept, pending)
        if entry is None or _is_cut_short(entry, begin, events):
            continue
        told.add(entry.id)
        if begin.get("prepares"):
            prepared[str(begin["prepares"])] = entry
        elif begin.get("part_of"):
            begun[str(begin["part_of"])] = entry
        else:
            found[entry.id] = entry
    for name, first in begun.items():
        whole = found.get(name)
        if whole is not None and whole.stands and first.stands:
            found[name] = replace(
                whole, changes=(*first.changes, *whole.changes), begun_by=(first.id,),
                kept=whole.kept and first.kept,
            )  # fmt: skip
        else:  # the rest has not come, or was undone: half of it is no state
            found[first.id] = replace(first, is_state=False)
    for name, first in prepared.items():
        if name in found:
            found[name] = replace(found[name], changes=(*first.changes, *found[name].changes))
        else:  # what it was for has not come
            found[first.id] = replace(first, is_state=False, stands=False)
    newest = 1 + max((entry.number for entry in found.values()), default=0)
    found.update({name: _lost(name, newest, waits=name == pending) for name in kept if name not in told})
    return tuple(sorted(found.values(), key=lambda entry: (entry.number, entry.time, entry.id), reverse=True))


def number(events: Iterable[Event]) -> int:
    """Which one of its host's this journal is; 0 in those of before they were counted."""
    found = _begin(events).get("number")
    return found if isinstance(found, int) else 0


def armed(journals: Iterable[Sequence[Event]], kept: Container[str]) -> str | None:
    """The id of the apply that waits to be confirmed, where nothing but journals can say it: the newest that there is a
    snapshot of, if the dead-man's switch was armed for it and it was neither confirmed nor undone since."""
    newest = max((e for e in journals if _id(e) in kept), key=lambda e: (number(e), _id(e)), default=())
    decided = any(
        event.get("event") in ("confirmed", "reverted") or (event.get("event") == "end" and not event.get("ok"))
        for event in newest
    )
    arms = any(event.get("event") == "phase" and event.get("phase") == "arm" for event in newest)
    return _id(newest) if arms and not decided else None


def standing(history: Iterable[Entry]) -> list[Entry]:
    """Those of which something is there; the first is the newest, which has made the host what it is."""
    return [entry for entry in history if entry.stands]


def states(history: Iterable[Entry]) -> list[Entry]:
    """The states in which the host is or can be again, the newest first: each way back needs all snapshots since."""
    found = []
    for entry in standing(history):
        if entry.is_state:
            found.append(entry)
        if not entry.kept:
            break
    return found


def parts_of(entries: Iterable[Entry]) -> tuple[str, ...]:
    """The ids of all transactions that these are made of, the newest first as they are."""
    return tuple(part for entry in entries for part in (entry.id, *entry.begun_by))


def since(history: Iterable[Entry], state: Entry) -> list[Entry]:
    """What is to be taken back for that state, the newest first."""
    found = standing(history)
    return found[: found.index(state)]


def _begin(events: Iterable[Event]) -> Event:
    """How a journal begins; nothing where that is lost."""
    return next((event for event in events if event.get("event") == "begin"), {})


def _id(events: Iterable[Event]) -> str:
    return str(_begin(events).get("id", ""))


def _entry(begin: Event, events: Sequence[Event], kept: Container[str], pending: str | None) -> Entry | None:
    """None for what says what no journal says."""
    try:
        became, why, stands = _became(events, str(begin["id"]) == pending)
        return Entry(
            str(begin["id"]), float(begin.get("time", 0.0)), str(begin.get("who", "")), str(begin.get("revision", "")),
            str(begin.get("to", "")), became, why, stands, became == APPLIED, str(begin["id"]) in kept,
            tuple(begin.get("changes", ())), number=number(events),
        )  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        return None


def _is_cut_short(entry: Entry, begin: Event, events: Sequence[Event]) -> bool:
    """Whether the snapshot of what is there says that it came further than its journal does: one that was cut short,
    and perhaps begun again by who confirmed it."""
    phases = {str(event.get("phase")) for event in events if event.get("event") == "phase"}
    gone = entry.became == WAITING or (entry.became == UNDONE and not entry.stands)
    return entry.kept and not gone and ("changes" not in begin or phases <= {"stage"})


def _lost(name: str, newest: int, *, waits: bool) -> Entry:
    """That of which there is a snapshot and no journal. It is no way back, and none leads over it."""
    became, why = (WAITING, "") if waits else (DAMAGED, _WHY_DAMAGED)
    return Entry(name, 0.0, "", "", "", became, why, not waits, is_state=False, kept=False, number=newest)


def _became(events: Sequence[Event], waits: bool) -> tuple[str, str, bool]:
    """What became of it, why, and whether something of it is there."""
    last = {str(event.get("event")): event for event in events}
    touched = any(event.get("event") == "phase" and event.get("phase") in _TOUCHING for event in events)
    if "reverted" in last:
        left = [str(what) for what in last["reverted"].get("left", ())]
        why = str(last.get("revert", {}).get("why", ""))
        return UNDONE, why + (f"; not put back: {', '.join(left)}" if left else ""), bool(left)
    if waits:
        return WAITING, "", False
    if "end" not in last:
        return UNFINISHED, "", touched
    if not last["end"].get("ok"):
        failure = last["end"].get("failure")
        return FAILED, str(failure[2]) if failure else "", touched
    return APPLIED, "", True
