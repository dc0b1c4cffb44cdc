"""What docs/benchmarks.md has of paths: which way packets go, after how long, and what is lost."""

from __future__ import annotations

from typing import Any

import bench_path_nebula as nebula
import cost_report
from bench_path_losses import BEFORE_S, REBOOT_S, WATCH_S
from nebula_side import PORT, RANGE
from paths_lab import ALL_S, DELAY
from paths_pairs import OFTEN_S
from paths_routers import COUNT_S
from paths_way import DIRECT, NONE, RELAYED
from tables import table

from meshctl.core.reachability import SPLICED, UNREACHABLE

MATRIX = f"""## Paths

Labs of Debian hosts behind real NATs, wireguard-go, two anchors, {DELAY} one way on every line. All that is told here
was measured by questions that hosts ask each other, and answer, and by WireGuard's own endpoints, not by what agents
say of themselves. Hosts ask nothing of a peer for which their WireGuard has no endpoint yet. First packet is when both
ends have had an answer. `make bench-paths`; one table alone:
`sudo .venv/bin/python tests/bench/main.py paths`, or `path_places`, `path_times`, `path_losses`, `path_cost`,
`path_nebula`.

Read them so: where UDP passes, every pair is to have a path, and a direct one wherever that is foretold. A disturbance
may cost a silence, whether a relay ends it or another direct path; what is done to agents, anchors and the inventory is
to cost no packet at all. Each figure stands beside its aim, and the table says where it is missed. The 95th percentile
of twenty runs is the second worst of them. Where it says *18 of 20*, two runs do not count: their pair went otherwise
than it should before anything happened, or did not go by the anchor that was switched off, or a command failed.

### Pairs of NATs

All pairs begin at once, on one machine, and are watched for {ALL_S:.0f} s from when all agents run: the outcomes count,
the times are those of a busy machine. Foretold is what `meshctl lint` says; what is foretold to be spliced is to be
direct, by a port that was found by trying. Where UDP is blocked there is no path yet.
"""

PLACES = """### Pairs in one place, and with other address families

Foretold is the word of the simulator's oracle. All begin at once here too, and are watched as long. A CGNAT that does
not hairpin keeps two homes behind it from reaching each other by their outer addresses.
"""

TIMES = f"""### Times

Pairs behind easy NATs. Each end asks the other {1 / OFTEN_S:.0f} times a second, and answers the other's questions;
each run begins with hosts that know nothing. Silence is the longest time that either end had no answer; direct again is
when both ends' WireGuard sends directly for good and the longest silence is over. *Agents started* counts from the
command that starts both, which includes Python's start; *both agents run* from when both have told systemd. Where both
ends have something to send before there is an endpoint for it, wireguard-go begins handshakes that lead nowhere, and
waits five seconds before the next; the kernel's WireGuard refuses such packets and does not wait.
"""

LOSSES = f"""### Packets lost

The same pairs, which ask as often. Lost is a question of either end that was never answered, whether the question or
the answer went astray, from {BEFORE_S} s before it happened until the pair had been watched for {WATCH_S:.0f} s
({REBOOT_S:.0f} s after an anchor was switched off and on). None is to be lost but where a path dies. *Ended elsewhere*
are pairs that did not go as they should in the end.
"""

BESIDE = f"""### Beside Nebula

One lab of pairs behind the NATs that the tables name, and two anchors. meshctl and Nebula (Debian's package) are on the
same hosts and join the same pairs; one of them runs at a time, in turns, {nebula.ROUNDS} rounds. Nebula has the
anchors for lighthouses and relays (`am_lighthouse`, `am_relay`, and `relays` on all others), `punchy` with `punch` and
`respond`, port {PORT}, {RANGE}, a firewall that lets everything pass, and its defaults in all else.

Both are measured in the same way, from outside. Both ends of a pair ask each other {1 / nebula.EVERY_S:.0f} times a
second inside the overlay, from before anything is started, whether there is a path or not. In each round all pairs
begin with hosts that know nothing, on routers that have no mapping; the anchors run already. First packet is when both
ends have had an answer, counted from the one `systemctl start` that starts all of the system on both: for meshctl that
is wg-quick with wireguard-go, and then the agent, which is Python. wireguard-go waits five seconds between two
handshakes, also where the first one led nowhere since there was no endpoint; the kernel's WireGuard refuses what has no
endpoint to go to. So meshctl alone is also measured with ends that ask only once there is one, beside Nebula's same
figures; that is wireguard-go still, and it waits where two handshakes have crossed.

{nebula.SETTLE_S:.0f} s after the last start the pair's routers count for {COUNT_S:.0f} s what comes from the
other one's router and what comes from anchors: that is the way. Then the NAT of each pair's first end rebinds, and
{nebula.WATCH_S:.0f} s after that the end's address changes. Silence is the longest time that either end had no answer;
*never* says that it had not ended after {nebula.WATCH_S:.0f} s. Runs in which the pair had no path before do not count.
A pair that an anchor relays has only its way to the anchor to lose. *Ahead* says by how much, or by how many direct
runs.
"""

# What is to come of a pair that is foretold to be so; all others are to be what they are foretold to be.
MEANS = {SPLICED: DIRECT, UNREACHABLE: NONE}
OUTCOME_HEADS = ("outcome", "foretold", "first packet", "direct", "")


