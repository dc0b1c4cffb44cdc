"""Findings of lint about addresses: what a node would have to send two ways, and prefixes that nobody gets to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshctl.core.endpoints import is_named
from meshctl.core.prefixes import covers, host_prefix, overlap
from meshctl.errors import Diagnostic
from meshctl.model.mesh import Mesh, Node
from meshctl.model.policy import INTERNET, Rule, is_prefix, whose
from meshctl.model.topology import Reach
from meshctl.policy.compile import Compiled, Decisions
from meshctl.policy.lint_hosts import about

# A prefix and where it leads.
_Way = tuple[str, str]


def routes(compiled: Compiled, reaches: Mapping[str, Mapping[str, Reach]]) -> Iterator[Diagnostic]:
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
                    yield about(node, "overlapping-routes", message, hint, severity="error")
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
                    yield about(peer_node, "endpoint-inside-mesh", message, hint, severity="error")


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


def _overlaps(ways: Sequence[_Way]) -> Iterator[tuple[_Way, _Way]]:
    for index, one in enumerate(ways):
        for other in ways[:index]:
            if one[1] != other[1] and overlap(one[0], other[0]):
                yield one, other


def _are_peers(compiled: Compiled, one: str, other: str) -> bool:
    return any(peer.name == other for link in compiled.topology.links[one] for peer in link.peers)


def _ways(mesh: Mesh, node: Node, reaches: Mapping[str, Mapping[str, Reach]]) -> tuple[_Way, ...]:
    """All that the node routes into the mesh, but for the default route: a mark keeps that from looping."""
    ways: dict[_Way, None] = {}
    for attachment in node.attachments:
        for cidr in mesh.networks[attachment.network].cidrs:
            ways[cidr, f"network {attachment.network}"] = None
        for gateway, prefixes in reaches[attachment.network][node.name].prefixes.items():
            if gateway != node.name:
                ways.update(dict.fromkeys((prefix, f"behind {gateway}") for prefix in prefixes))
    return tuple(ways)


def unmet_prefixes(decisions: Decisions) -> Iterator[Diagnostic]:
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
