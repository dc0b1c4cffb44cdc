"""`run.py WORDS`: pytest with these words; and files with failures again, where this machine's time was not its own.

Labs are real hosts, and what they are held to is in seconds. On a virtual machine whose host gives its time to others
meanwhile, a failure may be that machine's. So what failed there is run once more, and nothing beside it; and so is what
failed since the emulator's guest had hung, as its kernel says (tests/kernel/kernel_guest.py). Else nothing is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From so much on of what there was of a machine's time.
STOLEN = 0.01
_TESTS_FAILED = 1
# With more, it is not the machine.
_MOST_FILES = 8
# Beside pytest's cache of failures; tests/kernel makes it.
GUEST_HUNG = "guesthung"
Times = tuple[int, int]


def times() -> Times:
    """Of all cores since the start, in ticks: in all, and what the host has taken (proc(5): `steal` is the eighth)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return sum(ticks), ticks[7]


def files_with_failures(last_failed: Path) -> list[str]:
    """As pytest has them in its cache."""
    failed = json.loads(last_failed.read_text(encoding="utf-8")) if last_failed.exists() else {}
    return sorted({name.partition("::")[0] for name in failed})


def main(words: Sequence[str], pytest: Callable[..., int], clock: Callable[[], Times], last_failed: Path) -> int:
    """pytest's exit status."""
    hung = last_failed.with_name(GUEST_HUNG)
    for path in (last_failed, hung):
        path.unlink(missing_ok=True)  # of another run
    all_before, taken_before = clock()
    status = pytest(*words)
    all_after, taken_after = clock()
    stolen = (taken_after - taken_before) / max(all_after - all_before, 1)
    files = files_with_failures(last_failed)
    if stolen < STOLEN and not hung.exists():
        return status
    if status != _TESTS_FAILED or not 0 < len(files) <= _MOST_FILES:
        return status
    why = "the emulator's guest hung" if hung.exists() else f"others had {stolen:.0%} of this machine's time"
    print(f"==> {why}. Once more: {' '.join(files)}", flush=True)
    return pytest(*files)


def _pytest(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", "-p", "no_skips", *words], check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _pytest, times, ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"))
