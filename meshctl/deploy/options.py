"""What the command line decides about a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that `--help` can name the default without importing what a run needs
    from meshctl.deploy.planfile import StoredPlan
    from meshctl.model.keys import Secret

# As many workers as hosts is fastest (one exec each, mostly waiting); this bounds threads and sockets.
DEFAULT_FORKS = 64


@dataclass(frozen=True)
class RunOptions:
    """Options of plan and apply. `plan` is a stored plan that must still hold."""

    limit: tuple[str, ...] = ()
    forks: int = DEFAULT_FORKS
    local: bool = False
    locked: bool = False
    allow_destructive: bool = False
    accept_new_host_keys: bool = False
    sudo_password: Secret | None = None
    diff: bool = False
    plan: StoredPlan | None = None
