"""What is allowed but will disappoint: predicted from the compiled mesh, without a host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from meshctl.core.anchors import is_usable_anchor
from meshctl.core.endpoints import is_named
from meshctl.core.prefixes import covers, host_prefix, overlap
from meshctl.core.reachability import RELAYED, UNREACHABLE
from meshctl.errors import Diagnostic
from meshctl.model.mesh import Mesh, Node
from meshctl.model.policy import INTERNET, Rule, is_prefix, whose
from meshctl.model.topology import Reach
from meshctl.policy.compile import Compiled, Decisions
from meshctl.policy.paths import Prediction, predictions

# So many names are listed in a finding; the rest is counted.
_LISTED = 5
# A prefix and where it leads.
Way = tuple[str, str]


@dataclass(frozen=True)
class LintReport:
    """Findings by place, and one prediction for every permitted pair."""

    findings: tuple[Diagnostic, ...]
    pairs: tuple[Prediction, ...]


def lint(compiled: Compiled) -> LintReport:
    """Everything that can be foretold. Pure; contacts nobody."""
    reaches = compiled.decisions.reaches()
    pairs = predictions(compiled, reaches)
    findings = [
        *_unreachable(compiled.mesh, pairs),
        *_anchors(compiled.mesh, pairs),
        *_anchor_mtus(compiled.mesh, pairs),
        *_routes(compiled, reaches),
        *_idle_prefixes(compiled.decisions),
        *_exits(compiled),
        *_capacities(compiled),
        *_forwarding(compiled),
    ]
    return LintReport(tuple(sorted(findings, key=lambda d: (d.file, d.line, d.column, d.code, d.message))), pairs)


def _about(node: Node, code: str, message: str, hint: str, *, severity: str = "warning") -> Diagnostic:
    at = node.position
    return Diagnostic(
        code, message, at.file, at.line, at.column, f"nodes.{node.name}", hint, node.name, severity
    )  # fmt: skip


def _unreachable(mesh: Mesh, pairs: Sequence[Prediction]) -> Iterator[Diagnostic]:
    """Permitted pairs without a path, those of one node and reason together."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.outcome == UNREACHABLE:
            found[pair.network, pair.one, pair.reason].append(pair.other)
    for (network, one, reason), others in found.items():
        message = f"`{one}` will not reach {_listed(others)} in network `{network}`: {reason}"
        hint = "give one of them an endpoint, or the network an anchor that both reach"
        yield _about(mesh.nodes[one], "unreachable-pair", message, hint, severity="error")


def _anchors(mesh: Mesh, pairs: Sequence[Prediction]) -> Iterator[Diagnostic]:
    """Anchors whose loss, or whose region's, cuts pairs off."""
    dependent: dict[str, int] = defaultdict(int)
    for pair in pairs:
        dependent[pair.network] += pair.introduced or pair.outcome == RELAYED
    for network, count in dependent.items():
        anchors = [n for n in mesh.nodes.values() if is_usable_anchor(n, network)]
        pairs_ = f"{count} pair{'' if count == 1 else 's'}"
        if not count or not anchors:
            continue
        if len(anchors) == 1:
            message = f"`{anchors[0].name}` is the only anchor of network `{network}`, and {pairs_} cannot do without"
            yield _about(anchors[0], "single-anchor", message, "give a second node roles: [anchor] and an endpoint")
        elif anchors[0].region and len({a.region for a in anchors}) == 1:
            message = (
                f"all {len(anchors)} anchors of network `{network}` stand in region `{anchors[0].region}`, "
                f"and {pairs_} cannot do without"
            )
            yield _about(anchors[0], "anchors-in-one-region", message, "add an anchor in another region")


def _anchor_mtus(mesh: Mesh, pairs: Sequence[Prediction]) -> Iterator[Diagnostic]:
    """Anchors that take smaller packets than both ends of a pair that they carry."""
    small: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        ends = [a.mtu for n in (pair.one, pair.other) for a in mesh.nodes[n].attachments if a.network == pair.network]
        if pair.via and pair.mtu < min(ends):
            small[pair.network, pair.via].append(f"{pair.one} - {pair.other}")
    for (network, anchor), carried in small.items():
        mtu = next(a.mtu for a in mesh.nodes[anchor].attachments if a.network == network)
        message = f"`{anchor}` carries packets of {mtu} bytes at most, less than both ends send: {_listed(carried)}"
        hint = "give all of network one mtu; else it rests on ICMP that firewalls may drop (RFC 2923)"
        yield _about(mesh.nodes[anchor], "anchor-mtu", message, hint.replace("network", f"network `{network}`"))


def _routes(compiled: Compiled, reaches: Mapping[str, Mapping[str, Reach]]) -> Iterator[Diagnostic]:
    """What one node would have to send two ways: overlapping prefixes of two peers, endpoints inside the mesh."""
    endpoints = _Endpoints(compiled.mesh)
    seen: set[object] = set()
    for node in compiled.mesh.nodes.values():
        ways = _ways(compiled.mesh, node, reaches)
        known = *ways, *((route, f"behind {node.name}") for route in node.routes)
        if known not in seen:  # what one node routes twice, a thousand do
            seen.add(known)
            for one, other in _overlaps(known):
                if (one, other) not in seen:
                    seen.add((one, other))
                    message = f"{one[0]} ({one[1]}) overlaps {other[0]} ({other[1]}), and `{node.name}` meets both"
                    hint = "every address must have one place in the mesh: change one of the two"
                    yield _about(node, "overlapping-routes", message, hint, severity="error")
        for prefix, _ in ways:
            for peer, endpoint in endpoints.inside(prefix):
                if peer != node.name and (peer, prefix) not in seen and _are_peers(compiled, node.name, peer):
                    seen.add((peer, prefix))
                    message = (
                        f"endpoint {endpoint} of `{peer}` is inside {prefix}, which its peer `{node.name}` "
                        "routes into the mesh: a routing loop"
                    )
                    hint = "name an address that is reachable without the mesh"
                    peer_node = compiled.mesh.nodes[peer]
                    yield _about(peer_node, "endpoint-inside-mesh", message, hint, severity="error")


