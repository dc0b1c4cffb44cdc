"""`make demo`: the example mesh on real Debian hosts behind real NATs, on this machine.

Builds the lab of inventory/demo, shows the plan, applies it, hands the stock client its config, pings every pair and
compares with what the policies permit, applies once more to show that nothing changes, and shows who reaches whom,
directly or by which anchor. Then it unplugs an anchor and shows that the pairs that it relayed go on by the other one.
Exits 1 if any of it fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from meshctl import inventory, lab
from meshctl.core.reachability import DIRECT, SPLICED
from meshctl.core.traffic import WORDS, subtract
from meshctl.model.mesh import Mesh
from meshctl.policy import compile_mesh, compile_policies
from meshctl.policy.paths import predictions

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventory" / "demo" / "inventory.yml"
NAME = "demo"
# The lab puts one device into each LAN behind a gateway, at this host number of the prefix (docs/lab.md).
LAN = "192.168.10.0/24"
LAN_DEVICE = "192.168.10.10"
# Ends with the first answer, or after so many seconds.
PING = "ping -n -q -c 1 -w {seconds} {address} >/dev/null 2>&1 && echo {name}"
# A path may have to wait for a second try of a handshake on each of its two hops (5 s each, REKEY_TIMEOUT).
PATIENCE_S = 11
# Where nothing should answer, nothing is waited for.
DENIED_S = 2
# A splice that finds nothing is tried again after half a minute.
SETTLED_S = 60
# WireGuard's keepalive to an anchor that is gone, and the handshakes after it, may take that long to be missed.
MOVED_S = 60
RELAYED = ("cafe1", "cafe2")

console = Console()


def meshctl(*words: str, capture: bool = False, may_fail: bool = False) -> str:
    """Run the meshctl that stands beside this interpreter; its output is shown unless captured. What `may_fail` is not
    shown at work."""
    program = shutil.which("meshctl", path=str(Path(sys.executable).parent)) or "meshctl"
    if not capture:
        console.print(f"[bold cyan]$ meshctl {' '.join(words)}")
    done = subprocess.run(
        [program, *words], check=False, text=True, stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.DEVNULL if may_fail else None,
    )  # fmt: skip
    if done.returncode and not may_fail:
        raise SystemExit(f"demo: meshctl {' '.join(words)} ended with {done.returncode}")
    return done.stdout or ""


def start_client(client: str) -> None:
    """Show the client's config once, and bring it up with plain wg-quick on its own host, as a person would."""
    console.print(f"[bold cyan]$ meshctl client show {client} --conf | … wg-quick up   [dim](on {client} itself)")
    config = meshctl("client", "show", client, "-i", str(INVENTORY), "--lab", NAME, "--conf", "--rekey", capture=True)
    script = (
        "umask 077; if [ -e /etc/wireguard/wg0.conf ]; then wg-quick down wg0 2>/dev/null; fi;"
        " cat > /etc/wireguard/wg0.conf && wg-quick up wg0 2>&1"
    )
    lab.exec_(NAME, client, ["sh", "-c", script], input=config.encode()).check_returncode()


def reached(mesh: Mesh, node: str, targets: dict[str, str]) -> set[str]:
    """The names of `targets` (name -> address) that answer a ping from `node`; all are tried at once."""
    lines = []
    for name, address in targets.items():
        seconds = PATIENCE_S if permitted(mesh, node, name) else DENIED_S
        lines.append(f"({PING.format(address=address, name=name, seconds=seconds)}) &")
    script = "\n".join([*lines, "wait"])
    return set(lab.exec_(NAME, node, ["sh"], input=script.encode()).stdout.decode().split())


def permitted(mesh: Mesh, source: str, target: str) -> bool:
    """Whether a policy lets `source` open connections to `target` (a node, or the device on the office's LAN)."""
    subject = LAN if target == "lan" else target
    return subtract(WORDS["icmp"], compile_policies(mesh).network("corp").allowed(source, subject)) == ()


