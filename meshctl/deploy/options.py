"""What the command line decides about a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshctl.deploy.waves import Share

if TYPE_CHECKING:  # so that `--help` can name the default without importing what a run needs
    from meshctl.deploy.planfile import StoredPlan
    from meshctl.model.keys import Secret

# As many workers as hosts is fastest (one exec each, mostly waiting); this bounds threads and sockets.
DEFAULT_FORKS = 64
AUTO, MANUAL, OFF = "auto", "manual", "off"
# So long a node waits to be told that all is well; at least, for the checks take some of it; and at most: who has not
# said so in a day has forgotten it.
CONFIRM_TIMEOUT_S, CONFIRM_TIMEOUT_MIN_S, CONFIRM_TIMEOUT_MAX_S = 60.0, 30.0, 86400.0


@dataclass(frozen=True)
class RunOptions:
    """Options of plan and apply. `plan` is a stored plan that must still hold. `confirm` is who says that an apply may
    stay: AUTO, the run itself; MANUAL, an operator; OFF, nobody, and nothing is undone. `who` runs it, and `revision`
    is the inventory's in Git: the hosts' history has both.

    `serial` are the sizes of the waves, () for as many as `forks`; no wave begins once more than `max_fail` of the
    hosts that change have failed. `canary` are patterns as `limit`'s, of those that go first. With `pause` the operator
    is asked before each other wave. `resume` takes up what a killed run of the same `who` has left. With `switch`,
    these nodes take their next keys, and the others of the run are asked whether they hear them, and left as they are.
    """

    limit: tuple[str, ...] = ()
    forks: int = DEFAULT_FORKS
    local: bool = False
    locked: bool = False
    allow_destructive: bool = False
    accept_new_host_keys: bool = False
    sudo_password: Secret | None = None
    diff: bool = False
    plan: StoredPlan | None = None
    confirm: str = AUTO
    confirm_timeout_s: float = CONFIRM_TIMEOUT_S
    who: str = ""
    revision: str = ""
    serial: tuple[Share, ...] = ()
    max_fail: Share = Share(0)
    canary: tuple[str, ...] = ()
    pause: bool = False
    resume: bool = False
    switch: frozenset[str] = frozenset()
