"""The agent's answers (`report.py`) as text for people. What a host says of itself cannot drive a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Document = dict[str, Any]
_GAP = "  "


def age(seconds: float | None) -> str:
    """`12s`, `5m`, `3h`, `12d`; `-` where it is not known."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def cell(value: Any) -> str:
    """A value in a table: one line without control characters, `-` for none."""
    if value is None or value == "":
        return "-"
    return "".join(c if c.isprintable() else "?" for c in str(value))


def rtt(value: float | None) -> str:
    """Milliseconds."""
    return "-" if value is None else f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns under their names; the last one is as long as it is."""
    lines = [list(head), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
    padded = ([*(f"{text:<{width}}" for text, width in zip(line, widths)), line[-1]] for line in lines)
    return "\n".join(_GAP.join(line).rstrip() for line in padded)


def status(answer: Document) -> str:
    """The node in short."""
    lines = [f"{cell(answer['node'])}: agent {cell(answer['version'])}, for {age(answer['age_s'])}"]
    networks = [
        (n["network"], n["interface"], n["role"], ", ".join(n["addresses"]), n["listen_port"], *n["peers"].values())
        for n in answer["networks"]
    ]
    head = ("NETWORK", "INTERFACE", "ROLE", "ADDRESSES", "PORT", "DIRECT", "RELAYED", "DOWN")
    lines += ["", table(head, networks)]
    if answer["relays"]:
        rows = [
            (r["network"], r["port"], r["by"], *(f"{cell(e['peer'])} ({cell(e['address'])})" for e in r["ends"]),
             _bytes(sum(e["bytes"] for e in r["ends"]))) for r in answer["relays"]
        ]  # fmt: skip
        lines += ["", table(("NETWORK", "RELAY", "BY", "FROM", "TO", "CARRIED"), rows)]
    return "\n".join(lines)


def paths(answer: Document) -> str:
    """A line for each peer."""
    rows = [
        (p["peer"], p["network"], p["state"], p["relay"], p["endpoint"], rtt(p["rtt_ms"]), age(p["age_s"]), p["reason"])
        for p in answer["paths"]
    ]
    return table(("PEER", "NETWORK", "STATE", "RELAY", "ENDPOINT", "RTT", "AGE", "WHY"), rows)


def events(answer: Document) -> str:
    """A line for each decision, the oldest first."""
    rows = [
        (e["at"], e["peer"], e["network"], _course(e["before"], e["after"]), f"{e['event']}: {e['reason']}")
        for e in answer["events"]
    ]
    return table(("AT", "PEER", "NETWORK", "STATE", "WHY"), rows)


def nat(answer: Document) -> str:
    """What is in front of each own address, and what is mapped at routers."""
    found = [(network["network"], n) for network in answer["networks"] for n in network["nats"]]
    rows = [
        (name, n["address"], n["kind"], n["mapping"], n["filtering"], _yes(n["preserves_port"]), _yes(n["hairpins"]),
         ", ".join(sorted({s["address"] for s in n["seen"]}))) for name, n in found
    ]  # fmt: skip
    head = ("NETWORK", "ADDRESS", "NAT", "MAPPING", "FILTERING", "KEEPS PORT", "HAIRPINS", "SEEN AS")
    lines = [table(head, rows), ""]
    for n in answer["networks"]:
        lost = "" if n["lost_s"] is None else f", and gone after {n['lost_s']:g} s"
        tried = f"; a mapping was there after {n['survived_s']:g} s of silence{lost}" if n["survived_s"] or lost else ""
        lines.append(f"{cell(n['network'])}: keepalive {n['keepalive_s']} s{tried}")
    routers = [
        *((m["gateway"], m["protocol"], m["address"], m["external"], age(m["expires_s"])) for m in answer["mappings"]),
        *((m["gateway"], None, m["address"], None, m["reason"]) for m in answer["unmapped"]),
    ]
    if routers:
        lines += ["", table(("ROUTER", "BY", "ADDRESS", "MAPPED AT", "FOR, OR WHY NOT"), routers)]
    return "\n".join(lines)


def done(answer: Document) -> str:
    """What was done."""
    return f"{cell(answer['node'])}: {cell(answer['done'])}"


TABLES: dict[str, Callable[[Document], str]] = {
    "status": status, "paths": paths, "events": events, "nat": nat, "rebind": done, "override": done,
}  # fmt: skip


def _course(before: str, after: str) -> str:
    return after if before == after else f"{before} > {after}"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 10_000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.0f} TB"
