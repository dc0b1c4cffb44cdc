"""Selectors (`web`, `tag:http`, `192.168.10.0/24`, `!phone`) to the subjects that they choose, per network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshctl.core.prefixes import covers
from meshctl.inventory.addresses import Malformed, parse_prefix
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.names import Names
from meshctl.inventory.suggest import did_you_mean
from meshctl.model.mesh import Node
from meshctl.model.policy import INTERNET, Side, Subject, is_prefix

_Members = Mapping[str, frozenset[Subject]]  # network -> subjects
NOBODY = frozenset[Subject]()


@dataclass(frozen=True)
class Scope:
    """What selectors choose from. `members` is network -> nodes."""

    nodes: Mapping[str, Node]
    groups: Mapping[str, frozenset[str]]
    members: Mapping[str, frozenset[str]]
    names: Names
    roles: frozenset[str]


class Selectors:
    """Expands the selectors of one document. What is wrong with one is reported at each of its places."""

    def __init__(self, scope: Scope, findings: Findings) -> None:
        self._scope = scope
        self._findings = findings
        self._cache: dict[str, _Members] = {}
        self._tags = {tag for node in scope.nodes.values() for tag in node.tags}

    def side(self, given: str | list[str], path: Path) -> Side | None:
        """The union of the selectors, less what `!` excludes. None when one of them is unknown."""
        items = [(given, path)] if isinstance(given, str) else [(g, (*path, i)) for i, g in enumerate(given)]
        found = [(text.startswith("!"), self._one(text.removeprefix("!"), place)) for text, place in items]
        if any(members is None for _, members in found):
            return None
        wanted = [members for excluded, members in found if members is not None and not excluded]
        # What is excluded by one network's name is excluded everywhere: an exclusion is never read narrowly.
        removed = NOBODY.union(*(s for excluded, members in found if excluded and members for s in members.values()))
        everyone = self._scope.members
        chosen = {
            network: (NOBODY.union(*(m[network] for m in wanted)) if wanted else everyone[network]) - removed
            for network in everyone
        }
        return Side(chosen, tuple(sorted(filter(is_prefix, removed))))

    def _one(self, text: str, path: Path) -> _Members | None:
        if text not in self._cache:
            found = self._expand(text, path)
            if found is None:
                return None  # not remembered, so that every place of an unknown selector is reported
            self._cache[text] = found
        if text in self._scope.groups and not self._scope.groups[text]:
            message = f"the group `{text}` has no nodes"
            self._findings.warning("empty-group", path, message, "put a node into it, or remove it here")
        return self._cache[text]

    def _expand(self, text: str, path: Path) -> _Members | None:
        members = self._scope.members
        if text == "*":
            return members
        if text in members:
            return {network: nodes if network == text else NOBODY for network, nodes in members.items()}
        if text == INTERNET:
            exits = frozenset(n.name for n in self._scope.nodes.values() if n.exit_node)
            return {network: frozenset({INTERNET}) if exits & nodes else NOBODY for network, nodes in members.items()}
        if "/" in text:
            return self._prefix(text, path)
        chosen = self._labelled(text, path) if ":" in text else self._named(text, path)
        return None if chosen is None else {network: chosen & nodes for network, nodes in members.items()}

    def _labelled(self, text: str, path: Path) -> frozenset[str] | None:
        kind, _, name = text.partition(":")
        known, attribute = (self._tags, "tags") if kind == "tag" else (self._scope.roles, "roles")
        if name not in known:
            message = f"no node has the tag `{name}`" if kind == "tag" else f"there is no role `{name}`"
            self._findings.error(f"unknown-{kind}", path, message, did_you_mean(name, known))
            return None
        return frozenset(n.name for n in self._scope.nodes.values() if name in getattr(n, attribute))

    def _named(self, text: str, path: Path) -> frozenset[str] | None:
        scope = self._scope
        if text in scope.nodes:
            return frozenset({text})
        if text in scope.groups:
            return scope.groups[text]
        known = scope.names.nodes | scope.names.groups | scope.names.networks
        if text in known:  # it was refused where it is defined
            return NOBODY
        forms = "select by name, tag:NAME, role:NAME, a prefix behind a gateway, internet or *"
        hint = did_you_mean(text, known) or forms
        if text in self._tags:
            hint = f"did you mean `tag:{text}`?"
        self._findings.error("unknown-selector", path, f"there is no node, group or network `{text}`", hint)
        return None

    def _prefix(self, text: str, path: Path) -> _Members | None:
        try:
            prefix = parse_prefix(text)
        except Malformed as error:
            self._findings.error("bad-prefix", path, error.message, error.hint)
            return None
        canonical = str(prefix)
        nodes = self._scope.nodes.values()
        gateways = {node.name for node in nodes if any(covers(route, canonical) for route in node.routes)}
        if not gateways:
            routes = {route for node in nodes for route in node.routes}
            hint = did_you_mean(text, routes) or "add it to the routes of a gateway"
            self._findings.error("unknown-prefix", path, f"no gateway has a route that holds {text}", hint)
            return None
        chosen = frozenset({canonical})
        return {network: chosen if gateways & nodes else NOBODY for network, nodes in self._scope.members.items()}