class _Endpoints:
    """Endpoints that are addresses, and which of them a prefix holds."""

    def __init__(self, mesh: Mesh) -> None:
        self._literals = [
            (node.name, attachment.endpoint, host_prefix(attachment.endpoint.rpartition(":")[0].strip("[]")))
            for node in mesh.nodes.values()
            for attachment in node.attachments
            if attachment.endpoint and not is_named(attachment.endpoint)
        ]
        self._inside: dict[str, tuple[tuple[str, str], ...]] = {}

    def inside(self, prefix: str) -> tuple[tuple[str, str], ...]:
        """(node, endpoint) of those inside the prefix."""
        if prefix not in self._inside:
            self._inside[prefix] = tuple((n, e) for n, e, literal in self._literals if covers(prefix, literal))
        return self._inside[prefix]


def _overlaps(ways: Sequence[Way]) -> Iterator[tuple[Way, Way]]:
    for index, one in enumerate(ways):
        for other in ways[:index]:
            if one[1] != other[1] and overlap(one[0], other[0]):
                yield one, other


def _are_peers(compiled: Compiled, one: str, other: str) -> bool:
    return any(peer.name == other for link in compiled.topology.links[one] for peer in link.peers)


def _ways(mesh: Mesh, node: Node, reaches: Mapping[str, Mapping[str, Reach]]) -> tuple[Way, ...]:
    """All that the node routes into the mesh, but for the default route: a mark keeps that from looping."""
    ways: dict[Way, None] = {}
    for attachment in node.attachments:
        for cidr in mesh.networks[attachment.network].cidrs:
            ways[cidr, f"network {attachment.network}"] = None
        for gateway, prefixes in reaches[attachment.network][node.name].prefixes.items():
            if gateway != node.name:
                ways.update(dict.fromkeys((prefix, f"behind {gateway}") for prefix in prefixes))
    return tuple(ways)


def _idle_prefixes(decisions: Decisions) -> Iterator[Diagnostic]:
    """Prefixes of a rule whose gateway nobody on its other side shares a network with."""
    rules: dict[str, Rule] = {}
    named: dict[str, set[str]] = defaultdict(set)
    met: dict[str, set[str]] = defaultdict(set)
    gateways: dict[str, str] = {}
    for policy in decisions.networks.values():
        for rule in policy.rules:
            if rule.deny:
                continue
            rules[rule.name] = rule
            for sources, destinations in policy.sides(rule):
                for prefix in filter(is_prefix, sources | destinations):
                    named[rule.name].add(prefix)
                    gateways[prefix] = str(policy.home(prefix))
                    others = destinations if prefix in sources else sources
                    if any(o != INTERNET and policy.home(o) != policy.home(prefix) for o in others):
                        met[rule.name].add(prefix)
    for name, prefixes in named.items():
        for prefix in sorted(prefixes - met[name]):
            message = f"policy `{name}` names {prefix} behind `{gateways[prefix]}`, whom nobody of its other side meets"
            message += whose(rules[name].owner, rules[name].reason)
            hint = f"put them and `{gateways[prefix]}` into one network, or remove the prefix"
            at = rules[name].position
            yield Diagnostic(
                "gateway-not-reached", message, at.file, at.line, at.column, "policies", hint, severity="warning"
            )


def _exits(compiled: Compiled) -> Iterator[Diagnostic]:
    for name, warnings in compiled.topology.warnings.items():
        for warning in warnings:
            yield _about(compiled.mesh.nodes[name], "no-exit", warning, "without it the node uses its own way out")


def _capacities(compiled: Compiled) -> Iterator[Diagnostic]:
    for node in compiled.mesh.nodes.values():
        count = sum(len(link.peers) for link in compiled.topology.links[node.name])
        if node.capacity is not None and count > node.capacity:
            message = f"`{node.name}` has {count} peers, more than its capacity of {node.capacity}"
            yield _about(node, "over-capacity", message, "narrow the policies that permit it peers, or raise capacity")


def _forwarding(compiled: Compiled) -> Iterator[Diagnostic]:
    """Nodes that forward: a packet must be accepted by every table at the hook, not by ours alone."""
    for node in compiled.mesh.nodes.values():
        links = compiled.topology.links[node.name]
        work = [
            *(["as gateway"] if node.routes else []),
            *(["as exit node"] if any(link.exit_users for link in links) else []),
            *(["as anchor"] if any(link.carried for link in links) else []),
        ]
        if not work or node.client:
            continue
        interfaces = ", ".join(link.attachment.interface for link in links)
        message = (
            f"`{node.name}` forwards {' and '.join(work)}: where docker or firewalld run, "
            "their forward policy drops what ours accepts"
        )
        hint = (
            f"with docker, accept {interfaces} (in and out) in its chain DOCKER-USER; "
            f"with firewalld, let a policy accept between the zone of {interfaces} and the others"
        )
        yield _about(node, "forward-policy", message, hint)


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    shown = ", ".join(f"`{name}`" for name in found[:_LISTED])
    return f"{shown} and {len(found) - _LISTED} more" if len(found) > _LISTED else shown
