"""How hard the random tests try: `make fuzz` sets MESHCTL_FUZZ to try that many times as hard as `make test` does."""

from __future__ import annotations

import os


def examples(ordinary: int) -> int:
    """The number of examples of a random test, `ordinary` in `make test`."""
    return ordinary * int(os.environ.get("MESHCTL_FUZZ", "1"))
