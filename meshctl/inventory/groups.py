"""Groups: who is in them, and in which order their settings apply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshctl.inventory.findings import Findings
from meshctl.inventory.names import Names
from meshctl.inventory.suggest import did_you_mean


class GroupTree:
    """The groups of one inventory. Unknown names and cycles are reported once, and left out."""

    def __init__(self, groups: Mapping[str, Any], nodes: Mapping[str, Any], names: Names, findings: Findings) -> None:
        self._children: dict[str, list[str]] = {}
        self._direct: dict[str, list[str]] = {name: [] for name in nodes}  # node -> groups, first wins
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}
        for name, group in groups.items():
            children = (group or {}).get("children", [])
            self._children[name] = [c for c in children if c in groups]
            for index, child in enumerate(children):
                if child not in names.groups:
                    path = ("groups", name, "children", index)
                    findings.error(
                        "unknown-group", path, f"there is no group `{child}`", did_you_mean(child, names.groups)
                    )
        self._break_cycles(findings)
        self._parents: dict[str, list[str]] = {name: [] for name in groups}
        for name, children in self._children.items():
            for child in children:
                self._parents[child].append(name)
        self._read_members(groups, nodes, names, findings)

    def order(self, node: str) -> tuple[str, ...]:
        """The node's groups, strongest first: those it names in order, each before its parents."""
        direct = tuple(self._direct[node])
        if direct not in self._orders:
            self._orders[direct] = self._linearise(direct)
        return self._orders[direct]

    def _linearise(self, direct: tuple[str, ...]) -> tuple[str, ...]:
        found = list(dict.fromkeys(direct))
        for name in found:  # grows while it is walked: parents come after what they were found by
            found.extend(p for p in self._parents[name] if p not in found)
        order: list[str] = []
        while found:
            # The first whose children have all been placed; there is one, for cycles are broken.
            name = next(n for n in found if not any(c in found for c in self._children[n]))
            found.remove(name)
            order.append(name)
        return tuple(order)

    def _break_cycles(self, findings: Findings) -> None:
        state: dict[str, str] = {}
        for start in self._children:
            trail: list[tuple[str, int]] = [(start, 0)] if start not in state else []
            state.setdefault(start, "open")
            while trail:
                name, index = trail.pop()
                if index >= len(self._children[name]):
                    state[name] = "done"
                    continue
                child = self._children[name][index]
                if state.get(child) == "open":
                    names = [n for n, _ in trail] + [name]
                    cycle = " → ".join([*names[names.index(child) :], child])
                    findings.error(
                        "group-cycle",
                        ("groups", name, "children"),
                        f"groups contain each other: {cycle}",
                        f"remove `{child}` from the children of `{name}`",
                    )
                    del self._children[name][index]
                    trail.append((name, index))
                    continue
                trail.append((name, index + 1))
                if child not in state:
                    state[child] = "open"
                    trail.append((child, 0))

    def _read_members(
        self, groups: Mapping[str, Any], nodes: Mapping[str, Any], names: Names, findings: Findings
    ) -> None:
        for name, node in nodes.items():
            for index, group in enumerate((node or {}).get("groups", [])):
                if group in groups:
                    self._direct[name].append(group)
                elif group not in names.groups:
                    path = ("nodes", name, "groups", index)
                    findings.error(
                        "unknown-group", path, f"there is no group `{group}`", did_you_mean(group, names.groups)
                    )
        for name, group in groups.items():
            for index, node in enumerate((group or {}).get("nodes", [])):
                if node not in names.nodes:
                    path = ("groups", name, "nodes", index)
                    findings.error("unknown-node", path, f"there is no node `{node}`", did_you_mean(node, names.nodes))
                elif node in nodes and name not in self._direct[node]:
                    self._direct[node].append(name)
