"""`make rotate-keys`: what a rotation of every key of eight nodes loses, on all pairs; writes its table into
docs/keys.md.

Two anchors, two more with public addresses, three behind easy NATs and one behind a symmetric one. A hundred pings a
second on each pair, before the rotation for a while, and all through it.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

import yaml
from measure import ROOT, machine

sys.path += [str(ROOT / "tests" / "agent")]
import agentnode_pings

from meshctl import lab
from meshctl.lab.names import netns_path

NAME = "rotate-keys"
INVENTORY = """
version: 1
defaults: {ssh: {user: root}}
networks:
  corp: {cidr: [10.42.0.0/16], policy: open}
nodes:
  fra1:  {roles: [anchor], endpoint: "203.0.113.10:51820"}
  nyc1:  {roles: [anchor], endpoint: "198.51.100.10:51820"}
  web1:  {endpoint: "203.0.113.20:51820"}
  web2:  {endpoint: "203.0.113.30:51820", agent: false}
  home1: {lab: {nat: easy}}
  home2: {lab: {nat: easy}}
  home3: {lab: {nat: easy}}
  cafe1: {lab: {nat: symmetric}}
"""
CALM_S = 20.0
SETTLED_S = 120.0
BEGIN, END = "<!-- make rotate-keys: begin -->\n", "<!-- make rotate-keys: end -->\n"
Losses = dict[tuple[str, str], tuple[int, int, int]]  # pair -> packets sent, lost, lost in a row


def meshctl(path: Path, *words: str) -> str:
    """Standard output. Raises SystemExit with its own words when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "meshctl", *words, "-i", str(path)], check=False, text=True, capture_output=True
    )
    if done.returncode:
        said = done.stdout + done.stderr
        raise SystemExit(f"rotate-keys: meshctl {' '.join(words)} ended with {done.returncode}:\n{said}")
    return done.stdout


def await_paths(path: Path) -> None:
    """Until each pair of agents has a path of its own, and no relay any more where there is a better way."""
    deadline = time.monotonic() + SETTLED_S
    while time.monotonic() < deadline:
        done = subprocess.run(
            [sys.executable, "-m", "meshctl", "status", "-i", str(path), "--lab", NAME, "-o", "json"],
            check=False, text=True, capture_output=True,
        )  # fmt: skip
        if done.stdout and all(p["state"] in ("direct", "routed") for p in json.loads(done.stdout)["paths"]):
            return
        time.sleep(1)


def losses(work: Callable[[], object]) -> tuple[Losses, float]:
    """What is lost on each pair while `work` runs, and how long that takes in seconds."""
    lock = yaml.safe_load(lab.lock_path(NAME).read_text())
    addresses = {name: networks["corp"]["addresses"][0] for name, networks in lock["nodes"].items()}
    pairs = list(combinations(sorted(addresses), 2))
    pings = {
        (a, b): agentnode_pings.Pings(["nsenter", f"--net={netns_path(NAME, a)}", "--"], addresses[b]) for a, b in pairs
    }
    time.sleep(1)
    started = time.monotonic()
    work()
    took_s = time.monotonic() - started
    for ping in pings.values():
        ping.stop()
    return {pair: _lost(ping.said) for pair, ping in pings.items()}, took_s


def _lost(said: str) -> tuple[int, int, int]:
    heard = set(agentnode_pings.answered(said))
    last, longest, row = max(heard), 0, 0
    for number in range(1, last):
        row = 0 if number in heard else row + 1
        longest = max(longest, row)
    return last, last - len(heard), longest


def table(calm: Losses, rotation: Losses, took_s: float) -> str:
    """The section's text."""
    m = machine()
    lines = [
        f"Every key of eight nodes, a hundred pings a second on each of {len(rotation)} pairs, {took_s:.0f} s.",
        f"{m['cores']} cores, {m['system']}, kernel {m['kernel']}, wireguard-go; other programs were at work, too:",
        "",
        "| | packets a pair | lost on a pair: worst | median | longest silence on any pair |",
        "|---|---|---|---|---|",
    ]
    for name, found in (("before", calm), ("during the rotation", rotation)):
        sent = statistics.median(s for s, _, _ in found.values())
        lost = [n for _, n, _ in found.values()]
        silence_ms = round(1000 * agentnode_pings.INTERVAL_S) * max(row for _, _, row in found.values())
        lines.append(f"| {name} | {sent:.0f} | {max(lost)} | {statistics.median(lost):g} | {silence_ms} ms |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Build the lab, measure, take it down, write."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "inventory.yml"
        path.write_text(INVENTORY)
        stack.callback(subprocess.run, [sys.executable, "-m", "meshctl", "lab", "down", "--name", NAME], check=False)
        meshctl(path, "lab", "up", "--name", NAME)
        words = [sys.executable, "-m", "meshctl", "apply", str(path), "--lab", NAME, "-o", "json"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        await_paths(path)
        calm, _ = losses(lambda: time.sleep(CALM_S))
        rotation, took_s = losses(lambda: meshctl(path, "keys", "rotate", "--lab", NAME))
    for pair, (sent, lost, row) in sorted(rotation.items()):
        print(f"{' - '.join(pair)}: {lost} of {sent} lost, {row} in a row", file=sys.stderr)
    page = ROOT / "docs" / "keys.md"
    text = page.read_text(encoding="utf-8")
    within = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    page.write_text(within.sub(lambda _: BEGIN + table(calm, rotation, took_s) + END, text), encoding="utf-8")


if __name__ == "__main__":
    main()
