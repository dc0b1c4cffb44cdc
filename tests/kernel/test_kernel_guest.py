"""The guest itself. Hunted: a test that waits for ever for a guest whose kernel hangs."""

from __future__ import annotations

import pytest
from kernel_guest import HUNG, hangs

SAID = b"[  %d.444327] watchdog: BUG: soft lockup - CPU#0 stuck for %ds! [python3:302]\r\n"


@pytest.mark.parametrize(
    ("console", "hung"),
    [
        (b"", False),
        (b"[   61.0] systemd[1]: Reached target multi-user.target\r\n", False),
        (SAID % (88, 45), False),
        (SAID % (88, 45) + SAID % (116, 71), True),
    ],
)
def test_a_kernel_says_itself_that_it_hangs(console: bytes, hung: bool) -> None:
    assert hangs(console) is hung


def test_a_guest_that_hangs_is_told_of_where_failures_are() -> None:
    assert HUNG.parts[-4:] == (".pytest_cache", "v", "cache", "guesthung")
