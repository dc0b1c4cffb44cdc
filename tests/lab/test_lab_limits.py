"""A machine's low limits are raised, higher ones stay, and what cannot be raised is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshctl.lab.limits import INOTIFY_INSTANCES, raise_limits
from meshctl.lab.names import LabError


@pytest.mark.parametrize(
    ("before", "after"), [(INOTIFY_INSTANCES // 64, INOTIFY_INSTANCES), (INOTIFY_INSTANCES * 2, INOTIFY_INSTANCES * 2)]
)
def test_a_low_limit_is_raised_and_a_higher_one_stays(tmp_path: Path, before: int, after: int) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text(f"{before}\n")
    raise_limits(limit)
    assert int(limit.read_text()) == after


def test_a_limit_that_cannot_be_raised_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="sysctl -w"):
        raise_limits(tmp_path / "absent")
