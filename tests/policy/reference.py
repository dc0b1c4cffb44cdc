"""What policies mean, one packet at a time: the slow and obvious evaluator that the compiler is measured against.

It reads the inventory as plain dicts and shares no code with `meshctl.policy`. Every node must write its `networks`
and its `address` by network, and nothing may come from `defaults`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

INTERNET = "internet"


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection. `protocol` is tcp, udp, sctp, icmp or anything else; `port` its destination."""

    network: str
    source: str
    destination: str
    protocol: str
    port: int = 0


@dataclass(frozen=True)
class End:
    """Who has an address: a node itself, a device behind one (`behind`), or somebody on the internet."""

    node: str
    address: str
    behind: bool = False


class Reference:
    """Answers for one inventory."""

    def __init__(self, inventory: dict[str, Any]) -> None:
        self.inventory = inventory
        self.nodes: dict[str, dict[str, Any]] = inventory["nodes"]
        self.groups: dict[str, dict[str, Any]] = inventory.get("groups") or {}
        self.networks: dict[str, dict[str, Any]] = inventory["networks"]
        # Asked again and again; the answers never change.
        self.end = lru_cache(None)(self._end)
        self.about = lru_cache(None)(self._rules_about)
        self.matches = lru_cache(None)(self._matches)

    def allowed(self, packet: Packet) -> bool:
        """Whether policy lets this packet open a connection across the mesh."""
        rule = self.decides(packet)
        return rule is not None and "deny" not in rule

    def decides(self, packet: Packet) -> dict[str, Any] | None:
        """The rule that decides about a packet across the mesh; None: nobody speaks of it, which denies it."""
        if self.between(packet.network, packet.source, packet.destination) is None:
            return None
        return self._winner(packet)

    def between(self, network: str, source: str, destination: str) -> tuple[str, str] | None:
        """The nodes at which such a packet enters and leaves the mesh; None: it does not cross it."""
        start, end = self.end(network, source), self.end(network, destination)
        if start is None or end is None or start.node == INTERNET:
            return None
        place = self._place(network, start, end)
        return None if place in (None, start.node) else (start.node, str(place))

    def _end(self, network: str, address: str) -> End | None:
        """Whose address this is in the network; None: nobody's."""
        for name in self.members(network):
            if address in self.nodes[name]["address"][network]:
                return End(name, address)
        for name in self.members(network):
            if any(inside(address, route) for route in self.nodes[name].get("routes", ())):
                return End(name, address, behind=True)
        known = [cidr for n in self.networks.values() for cidr in n["cidr"]]
        known += [route for node in self.nodes.values() for route in node.get("routes", ())]
        return None if any(inside(address, prefix) for prefix in known) else End(INTERNET, address)

    def members(self, network: str) -> list[str]:
        """The nodes of a network."""
        return [name for name, node in self.nodes.items() if network in node["networks"]]

    def _place(self, network: str, source: End, destination: End) -> str | None:
        """The node at which the packet leaves the mesh."""
        if destination.node != INTERNET:
            return destination.node
        via: str | None = None if source.behind else self.nodes[source.node].get("exit_via")
        return via if via in self.members(network) else None

    def _winner(self, packet: Packet) -> dict[str, Any] | None:
        best: dict[str, Any] | None = None
        for rule in self.about(packet.network, packet.source, packet.destination):
            given = rule["deny" if "deny" in rule else "allow"]
            matches = any(self.matches(item, packet.protocol, packet.port) for item in given)
            if matches and (best is None or rank(rule) > rank(best)):
                best = rule
        return best

    def _rules_about(self, network: str, source: str, destination: str) -> list[dict[str, Any]]:
        """The rules that select the two addresses, whatever the traffic."""
        start, end = self.end(network, source), self.end(network, destination)
        if start is None or end is None:
            return []
        return [rule for rule in self._rules(network) if self._speaks_of(rule, network, start, end)]

    def _rules(self, network: str) -> list[dict[str, Any]]:
        rules = list(self.inventory.get("policies") or ())
        if self.networks[network].get("policy") == "open":
            rules.insert(0, {"name": f"open:{network}", "open": network, "allow": ["any"]})
        return rules

    def _speaks_of(self, rule: dict[str, Any], network: str, source: End, destination: End) -> bool:
        if "open" in rule:
            return not source.behind
        ways = [(source, destination), (destination, source)] if rule.get("both_ways") else [(source, destination)]
        return any(
            self._selected(rule["from"], network, one) and self._selected(rule["to"], network, other)
            for one, other in ways
        )

    def _matches(self, item: str, protocol: str, port: int) -> bool:
        services = self.inventory.get("services") or {}
        if item in services:
            return any(self._matches(inner, protocol, port) for inner in services[item])
        if item in ("any", "icmp"):
            return item in ("any", protocol)
        wanted, _, ports = item.partition("/")
        low, _, high = ports.partition("-")
        return wanted == protocol and int(low) <= port <= int(high or low)

    def _selected(self, given: str | list[str], network: str, end: End) -> bool:
        items = [given] if isinstance(given, str) else given
        wanted = [item for item in items if not item.startswith("!")] or ["*"]
        unwanted = [item[1:] for item in items if item.startswith("!")]
        if any(self._means(item, n, end) for item in unwanted for n in self.networks):
            return False
        return any(self._means(item, network, end) for item in wanted)

    def _means(self, selector: str, network: str, end: End) -> bool:
        if selector == INTERNET:
            return end.node == INTERNET
        if "/" in selector:
            return end.behind and inside(end.address, selector)
        if end.behind or end.node == INTERNET or network not in self.nodes[end.node]["networks"]:
            return False
        if selector == "*" or selector in (end.node, network):
            return True
        kind, colon, name = selector.partition(":")
        if not colon:
            return selector in self._groups_of(end.node)
        return name in (self._tags_of(end.node) if kind == "tag" else self._roles_of(end.node))

    def _groups_of(self, node: str) -> set[str]:
        found = set(self.nodes[node].get("groups", ()))
        found |= {name for name, group in self.groups.items() if node in group.get("nodes", ())}
        while True:
            parents = {name for name, group in self.groups.items() if found & set(group.get("children", ()))}
            if parents <= found:
                return found
            found |= parents

    def _tags_of(self, node: str) -> set[str]:
        tags = set(self.nodes[node].get("tags", ()))
        return tags.union(*(self.groups[g].get("vars", {}).get("tags", ()) for g in self._groups_of(node)))

    def _roles_of(self, node: str) -> set[str]:
        given = set(self.nodes[node].get("roles", ()))
        return {"client"} if self.nodes[node].get("client") else given | {"wireguard", "firewall", "agent"}


@lru_cache(None)
def inside(address: str, prefix: str) -> bool:
    """Whether the address is in the prefix."""
    return ip_address(address) in ip_network(prefix)


def rank(rule: dict[str, Any]) -> tuple[int, bool]:
    """Of the rules that speak of a packet the highest priority wins, deny among equals."""
    return rule.get("priority", 0), "deny" in rule
