"""Findings of lint about addresses: what a node would have to send two ways, and prefixes that nobody gets to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from meshctl.core.prefixes import covers, host_prefix, overlap
from meshctl.errors import Diagnostic
from meshctl.model.mesh import Mesh, Node
from meshctl.model.policy import INTERNET, Rule, Subject, is_prefix, whose
from meshctl.policy.compile import Compiled, Decisions
from meshctl.policy.lint_hosts import about, listed, literal
from meshctl.policy.network import NetworkPolicy

# A prefix and where it leads.
_Way = tuple[str, str]


def routes(compiled: Compiled) -> Iterator[Diagnostic]:
    """What one node would have to send two ways: overlapping prefixes of two peers, endpoints inside the mesh."""
    endpoints, servers = _Places(_endpoints(compiled.mesh)), _Places(_servers(compiled.mesh))
    seen: set[object] = set()
    for node in compiled.mesh.nodes.values():
        ways = _ways(compiled, node)
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
            for uri, _ in servers.inside(prefix):
                if not node.client and (uri, prefix) not in seen:
                    seen.add((uri, prefix))
                    message = f"server `{uri}` is inside {prefix}, which `{node.name}` routes into the mesh"
                    hint = "name a server that is reachable without the mesh"
                    yield about(node, "endpoint-inside-mesh", message, hint, severity="error")


def _endpoints(mesh: Mesh) -> Iterator[tuple[str, str, str]]:
    """(node, endpoint, host) of every endpoint."""
    for node in mesh.nodes.values():
        for attachment in node.attachments:
            if attachment.endpoint:
                yield node.name, attachment.endpoint, attachment.endpoint.rpartition(":")[0]


def _servers(mesh: Mesh) -> Iterator[tuple[str, str, str]]:
    """(URI, URI, host) of the STUN and TURN servers (RFC 7064, RFC 7065)."""
    for uri in (*mesh.stun, *mesh.turn):
        server = uri.partition(":")[2].partition("?")[0]
        yield uri, uri, server.partition("]")[0] if server.startswith("[") else server.partition(":")[0]


class _Places:
    """Things whose hosts are addresses, and which of them a prefix holds."""

    def __init__(self, places: Iterable[tuple[str, str, str]]) -> None:
        self._literals = [
            (name, text, host_prefix(str(address))) for name, text, host in places if (address := literal(host))
        ]
        self._inside: dict[str, tuple[tuple[str, str], ...]] = {}

    def inside(self, prefix: str) -> tuple[tuple[str, str], ...]:
        """(name, text) of those inside the prefix."""
        if prefix not in self._inside:
            self._inside[prefix] = tuple((name, text) for name, text, at in self._literals if covers(prefix, at))
        return self._inside[prefix]


def _overlaps(ways: Sequence[_Way]) -> Iterator[tuple[_Way, _Way]]:
    for index, one in enumerate(ways):
        for other in ways[:index]:
            if one[1] != other[1] and overlap(one[0], other[0]):
                yield one, other


def _are_peers(compiled: Compiled, one: str, other: str) -> bool:
    return any(peer.name == other for link in compiled.topology.links[one] for peer in link.peers)


def _ways(compiled: Compiled, node: Node) -> tuple[_Way, ...]:
    """All that the node routes into the mesh, but for the default route: a mark keeps that from looping."""
    ways: dict[_Way, None] = {}
    for attachment in node.attachments:
        for cidr in compiled.mesh.networks[attachment.network].cidrs:
            ways[cidr, f"network {attachment.network}"] = None
        for gateway, prefixes in compiled.decisions.reaches[attachment.network][node.name].prefixes.items():
            if gateway != node.name:
                ways.update(dict.fromkeys((prefix, f"behind {gateway}") for prefix in prefixes))
    return tuple(ways)


def unmet_prefixes(decisions: Decisions) -> Iterator[Diagnostic]:
    """Prefixes of a rule, and who on its other side shares no network with their gateway; everybody there or some."""
    policies = tuple(decisions.networks.values())
    for rule in policies[0].rules if policies else ():  # all networks have the same
        if not rule.deny:
            for prefix, meeting in sorted(_meetings(policies, rule).items()):
                if meeting.missing or not meeting.met:
                    yield _not_reached(rule, prefix, meeting)


@dataclass
class _Meeting:
    """A prefix of a rule: its gateway, who of the rule's other side meets that in no network, and if anybody does."""

    gateway: str
    missing: frozenset[Subject]
    met: bool = False


def _meetings(policies: Sequence[NetworkPolicy], rule: Rule) -> dict[str, _Meeting]:
    """By prefix. What of a side is in no network of the gateway's is only seen in all networks together."""
    found: dict[str, _Meeting] = {}
    sides = [(policy, ends) for policy in policies for ends in policy.sides(rule)[:1]]
    everybody = [frozenset[Subject]().union(*(ends[side] for _, ends in sides)) - {INTERNET} for side in (0, 1)]
    for policy, ends in sides:
        for side, other in ((0, 1), (1, 0)):
            others = ends[other]
            missing = everybody[other] - others
            for prefix in filter(is_prefix, ends[side]):
                gateway = str(policy.home(prefix))
                known = found.setdefault(prefix, _Meeting(gateway, missing))
                known.missing &= missing
                known.met |= any(o != INTERNET and policy.home(o) != gateway for o in others)
    return found


def _not_reached(rule: Rule, prefix: str, meeting: _Meeting) -> Diagnostic:
    who = "which nobody of its other side meets"
    if meeting.missing:
        who = f"which shares no network with {listed(sorted(meeting.missing))}"
    message = f"policy `{rule.name}` names {prefix} behind `{meeting.gateway}`, {who}{whose(rule.owner, rule.reason)}"
    hint = f"put them and `{meeting.gateway}` into one network, or take them or the prefix out of the rule"
    at = rule.position
    return Diagnostic("gateway-not-reached", message, at.file, at.line, at.column, "policies", hint, severity="warning")
