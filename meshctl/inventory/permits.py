"""Policies to permitted pairs: selectors expanded to nodes, per network.

Ports, `deny`, `priority` and `limits` are checked for form here and compiled elsewhere; a pair that any policy names
is permitted as a pair of peers.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshctl.inventory.addresses import Malformed, parse_prefix
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.names import Names
from meshctl.inventory.suggest import did_you_mean
from meshctl.model.mesh import Node, Permit, PolicyTest

OPEN_POLICY = "open"
_BUILT_IN_TRAFFIC = ("any", "icmp")
_Sets = dict[str, frozenset[str]]  # network -> nodes


@dataclass(frozen=True)
class Scope:
    """What selectors choose from. `members` is network -> nodes."""

    nodes: Mapping[str, Node]
    groups: Mapping[str, frozenset[str]]
    members: Mapping[str, frozenset[str]]
    names: Names
    roles: frozenset[str]


class PolicyReader:
    """Reads `policies:` and `tests:` of one inventory."""

    def __init__(self, data: Mapping[str, Any], scope: Scope, findings: Findings, today: datetime.date) -> None:
        self._policies: list[dict[str, Any]] = data.get("policies") or []
        self._tests: list[dict[str, Any]] = data.get("tests") or []
        self._services: Mapping[str, list[str]] = data.get("services", {})
        self._scope = scope
        self._findings = findings
        self._today = today
        self._cache: dict[str, _Sets] = {}
        self._tags = {tag for node in scope.nodes.values() for tag in node.tags}

    def permits(self) -> tuple[Permit, ...]:
        """One Permit for each network and direction in which a policy permits something."""
        result: list[Permit] = []
        names: dict[str, int] = {}
        for service, items in self._services.items():
            for index, item in enumerate(items):
                self._check_traffic(item, ("services", service, index), services=False)
        for index, policy in enumerate(self._policies):
            path: Path = ("policies", index)
            first = names.setdefault(policy.get("name", ""), index)
            if first != index and "name" in policy:
                place = self._findings.document.position(("policies", first, "name"))
                message = f"there are two policies `{policy['name']}`"
                hint = f"the first is at {place.file}:{place.line}:{place.column}; rename one"
                self._findings.error("duplicate-name", (*path, "name"), message, hint)
            result.extend(self._policy(policy, path))
        return tuple(result)

    def tests(self) -> tuple[PolicyTest, ...]:
        """The assertions, parsed."""
        result: list[PolicyTest] = []
        for index, test in enumerate(self._tests):
            path: Path = ("tests", index)
            for side in {"from", "to"} & test.keys():
                self._select_one(test[side].removeprefix("!"), (*path, side))
            for key in ("can", "cannot"):
                for i, item in enumerate(test.get(key, ())):
                    self._check_traffic(item, (*path, key, i))
            if not {"from", "to"} <= test.keys():
                continue
            position = self._findings.document.position(path)
            can, cannot = tuple(test.get("can", ())), tuple(test.get("cannot", ()))
            result.append(PolicyTest(test["from"], test["to"], can, cannot, position))
        return tuple(result)

    def _policy(self, policy: dict[str, Any], path: Path) -> list[Permit]:
        for key in ("allow", "deny"):
            for index, item in enumerate(policy.get(key, ())):
                self._check_traffic(item, (*path, key, index))
        self._check_expiry(policy, path)
        sources, destinations = (
            self._select(policy[side], (*path, side)) if side in policy else None for side in ("from", "to")
        )
        if sources is None or destinations is None or "name" not in policy:
            return []
        if "deny" in policy:
            message = f"policy `{policy['name']}` denies, which is not enforced yet"
            self._findings.warning("deny-ignored", path, message, "narrow the policies that allow instead")
            return []
        position = self._findings.document.position(path)
        permits: list[Permit] = []
        for network in self._scope.members:
            here, there = sources[network], destinations[network]
            if len(here | there) < 2 or not here or not there:
                continue
            permits.append(Permit(network, here, there, policy["name"], position))
            if policy.get("both_ways"):
                permits.append(Permit(network, there, here, policy["name"], position))
        if not permits:
            message = f"policy `{policy['name']}` matches no pair of nodes"
            self._findings.warning("matches-nothing", path, message, "check that both sides share a network")
        return permits

    def _check_expiry(self, policy: dict[str, Any], path: Path) -> None:
        if "expires" not in policy:
            return
        try:
            expires = datetime.date.fromisoformat(policy["expires"])
        except ValueError:
            message = f"`{policy['expires']}` is not a date"
            self._findings.error("bad-date", (*path, "expires"), message, "write YYYY-MM-DD, as in 2026-12-31")
            return
        if expires < self._today:
            message = f"policy `{policy['name']}` expired on {expires}"
            self._findings.warning("policy-expired", (*path, "expires"), message, "remove it, or give it a new date")

    def _check_traffic(self, item: str, path: Path, *, services: bool = True) -> None:
        if "/" in item:
            low, _, high = item.split("/", 1)[1].partition("-")
            numbers = [int(low), int(high or low)]
            if not all(0 < n < 65536 for n in numbers):
                self._findings.error("out-of-range", path, f"`{item}`: ports are numbers from 1 to 65535")
            elif numbers[0] > numbers[1]:
                proto = item.split("/")[0]
                self._findings.error("out-of-range", path, f"`{item}` is empty", f"write {proto}/{high}-{low}")
        elif item not in _BUILT_IN_TRAFFIC and not (services and item in self._services):
            known = [*_BUILT_IN_TRAFFIC, *(self._services if services else ())]
            hint = f"write {item}/PORT" if item in ("tcp", "udp", "sctp") else did_you_mean(item, known)
            self._findings.error("unknown-service", path, f"there is no service `{item}`", hint or "write tcp/PORT")

    def _select(self, given: str | list[str], path: Path) -> _Sets | None:
        """Selectors to nodes by network: the union, less what `!` excludes. None when one is unknown."""
        items = [(given, path)] if isinstance(given, str) else [(g, (*path, i)) for i, g in enumerate(given)]
        found = [(text.startswith("!"), self._select_one(text.removeprefix("!"), place)) for text, place in items]
        if any(sets is None for _, sets in found):
            return None
        wanted = [sets for excluded, sets in found if sets is not None and not excluded]
        # What is excluded by one network's name is excluded everywhere: an exclusion is never read narrowly.
        removed = frozenset[str]().union(*(n for excluded, sets in found if excluded and sets for n in sets.values()))
        everyone = dict(self._scope.members)
        result: _Sets = {}
        for network in self._scope.members:
            chosen = frozenset[str]().union(*(sets[network] for sets in wanted)) if wanted else everyone[network]
            result[network] = chosen - removed
        return result

    def _select_one(self, text: str, path: Path) -> _Sets | None:
        if text not in self._cache:
            found = self._expand(text, path)
            if found is None:
                return None  # not remembered, so that every place of an unknown selector is reported
            self._cache[text] = found
        return self._cache[text]

    def _expand(self, text: str, path: Path) -> _Sets | None:
        scope = self._scope
        if text == "*":
            return dict(scope.members)
        if text in scope.members:
            return {network: nodes if network == text else frozenset() for network, nodes in scope.members.items()}
        nodes = self._named(text, path)
        return None if nodes is None else {network: nodes & members for network, members in scope.members.items()}

    def _named(self, text: str, path: Path) -> frozenset[str] | None:
        scope = self._scope
        kind, colon, name = text.partition(":")
        if text == "internet":
            return frozenset(n.name for n in scope.nodes.values() if n.exit_node)
        if "/" in text:
            return self._behind(text, path)
        if colon and kind == "tag":
            if name not in self._tags:
                self._findings.error(
                    "unknown-tag", path, f"no node has the tag `{name}`", did_you_mean(name, self._tags)
                )
                return None
            return frozenset(n.name for n in scope.nodes.values() if name in n.tags)
        if colon and kind == "role":
            if name not in scope.roles:
                self._findings.error(
                    "unknown-role", path, f"there is no role `{name}`", did_you_mean(name, scope.roles)
                )
                return None
            return frozenset(n.name for n in scope.nodes.values() if name in n.roles)
        if text in scope.nodes:
            return frozenset({text})
        if text in scope.groups:
            return scope.groups[text]
        known = scope.names.nodes | scope.names.groups | scope.names.networks
        if text not in known:
            near = did_you_mean(text, known)
            message = f"there is no node, group or network `{text}`"
            hint = near or "select by name, tag:NAME, role:NAME, a prefix behind a gateway, internet or *"
            if text in self._tags:
                hint = f"did you mean `tag:{text}`?"
            self._findings.error("unknown-selector", path, message, hint)
            return None
        return frozenset()

    def _behind(self, text: str, path: Path) -> frozenset[str] | None:
        try:
            prefix = parse_prefix(text)
        except Malformed as error:
            self._findings.error("bad-prefix", path, error.message, error.hint)
            return None
        routes = {route: node.name for node in self._scope.nodes.values() for route in node.routes}
        found = frozenset(
            gateway
            for route, gateway in routes.items()
            if (parsed := parse_prefix(route)).version == prefix.version and prefix.subnet_of(parsed)  # type: ignore[arg-type]
        )
        if not found:
            hint = did_you_mean(text, routes) or "add it to the routes of a gateway"
            self._findings.error("unknown-prefix", path, f"no gateway has a route that holds {text}", hint)
            return None
        return found


def open_permits(data: Mapping[str, Any], scope: Scope, findings: Findings) -> tuple[Permit, ...]:
    """Everyone to everyone in each network that says `policy: open`."""
    return tuple(
        Permit(network, nodes, nodes, OPEN_POLICY, findings.document.position(("networks", network, "policy")))
        for network, nodes in scope.members.items()
        if data["networks"][network].get("policy") == "open" and len(nodes) > 1
    )
