"""What a process that runs uses: resident memory, and CPU over a minute."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What an agent of so many peers is to use at most: resident MB, and percent of a core.
AIMS = {100: (40.0, 0.5), 500: (70.0, 2.0)}
WATCH_S = 60.0
# After the agent's start, and after the last path was found: what is done once is not to count. An agent tries all of
# 500 peers for a minute and a half.
SETTLE_S = 110.0
Row = dict[str, Any]
_MB = 1e6


def watched(peers: int, pids: Mapping[str, int]) -> list[Row]:
    """A row for each of these agents: what it uses while nothing is done to it. They have so many peers."""
    before, began = {what: cpu_s(pid) for what, pid in pids.items()}, time.monotonic()
    time.sleep(WATCH_S)
    seconds = time.monotonic() - began
    mb_aim, cpu_aim = AIMS[peers]
    rows = [
        {"peers": peers, "what": what, "mb": resident_mb(pid), "mb_aim": mb_aim,
         "cpu_percent": (cpu_s(pid) - before[what]) / seconds * 100, "cpu_aim": cpu_aim}
        for what, pid in pids.items()
    ]  # fmt: skip
    for row in rows:
        print(f"    {row}", file=sys.stderr)
    return rows


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the process has used, and the children that it has waited for (`nft`, on anchors)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")  # utime, stime, cutime, cstime


def resident_mb(pid: int) -> float:
    """Resident memory now, shared pages included."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB
