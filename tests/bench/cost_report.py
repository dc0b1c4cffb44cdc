"""What docs/benchmarks.md has of the cost of agents and relays."""

from __future__ import annotations

from typing import Any

import cost_relay
import cost_tunnel
from cost_watch import SETTLE_S, WATCH_S
from tables import table

COST = f"""### Cost

**Throughput**: TCP by iperf3, one stream of {cost_tunnel.SECONDS} s, between two Debian hosts of a lab, each behind an
easy NAT, wireguard-go, no line with a delay; everything runs on the cores of this one machine, and wireguard-go is what
is busy. Once with all agents (the two hosts' and the anchor's) running, from {cost_tunnel.START_S:.0f} s after their
start on, and once with all of them stopped; once with the pair moved to the anchor's blind relay by an operator's word,
and once directly. {cost_tunnel.ROUNDS} rounds of each, in turns, and the ratio is the median of the rounds' ratios.
Before and after each stream both ends' WireGuards are asked whether they send as they should.

**Packets**: three namespaces joined by cables, and UDP with {cost_relay.PAYLOAD_BYTES} bytes from the first, as fast as
one core sends it by sendmmsg, through the middle one to the third, where a rule counts what arrives and drops it. First
with all that the middle host does, its kernel and its programs alike, on one core that it has to itself (plain routing
may then be faster than the sender); then as such cables do it unasked: the sender's core does all that the kernel does
with a packet, and a program that relays has another core to itself. The blind relay is the agent's own code with its
own rules. Plain routing is by a kernel without any rule; the next line is with one rule that has connections tracked,
as any stateful firewall has. The agent's own relay serves pairs that the kernel cannot. coturn is Debian's, without a
password, by ChannelData. All in turns, {cost_relay.ROUNDS} rounds of {cost_relay.SECONDS:.0f} s; the ratio is the
median of the rounds' ratios.

**The agent**: the program that hosts get, as their unit runs it, in namespaces, with wireguard-go, in a star of the
mesh's hub, so many peers and an anchor that answers; nobody is behind a NAT. *Peers that do not answer* are there in
the document and in WireGuard alone, and the hub calls each of them by the anchor again about once a minute. *Direct*
are those that run an agent each and to which the hub's WireGuard sends directly; nothing passes through the tunnels but
what agents send. Memory is what is resident at the end; CPU is the share of one core over {WATCH_S:.0f} s,
from {SETTLE_S:.0f} s after the start or after the last path was found. All those agents run on this one
machine; with 500 peers there would be too many.
`sudo .venv/bin/python tests/bench/main.py path_cost`.
"""


def section(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Throughput and packets as ratios, the agent's memory and CPU, each beside its aim."""
    heads = "ratio", "aim", ""
    return "\n".join((
        table(("throughput", "Mbit/s", "Mbit/s", *heads), [compared(row, 1e6) for row in rows["through"]]),
        table(("packets", "1,000/s", "1,000/s", *heads), [compared(row, 1e3) for row in rows["packets"]]),
        table(("agent", "peers", "memory", "aim", "", "CPU, idle", "aim", ""), [agent(row) for row in rows["agent"]]),
    ))  # fmt: skip


def compared(row: dict[str, Any], unit: float) -> tuple[str, ...]:
    """Both medians in that unit, their ratio and what it is to be at least."""
    aim = row["aim"]
    told = ("–", "") if aim is None else (f"≥ {aim:.2f}", verdict(kept=row["ratio"] >= aim))
    return row["what"], f"{row['one'] / unit:,.0f}", f"{row['other'] / unit:,.0f}", f"{row['ratio']:.3f}", *told


def agent(row: dict[str, Any]) -> tuple[str, ...]:
    """Memory and CPU, and what they are to be at most."""
    memory = f"{row['mb']:.0f} MB", f"≤ {row['mb_aim']:.0f} MB", verdict(kept=row["mb"] <= row["mb_aim"])
    percent, aim = row["cpu_percent"], row["cpu_aim"]
    return row["what"], str(row["peers"]), *memory, f"{percent:.2f} %", f"≤ {aim:.1f} %", verdict(kept=percent <= aim)


def verdict(*, kept: bool) -> str:
    """As in the other tables."""
    return "kept" if kept else "**missed**"
