"""The agent's metrics as Prometheus reads them (text exposition format 0.0.4); docs/agent-commands.md lists them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshctl import __version__
from meshctl.agent.node.report import STATES, Report, kind_of, state_of, tunnel_state
from meshctl.core.agent.status import NetworkView

_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


class Sample(NamedTuple):
    """One value, with its labels."""

    labels: dict[str, str]
    value: float


def exposition(report: Report, now: float) -> bytes:
    """All of them, of this moment."""
    return "".join(_families(report, now)).encode()


def _families(report: Report, now: float) -> Iterator[str]:
    core = report.core
    views, started = core.views(now), time.time() - (now - report.started)
    yield family("agent_info", "gauge", "The agent.", [Sample({"node": core.name, "version": __version__}, 1)])
    yield family("agent_start_time_seconds", "gauge", "When it began, in Unix time.", [Sample({}, round(started, 3))])
    yield from _paths(report, views, now)
    yield from _nats(views)
    yield from _relays(report, views)
    yield family(
        "agent_events_total", "counter", "What the agent's core has heard.",
        [Sample({"event": _words(name)}, count) for name, count in sorted(report.counts.events.items())],
    )  # fmt: skip
    yield family(
        "agent_failures_total", "counter", "What the agent could not do.",
        [Sample({"action": _words(name)}, count) for name, count in sorted(report.counts.failures.items())],
    )  # fmt: skip


def _paths(report: Report, views: tuple[NetworkView, ...], now: float) -> Iterator[str]:
    paths = report.core.paths()
    ends = [({"network": p.network, "peer": p.peer}, state_of(p), p) for p in paths]
    all_ends = [(labels, state) for labels, state, _ in ends]
    all_ends += [
        ({"network": v.config.network, "peer": t.peer.name}, tunnel_state(t))
        for v in views for t in v.tunnels
    ]  # fmt: skip
    yield family(
        "path_state", "gauge", "How each peer is reached: 1 for the state that it has.",
        [Sample({**labels, "state": s}, int(s == state)) for labels, state in all_ends for s in STATES],
    )  # fmt: skip
    yield family(
        "path_rtt_seconds", "gauge", "Round trip, as last measured.",
        [Sample(labels, round(p.rtt_s, 6)) for labels, _, p in ends if p.rtt_s is not None],
    )  # fmt: skip
    yield family(
        "path_age_seconds", "gauge", "How long the path has been what it is.",
        [Sample(labels, round(now - p.since, 1)) for labels, _, p in ends],
    )  # fmt: skip
    yield family(
        "peer_switches_total", "counter", "How often the peer got another endpoint.",
        [Sample(labels, report.decisions.switches[p.public_key]) for labels, _, p in ends],
    )  # fmt: skip


def _nats(views: tuple[NetworkView, ...]) -> Iterator[str]:
    yield family(
        "nat_info", "gauge", "The NAT in front of each own address, as the inventory would call it.",
        [Sample({"network": v.config.network, "address": n.base.ip, "nat": kind_of(n)}, 1)
         for v in views for n in v.nats],
    )  # fmt: skip
    yield family(
        "keepalive_seconds", "gauge", "Between two keepalives.",
        [Sample({"network": v.config.network}, v.keepalive_s) for v in views],
    )  # fmt: skip


def _relays(report: Report, views: tuple[NetworkView, ...]) -> Iterator[str]:
    yield family(
        "relays", "gauge", "Pairs that this anchor relays.",
        [Sample({"network": v.config.network}, len(v.relays)) for v in views if v.config.is_anchor],
    )  # fmt: skip
    carried = {(c.port, c.source): c for c in report.relay_counts()}
    ends = []
    for v in views:
        names = {p.public_key: p.name for p in v.config.peers}
        for relay in v.relays:
            for one, other in ((relay.a, relay.b), (relay.b, relay.a)):
                known = names.get(one.peer, ""), names.get(other.peer, "")
                labels = {"network": v.config.network, "from": known[0], "to": known[1], "port": str(relay.port)}
                ends.append((labels, carried.get((relay.port, one.place))))
    counted = [(labels, count) for labels, count in ends if count is not None]
    yield family(
        "relay_bytes_total", "counter", "What a relay has carried from one end to the other.",
        [Sample(labels, count.bytes) for labels, count in counted],
    )  # fmt: skip
    yield family(
        "relay_packets_total", "counter", "The same in packets.",
        [Sample(labels, count.packets) for labels, count in counted],
    )  # fmt: skip


def family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    """One metric, whose name begins with `meshctl_`."""
    lines = [f"# HELP meshctl_{name} {what}", f"# TYPE meshctl_{name} {kind}"]
    lines += [f"meshctl_{name}{_labels(sample.labels)} {sample.value:.15g}" for sample in samples]
    return "\n".join([*lines, ""])


def _labels(labels: dict[str, str]) -> str:
    written = [f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels.items()]
    return f"{{{','.join(written)}}}" if written else ""


def _words(name: str) -> str:
    """`WgStatus` -> `wg_status`."""
    return _WORDS.sub("_", name).lower()
