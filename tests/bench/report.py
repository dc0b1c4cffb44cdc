"""docs/benchmarks.md out of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paths_report
from measure import ROOT
from tables import table

PAGE = ROOT / "docs" / "benchmarks.md"

HEAD = """# Benchmarks

Made by `make bench` and `make bench-paths`; do not edit. What counts are the ratios: everything in one table ran side
by side on one machine.
"""

CLI = """## The command line

Median of 31 runs each, in turns, from bytecode. The import of click, which reads the command line, is the floor of
both commands. `make bench` or `sudo .venv/bin/python tests/bench/main.py cli`.
"""

GENERATE = """## Generation: a full mesh, from the description to every node's config

meshctl reads YAML, validates it, takes addresses and keys from the lock and derives a pre-shared key for every pair;
wg-meshconf 2.5.1 reads its CSV and derives each public key anew, without pre-shared keys. Whole processes, start-up
included; meshctl's median of 5 runs, one run of wg-meshconf. Files go into a new folder each time.
`sudo .venv/bin/python tests/bench/main.py generate`.
"""

APPLY = """## Apply over SSH

One lab of Debian hosts (systemd, sshd), each in its own network namespace on this one machine, all of them reached by
plain TCP from one other namespace in which the three controllers ran. All three end at the same state: the same files
with the same content and modes, WireGuard up with the same few peers each (a star), the units enabled. The WireGuard
keys were there before.

- *meshctl* also compares packages, sysctls, the nftables table and WireGuard's kernel state in each run; the others do
  not.
- *Ansible*: ansible-core, pipelining, no fact gathering, 20 forks, ControlPersist, one `copy` task a file.
- *pyinfra*: one `files.put` a file, its own default parallelism (all hosts).

First: hosts without any of it. No-op: the same again, median of 3. The hosts share the machine's cores with the
controllers. `sudo .venv/bin/python tests/bench/main.py apply`.
"""

SAFETY = """## What it costs that an apply can be undone

The lab and the hosts of "Apply over SSH", by `meshctl apply` alone: with `--confirm auto`, which is how it is run (each
host takes a snapshot and arms a timer, is asked from outside whether its peers are still heard, and is confirmed over a
connection of its own), against `--confirm off`. First: hosts without any of it. Change: each host's MTU is another.
Median of 5 runs each, in turns. `sudo .venv/bin/python tests/bench/main.py safety`.
"""

POLICY = """## Policies

Compiling is pure: from the resolved mesh to who may open what to whom and who is whose peer; then every node's peers,
and one gateway's firewall as text. Each node is in three groups, rules are between groups, half of them about four
common ports, one in ten denies, one in eight is about a prefix behind a gateway. To read and check is what
`meshctl validate` does. Median of 5 whole processes; memory is the largest. Loading is `nft -f` of the
whole table in the place of the one before, nft's own start included.

What more rules cost packets: namespaces joined by plain cables, so that no encryption hides it, client - node - server,
with a node about which there are 10 and 2,000 rules, in turns; the ratio is the median of the ratios of 9 rounds.
`sudo .venv/bin/python tests/bench/main.py policy`.
"""

def about(machine: dict[str, str]) -> str:
    """One line on the machine."""
    return "{cores} cores, {memory}, {system}, Linux {kernel}, Python {python}.\n".format(**machine)


def cli_section(rows: list[dict[str, Any]]) -> str:
    """Milliseconds and multiples of Python's own start."""
    return table(
        ("command", "median", "times Python's own start"),
        [(f"`{r['command']}`", f"{r['ms']:.0f} ms", f"{r['ratio']:.1f}") for r in rows],
    )


def generate_section(rows: list[dict[str, Any]]) -> str:
    """Seconds, memory, ratios."""
    return table(
        ("nodes", "meshctl, in memory", "peak memory", "meshctl, files written", "wg-meshconf", "peak memory",
         "ratio", "ratio with files"),
        [
            (
                f"{r['nodes']:,}", f"{r['ours_s']:.2f} s", f"{r['ours_mib']:.0f} MiB", f"{r['ours_files_s']:.2f} s",
                f"{r['other_s']:.2f} s", f"{r['other_mib']:.0f} MiB", f"{r['ratio']:.1f}×", f"{r['ratio_files']:.1f}×",
            )
            for r in rows
        ],
    )  # fmt: skip