def matrix_section(rows: list[dict[str, Any]]) -> str:
    """What became of each pair, and what `meshctl lint` foretold."""
    return table(
        ("NAT", "NAT", "UPnP", *OUTCOME_HEADS),
        [(r["a"], r["b"], "yes" if r["upnp"] else "", *outcome(r)) for r in rows],
    )


def places_section(rows: list[dict[str, Any]]) -> str:
    """The same for places."""
    return table(("hosts", *OUTCOME_HEADS), [(r["what"], *outcome(r)) for r in rows])


def outcome(row: dict[str, Any]) -> tuple[str, ...]:
    """What became of a pair, what was foretold, how soon, and whether it was as foretold."""
    kept = row["outcome"] == MEANS.get(row["oracle"], row["oracle"])
    times = seconds(row["first_s"]), seconds(row["direct_s"])
    return row["outcome"], row["oracle"], *times, "kept" if kept else "**missed**"


def times_section(rows: list[dict[str, Any]]) -> str:
    """Beside their aims, and what the aims are missed by."""
    heads = ("what happens", "runs", "median", "95th percentile", "aim", "")
    return table(heads, [(r["what"], *figures(r, "{:.2f} s")) for r in rows])


def losses_section(rows: list[dict[str, Any]]) -> str:
    """Questions; an aim of zero is met by a 95th percentile of zero."""
    heads = ("what happens", "path", "runs", "median", "95th percentile", "aim", "")
    return table(heads, [(r["what"], way(r), *figures(r, "{:.0f}")) for r in rows])


def beside_section(rows: dict[str, Any]) -> str:
    """Ways by NATs; then medians and worst runs of each thing by NATs. Each says who is ahead."""
    ways = [
        (
            " – ".join(r["nats"]), tally(r["ours"]), tally(r["other"]),
            ahead(-r["ours"][DIRECT], -r["other"][DIRECT], "{:.0f} runs"),
        )
        for r in rows["ways"]
    ]  # fmt: skip
    times = [
        (
            r["what"], " – ".join(r["nats"]), f"{counted(r['ours'])}, {counted(r['other'])}",
            *(cell for of in ("median", "worst") for cell in compared(r["ours"][of], r["other"][of])),
        )
        for r in rows["times"]
    ]  # fmt: skip
    other = f"Nebula {rows['version']}"
    measured = ("meshctl: median", "Nebula: median", "ahead", "meshctl: worst", "Nebula: worst", "ahead")
    return "\n".join((
        table(("NATs", "meshctl", other, "ahead"), ways),
        table(("what", "NATs", "runs of both", *measured), times),
    ))  # fmt: skip


def tally(runs: dict[str, int]) -> str:
    """Such as `relayed 4, none 1`."""
    return ", ".join(f"{kind} {runs[kind]}" for kind in (DIRECT, RELAYED, NONE) if runs[kind]) or "–"


def counted(summary: dict[str, Any]) -> str:
    """Runs that count, of how many if some do not."""
    return str(summary["runs"]) if summary["runs"] == summary["of"] else f"{summary['runs']} of {summary['of']}"


def compared(ours: float, other: float) -> tuple[str, str, str]:
    """Seconds of both, and who is ahead."""
    form = "{:.2f} s"
    return span(ours, form), span(other, form), ahead(ours, other, form)


def ahead(ours: float, other: float, form: str) -> str:
    """Who has less, and by how much. Infinite is no figure that something could be said to be less by."""
    difference = form.format(0 if ours == other else abs(ours - other))
    if difference == form.format(0):
        return "both alike"
    by = "" if float("inf") in (ours, other) else f" by {difference}"
    return f"meshctl{by}" if ours < other else f"**Nebula{by}**"


def span(value: float, form: str) -> str:
    """A figure; infinite is never."""
    return "never" if value == float("inf") else form.format(value)


def way(row: dict[str, Any]) -> str:
    """How the pair goes before and after."""
    return row["before"] if row["before"] == row["after"] else f"{row['before']} → {row['after']}"


def figures(row: dict[str, Any], form: str) -> tuple[str, ...]:
    """Runs, median, percentile, aim, and whether the percentile keeps it and all pairs went as they should after it."""
    aim = row["aim"]
    runs = counted(row)
    median, p95 = (span(row[key], form) for key in ("median", "p95"))
    faults = [] if aim is None or row["p95"] <= aim else ["**missed**"]
    if row.get("elsewhere"):
        faults.append(f"**{row['elsewhere']} ended elsewhere**")
    verdict = ", ".join(faults) or ("" if aim is None else "kept")
    return runs, median, p95, "–" if aim is None else form.format(aim), verdict


def seconds(value: float | None) -> str:
    """Of a pair; a dash for what did not happen."""
    return "–" if value is None else f"{value:.0f} s"


SECTIONS = (
    ("paths", MATRIX, matrix_section),
    ("path_places", PLACES, places_section),
    ("path_times", TIMES, times_section),
    ("path_losses", LOSSES, losses_section),
    ("path_cost", cost_report.COST, cost_report.section),
    ("path_nebula", BESIDE, beside_section),
)
