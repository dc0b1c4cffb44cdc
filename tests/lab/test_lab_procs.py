"""What a process of a lab has of the one that started it."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from meshctl.lab import procs

GONE_S = 5.0


def descriptors(pid: int) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_process_that_lives_on_holds_no_descriptor_of_its_caller_but_those_that_it_is_given(tmp_path: Path) -> None:
    """`flock FILE meshctl lab up` would hold the lock until `lab down`."""
    gone, held = os.pipe()
    given, other = os.pipe()
    os.set_inheritable(held, True)
    os.set_inheritable(given, True)
    pid = procs.spawn(f"pytest{os.getpid()}", "host", ["sleep", "60"], tmp_path / "log", kept=(given,))
    try:
        os.close(held)
        assert select.select([gone], [], [], GONE_S)[0], "nobody has the other end any more"
        assert os.read(gone, 1) == b""
        ends_at = time.monotonic() + GONE_S  # posix_spawn returns a moment before the last ones are closed
        while descriptors(pid) != {0, 1, 2, given} and time.monotonic() < ends_at:
            time.sleep(0.01)
        assert descriptors(pid) == {0, 1, 2, given}
    finally:
        procs.kill([pid])
        os.waitpid(pid, 0)
        for number in (gone, given, other):
            os.close(number)
