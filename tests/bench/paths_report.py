"""What docs/benchmarks.md has of paths: which way packets go, after how long, and what is lost."""

from __future__ import annotations

from typing import Any

from tables import table

MATRIX = """## Paths

Labs of Debian hosts behind real NATs, wireguard-go, two anchors, 20 ms one way on every line. All that is told here
was measured by packets that the hosts exchange and by WireGuard's own endpoints, not by what agents say of themselves.
Hosts ask nothing of a peer for which their WireGuard has no endpoint yet. `make bench-paths`; one table alone:
`sudo .venv/bin/python tests/bench/main.py paths`, or `path_places`, `path_times`, `path_losses`.

Read them so: where UDP passes, every pair is to have a path, and a direct one wherever that is foretold. A disturbance
may cost a silence, whether a relay ends it or another direct path; what is done to agents, anchors and the inventory is
to cost no packet at all. Each figure stands beside its aim, and the table says where it is missed. The 95th percentile
of twenty runs is the second worst of them.

### Pairs of NATs

All pairs begin at once, on one machine: the outcomes count, the times are those of a busy machine. Foretold is what
`meshctl lint` says; a spliced pair is direct, by a port that was found by trying. Where UDP is blocked there is no path
yet.
"""

PLACES = """### Pairs in one place, and with other address families

Foretold is the word of the simulator's oracle. All begin at once here too. A CGNAT that does not hairpin keeps two
homes behind it from reaching each other by their outer addresses.
"""

TIMES = """### Times

Pairs behind easy NATs that exchange a hundred packets a second each way; each run begins with hosts that know nothing.
Silence is the longest time that either end had no answer; direct again is when both ends' WireGuard sends directly for
good and the longest silence is over. *Agents started* counts from the command that starts both, which includes Python's
start; *both agents run* from when both have told systemd. Where both ends have something to send before there is an
endpoint for it, wireguard-go begins handshakes that lead nowhere, and waits five seconds before the next; the kernel's
WireGuard refuses such packets and does not wait.
"""

LOSSES = """### Packets lost

The same pairs, of whose packets (two hundred a second, both ways together) nothing should be lost but where a path
dies. Lost is what was never answered, from half a second before it happened until the pair had been watched for 6 s (20
s after an anchor was switched off and on).
"""


# A direct path is to be there again three seconds after packets pass at the latest.
AIMS_S = {
    "both agents run: first packet": 1.0,
    "both agents run: first packet, if both ends had something to send before": 1.0,
    "both agents run: direct": 2.0,
    "an end's address changes: silence": 1.0,
    "an end's address changes: direct again": 4.0,
    "a NAT rebinds: silence": 2.0,
    "a NAT rebinds: direct again": 5.0,
    "the direct path dies: silence": 2.0,
}
# Of all others no packet is to be lost.
DIES = "its anchor is switched off and on"


def matrix_section(rows: list[dict[str, Any]]) -> str:
    """What became of each pair, and what `meshctl lint` foretold."""
    return table(
        ("NAT", "NAT", "UPnP", "outcome", "foretold", "first packet", "direct"),
        [
            (r["a"], r["b"], "yes" if r["upnp"] else "", r["outcome"], r["oracle"], seconds(r["first_s"]),
             seconds(r["direct_s"]))
            for r in rows
        ],
    )  # fmt: skip


def places_section(rows: list[dict[str, Any]]) -> str:
    """The same for places."""
    return table(
        ("hosts", "outcome", "foretold", "first packet", "direct"),
        [(r["what"], r["outcome"], r["oracle"], seconds(r["first_s"]), seconds(r["direct_s"])) for r in rows],
    )


def times_section(rows: list[dict[str, Any]]) -> str:
    """Beside their aims, and what the aims are missed by."""
    heads = ("what happens", "runs", "median", "95th percentile", "aim", "")
    return table(heads, [(r["what"], *figures(r, AIMS_S.get(r["what"]), "{:.2f} s")) for r in rows])


def losses_section(rows: list[dict[str, Any]]) -> str:
    """Packets; an aim of zero is met by a 95th percentile of zero."""
    heads = ("what happens", "path", "runs", "median", "95th percentile", "aim", "")
    return table(heads, [(r["what"], way(r), *figures(r, None if r["what"] == DIES else 0, "{:.0f}")) for r in rows])


def way(row: dict[str, Any]) -> str:
    """How the pair goes before and after."""
    return row["before"] if row["before"] == row["after"] else f"{row['before']} → {row['after']}"


def figures(row: dict[str, Any], aim: float | None, form: str) -> tuple[str, ...]:
    """Runs, median, percentile, aim, and whether the percentile keeps it and all pairs went as they should after it."""
    runs = str(row["runs"]) if row["runs"] == row["of"] else f"{row['runs']} of {row['of']}"
    median, p95 = ("never" if row[key] == float("inf") else form.format(row[key]) for key in ("median", "p95"))
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
)
