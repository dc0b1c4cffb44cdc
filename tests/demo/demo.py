"""`make demo`: the example mesh on real Debian hosts behind real NATs, on this machine.

Builds the lab of inventory/demo, shows the plan, applies it, hands the stock client its config, pings every pair and
compares with what the policies permit, and applies once more to show that nothing changes. Exits 1 if any of it fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from meshctl import inventory, lab
from meshctl.core.traffic import WORDS, subtract
from meshctl.model.mesh import Mesh
from meshctl.policy import compile_policies

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

console = Console()


def meshctl(*words: str, capture: bool = False) -> str:
    """Run the meshctl that stands beside this interpreter; its output is shown unless captured."""
    program = shutil.which("meshctl", path=str(Path(sys.executable).parent)) or "meshctl"
    if not capture:
        console.print(f"[bold cyan]$ meshctl {' '.join(words)}")
    done = subprocess.run([program, *words], check=False, text=True, stdout=subprocess.PIPE if capture else None)
    if done.returncode:
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
