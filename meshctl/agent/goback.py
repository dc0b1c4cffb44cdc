"""Going back to a state that was applied before: what is to be put in its place, found and checked before anything is
touched."""

from __future__ import annotations

from pathlib import Path

from meshctl.agent import history
from meshctl.agent.failure import ApplyError
from meshctl.agent.journal import JOURNAL_DIR
from meshctl.agent.saved import SNAPSHOT_DIR, Saved, ledger_at, ledger_of, of_several
from meshctl.core.history import DAMAGED, parts_of, standing
from meshctl.model.ledger import LEDGER_PATH
from meshctl.model.steps import Step


def stage(step: Step) -> Saved:
    """What the step puts back. Raises ApplyError of kind no-state when what it takes back is not exactly what was
    applied last here, or a snapshot or its journal is missing or damaged; of kind revoked when the state that it goes
    back to is from before a node was cut off: it would let that one in again."""
    try:
        known = standing(history.read())
    except OSError as error:
        raise ApplyError("no-state", f"this host's history cannot be read: {error}") from error
    damaged = next((entry for entry in known if entry.became == DAMAGED), None)
    if damaged is not None:
        raise ApplyError("no-state", f"{JOURNAL_DIR / damaged.id}.jsonl: {damaged.why}")
    newest = parts_of(known)
    if not step.argv or newest[: len(step.argv)] != step.argv:
        latest = newest[0] if newest else "nothing"
        raise ApplyError("no-state", f"what was applied here is another than was read: the newest is {latest}")
    saved = of_several([SNAPSHOT_DIR / name for name in step.argv])
    since = set(ledger_at(Path(LEDGER_PATH)).revoked) - set(ledger_of(saved).revoked)
    if LEDGER_PATH in saved.files and since:
        keys = ", ".join(sorted(since))
        raise ApplyError("revoked", f"that state is from before keys were revoked, and may let their owner in: {keys}")
    return saved
