"""What is allowed but will disappoint: predicted from the compiled mesh, without a host."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from meshctl.core.anchors import serving_anchors
from meshctl.core.reachability import RELAYED, UNREACHABLE
from meshctl.errors import Diagnostic
from meshctl.model.mesh import Mesh
from meshctl.policy.compile import Compiled
from meshctl.policy.lint_hosts import about, anchors_without_udp, capacities, exits, forwarding, inputs, listed, logins
from meshctl.policy.lint_routes import routes, unmet_prefixes
from meshctl.policy.paths import Prediction, predictions


@dataclass(frozen=True)
class LintReport:
    """Findings by place, and one prediction for every permitted pair."""

    findings: tuple[Diagnostic, ...]
    pairs: tuple[Prediction, ...]


def lint(compiled: Compiled) -> LintReport:
    """Everything that can be foretold. Pure; contacts nobody."""
    pairs = predictions(compiled)
    findings = [
        *_unreachable(compiled.mesh, pairs),
        *_silent(compiled.mesh, pairs),
        *_anchors(compiled.mesh, pairs),
        *_routing_anchors(compiled.mesh, pairs),
        *anchors_without_udp(compiled),
        *_anchor_mtus(compiled.mesh, pairs),
        *routes(compiled),
        *unmet_prefixes(compiled.decisions),
        *exits(compiled),
        *capacities(compiled),
        *forwarding(compiled),
        *inputs(compiled),
        *logins(compiled),
    ]
    return LintReport(tuple(sorted(findings, key=lambda d: (d.file, d.line, d.column, d.code, d.message))), pairs)


def _unreachable(mesh: Mesh, pairs: Sequence[Prediction]) -> Iterator[Diagnostic]:
    """Permitted pairs without a path, those of one node and reason together."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.outcome == UNREACHABLE and not pair.waiting:
            found[pair.network, pair.one, pair.reason].append(pair.other)
    for (network, one, reason), others in found.items():
        message = f"`{one}` will not reach {listed(others)} in network `{network}`: {reason}"
        hint = "give one of them an endpoint, or the network an anchor that both reach"
        yield about(mesh.nodes[one], "unreachable-pair", message, hint, severity="error")


def _silent(mesh: Mesh, pairs: Sequence[Prediction]) -> Iterator[Diagnostic]:
    """Nodes that nobody finds before they have sent something."""
    waiting: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        for one, silent in pair.waiting:
            waiting[pair.network, silent].append(one)
    for (network, silent), others in waiting.items():
        message = (
            f"`{silent}` has no endpoint and no keepalive in network `{network}`: "
            f"{listed(others)} will find it only after it has sent something itself"
        )
        hint = "give it a keepalive (25 is the default), or an endpoint"
        yield about(mesh.nodes[silent], "no-keepalive", message, hint)


def _anchors(mesh: Mesh, pairs: Sequence[Prediction]) -> Iterator[Diagnostic]:
    """Anchors whose loss, or whose region's, cuts pairs off."""
    dependent: dict[str, int] = defaultdict(int)
    for pair in pairs:
        dependent[pair.network] += pair.introduced or (pair.outcome == RELAYED and not pair.via)
    for network, count in dependent.items():
        anchors = serving_anchors(mesh, network)
        pairs_ = _counted(count)
        if not count or not anchors:
            continue
        if len(anchors) == 1:
            message = f"`{anchors[0].name}` is the only anchor of network `{network}`, and {pairs_} cannot do without"
            yield about(anchors[0], "single-anchor", message, "give a second node roles: [anchor] and an endpoint")
        elif anchors[0].region and len({a.region for a in anchors}) == 1:
            message = (
                f"all {len(anchors)} anchors of network `{network}` stand in region `{anchors[0].region}`, "
                f"and {pairs_} cannot do without"
            )
            yield about(anchors[0], "anchors-in-one-region", message, "add an anchor in another region")


def _routing_anchors(mesh: Mesh, pairs: Sequence[Prediction]) -> Iterator[Diagnostic]:
    """Anchors by whose AllowedIPs pairs go: those are configuration, which no other anchor takes over by itself."""
    routed = Counter((pair.network, pair.via) for pair in pairs if pair.via and pair.outcome != UNREACHABLE)
    for (network, anchor), count in routed.items():
        message = f"`{anchor}` alone routes {_counted(count)} of network `{network}`: no other anchor takes over"
        hint = "where both run the agent, do without relay: routed; a stock client needs peers with endpoints"
        yield about(mesh.nodes[anchor], "single-anchor", message, hint)


def _anchor_mtus(mesh: Mesh, pairs: Sequence[Prediction]) -> Iterator[Diagnostic]:
    """Anchors that take smaller packets than both ends of a pair that they carry."""
    small: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.via and pair.mtu < min(_mtu(mesh, end, pair.network) for end in (pair.one, pair.other)):
            small[pair.network, pair.via].append(f"{pair.one} - {pair.other}")
    for (network, anchor), carried in small.items():
        mtu = _mtu(mesh, anchor, network)
        message = f"`{anchor}` carries packets of {mtu} bytes at most, less than both ends send: {listed(carried)}"
        hint = "give all of network one mtu; else it rests on ICMP that firewalls may drop (RFC 2923)"
        yield about(mesh.nodes[anchor], "anchor-mtu", message, hint.replace("network", f"network `{network}`"))


def _mtu(mesh: Mesh, node: str, network: str) -> int:
    return next(a.mtu for a in mesh.nodes[node].attachments if a.network == network)


def _counted(pairs: int) -> str:
    return f"{pairs} pair{'' if pairs == 1 else 's'}"