def reach_table(mesh: Mesh) -> bool:
    """Ping every pair, print the table, and say whether it is what the policies permit."""
    addresses = {n.name: n.attachments[0].addresses[0] for n in mesh.nodes.values()} | {"lan": LAN_DEVICE}
    table = Table(title="Who reaches whom (ICMP over the mesh)", caption="✓ reached   · denied by policy   ✗ wrong")
    table.add_column("from \\ to")
    for name in addresses:
        table.add_column(name, justify="center")
    right = True
    for source in mesh.nodes:
        got = reached(mesh, source, {n: a for n, a in addresses.items() if n != source})
        cells = []
        for target in addresses:
            as_it_should = (target in got) == permitted(mesh, source, target)
            # The LAN behind a gateway is its own: it reaches it without the mesh.
            if target == source or (source == "office" and target == "lan"):
                cells.append("")
                continue
            right = right and as_it_should
            cells.append("[bold red]✗" if not as_it_should else "[green]✓" if target in got else "[dim]·")
        table.add_row(source, *cells)
    console.print(table)
    return right


def paths() -> dict[tuple[str, str], dict[str, Any]]:
    """What `meshctl status` says of each direction of each pair."""
    said = meshctl("status", str(INVENTORY), "--lab", NAME, "-o", "json", capture=True, may_fail=True)
    return {(path["from"], path["to"]): path for path in json.loads(said)["paths"]}


def show_status() -> None:
    """The same for people. It fails while a path is down."""
    meshctl("status", str(INVENTORY), "--lab", NAME, may_fail=True)


def wait_until(right: Callable[[dict[tuple[str, str], dict[str, Any]]], bool], seconds: float) -> float | None:
    """Ask the agents until it is as it should be: after so many seconds, None when it is not in time."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if right(paths()):
            return time.monotonic() - started
    return None


def direct_where_foreseen(mesh: Mesh) -> bool:
    """Show who reaches whom, and say whether it is what `meshctl lint` foretells from the NATs alone."""
    foreseen = {(p.one, p.other): p.outcome in (DIRECT, SPLICED) for p in predictions(compile_mesh(mesh))}

    def right(found: dict[tuple[str, str], dict[str, Any]]) -> bool:
        return all(
            found[end]["state"] == "direct" if direct else found[end]["state"] in ("relayed", "routed")
            for pair, direct in foreseen.items()
            for end in (pair, pair[::-1])
            if end in found
        )

    settled = wait_until(right, SETTLED_S)
    show_status()
    if settled is None:
        console.print("[bold red]That is not what the NATs allow (meshctl lint).")
    return settled is not None


def survives_its_anchor() -> bool:
    """Unplug the anchor that relays a pair, and see the pair come back by the other."""
    gone = paths()[RELAYED]["relay"]
    console.print(f"[dim]{gone} relays {' and '.join(RELAYED)}: pull its plug.")
    meshctl("lab", "link", "--name", NAME, str(gone), "down")

    def moved(found: dict[tuple[str, str], dict[str, Any]]) -> bool:
        ends = [found.get(RELAYED, {}), found.get(RELAYED[::-1], {})]
        return all(end.get("state") == "relayed" and end["relay"] != gone for end in ends)

    seconds = wait_until(moved, MOVED_S)
    show_status()
    meshctl("lab", "link", "--name", NAME, str(gone), "up")
    if seconds is None:
        console.print(f"[bold red]{' and '.join(RELAYED)} are not relayed again.")
    else:
        console.print(f"[green]Relayed by the other anchor {seconds:.0f} s later.")
    return seconds is not None


def run() -> int:
    """The whole demo; returns the exit code."""
    started = time.monotonic()
    meshctl("lab", "up", str(INVENTORY), "--name", NAME)
    meshctl("plan", str(INVENTORY), "--lab", NAME)
    meshctl("apply", str(INVENTORY), "--lab", NAME)
    start_client("phone")
    meshctl("apply", str(INVENTORY), "--lab", NAME)
    mesh = inventory.read(INVENTORY, lock_path=lab.lock_path(NAME)).mesh
    right = reach_table(mesh)
    again = json.loads(meshctl("apply", str(INVENTORY), "--lab", NAME, "-o", "json", capture=True))
    changed = sorted(name for name, node in again["nodes"].items() if node["status"] != "unchanged")
    if changed:
        console.print(f"[bold red]The second apply changed {', '.join(changed)}.")
    else:
        console.print("[green]A second apply changes nothing.")
    right = direct_where_foreseen(mesh) and survives_its_anchor() and right
    console.print(f"Took {time.monotonic() - started:.0f} s.")
    return 0 if right and not changed else 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the lab up, to look around with `meshctl lab exec`")
    keep = parser.parse_args().keep
    try:
        code = run()
    finally:
        if keep:
            console.print(f"The lab is still up: meshctl lab exec --name {NAME} fra1 -- wg show")
        else:
            meshctl("lab", "down", "--name", NAME)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
