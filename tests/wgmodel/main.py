"""`make wg-model`: the simulator's WireGuard beside the kernel's own, in a virtual machine, and beside wireguard-go."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))
sys.path.insert(0, str(Path(__file__).parents[1] / "kernel"))
from kernel_guest import Guest
from wgcompare import ALLOWED, IN_GUEST, Allowed, differences, furthest
from wgguest import play_in_guest
from wgplay import play_all
from wgreal import GO, KERNEL
from wgscenarios import SCENARIOS, Scenario
from wgstage import Record


def with_kernel() -> dict[str, Record]:
    """What wireguard.ko did."""
    with tempfile.TemporaryDirectory() as folder, Guest(Path(folder)) as guest:
        return play_in_guest(guest, SCENARIOS)


def with_go() -> dict[str, Record]:
    """What wireguard-go did."""
    records: dict[str, Record] = {}
    play_all(SCENARIOS, GO, records.__setitem__)
    return records


def judge(implementation: str, scenario: Scenario, record: Record, allowed: Allowed) -> bool:
    """Print one line, and what differs; False when something does that should not."""
    found = differences(scenario, record, allowed)
    excused = implementation == GO and bool(scenario.go_differs)
    if found:
        said = f"differs: {scenario.go_differs}" if excused else "DIFFERS"
    else:
        said = f"the same, within {furthest(scenario, record):.3f} s"
    print(f"{implementation:13s} {scenario.name:16s} {said}", *([] if excused else found), sep="\n    ".rstrip(" "))
    return excused or not found


def main() -> int:
    """Play all; 1 when the model is not what it stands for."""
    started = time.monotonic()
    print(f"==> {len(SCENARIOS)} scenarios in real time, the longest takes 185 s", flush=True)
    with ThreadPoolExecutor(2) as pool:
        played = {KERNEL: pool.submit(with_kernel), GO: pool.submit(with_go)}
        records = {implementation: future.result() for implementation, future in played.items()}
    good = [
        judge(implementation, scenario, records[implementation][scenario.name], allowed)
        for implementation, allowed in ((KERNEL, IN_GUEST), (GO, ALLOWED))
        for scenario in SCENARIOS
    ]
    print(f"{good.count(True)} of {len(good)} as they should be; {time.monotonic() - started:.0f} s")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