def apply_section(rows: list[dict[str, Any]]) -> str:
    """Seconds of the three and the ratios to ours."""
    return table(
        ("hosts", "RTT", "run", "meshctl", "pyinfra", "Ansible", "pyinfra ÷ meshctl", "Ansible ÷ meshctl"),
        [
            (
                str(r["hosts"]), f"{r['rtt_ms']} ms", r["run"], f"{r['meshctl_s']:.2f} s", f"{r['pyinfra_s']:.2f} s",
                f"{r['ansible_s']:.2f} s", f"{r['pyinfra_s'] / r['meshctl_s']:.1f}×",
                f"{r['ansible_s'] / r['meshctl_s']:.1f}×",
            )
            for r in rows
        ],
    )


def safety_section(rows: list[dict[str, Any]]) -> str:
    """Seconds of both, and the ratio."""
    return table(
        ("hosts", "RTT", "run", "`--confirm off`", "`--confirm auto`", "auto ÷ off"),
        [
            (
                str(r["hosts"]), f"{r['rtt_ms']} ms", r["run"], f"{r['off_s']:.2f} s", f"{r['auto_s']:.2f} s",
                f"{r['auto_s'] / r['off_s']:.2f}×",
            )
            for r in rows
        ],
    )


def policy_section(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Compile time by size with the ratio to the first; tables; packets with few and many rules."""
    first = rows["compile"][0]
    compiled = table(
        ("nodes", "groups", "rules", "pairs", "policies", "times the first", "and every node's peers", "one table",
         "read and check", "peak memory"),
        [
            (
                f"{r['nodes']:,}", str(r["groups"]), f"{r['rules']:,}", f"{r['pairs']:,}", f"{r['compile_s']:.2f} s",
                f"{r['compile_s'] / first['compile_s']:.1f}", f"{r['mesh_s']:.2f} s", f"{r['table_s']:.2f} s",
                f"{r['read_s']:.2f} s", f"{r['peak_mib']:.0f} MiB",
            )
            for r in rows["compile"]
        ],
    )  # fmt: skip
    load = [(r["table"], f"{r['bytes'] / 1024:,.0f} KiB", f"{r['ms']:.0f} ms") for r in rows["load"]]
    packets = [(r["kind"], f"{r['few']:,.1f}", f"{r['many']:,.1f}", f"{r['ratio']:.3f}") for r in rows["throughput"]]
    return "\n".join((
        compiled,
        table(("table of", "size", "loads in"), load),
        table(("through the node", "10 rules", "2,000 rules", "ratio"), packets),
    ))  # fmt: skip


SECTIONS = (
    ("cli", CLI, cli_section),
    ("generate", GENERATE, generate_section),
    ("apply", APPLY, apply_section),
    ("safety", SAFETY, safety_section),
    ("policy", POLICY, policy_section),
    *paths_report.SECTIONS,
)


def write(results: dict[str, Any], page: Path = PAGE) -> None:
    """Write the page from what was measured. A section without results stays as it is on the page."""
    before = sections(page.read_text(encoding="utf-8"))
    parts = [HEAD]
    for name, head, section in SECTIONS:
        if name in results:
            parts += [head, about(results[name]["machine"]), section(results[name]["rows"])]
        elif title(head) in before:
            parts.append(before[title(head)])
    page.write_text("\n".join(parts), encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """Title line -> the section with that line, up to the next one's."""
    titles = {title(head) for _, head, _ in SECTIONS}
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in page.splitlines():
        if line in titles:
            lines = found[line] = []
        lines.append(line)
    return {line: "\n".join(text).rstrip("\n") + "\n" for line, text in found.items()}


def title(head: str) -> str:
    """The first line."""
    return head.partition("\n")[0]
