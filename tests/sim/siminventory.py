"""The inventory, which changes while all runs: each host has it a little later than the one before, as by `apply`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from simspec import NodeSpec, WorldSpec

if TYPE_CHECKING:
    from simnode import Node
    from simworld import World

# From a change until the last host has it that can be reached.
APPLY_S = 2.0
_AGAIN_S = 0.5


class Inventory:
    """What it says is a world's spec with less in it. Hosts that have left keep what they were told last, for nobody
    deploys to them any more; a client is nobody's to deploy to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice("inventory")
        self._gone: set[str] = set()
        self._demoted: set[str] = set()
        self._ended: set[tuple[str, str]] = set()

    @property
    def spec(self) -> WorldSpec:
        """As it stands now."""
        whole = self._world.spec
        nodes = tuple(self._written(n) for n in whole.nodes if n.name not in self._gone)
        without = self._gone | self._demoted
        pairs = tuple(p for p in whole.pairs if p not in self._ended and not without & {*p})
        return replace(whole, nodes=nodes, pairs=pairs)

    def leave(self, name: str) -> None:
        """The node is taken out."""
        self._change(lambda: self._gone.add(name))

    def demote(self, name: str) -> None:
        """The anchor is a node as others are, that nobody may reach."""
        self._change(lambda: self._demoted.add(name))

    def come_back(self, name: str) -> None:
        """It is what it was."""
        self._change(lambda: (self._gone.discard(name), self._demoted.discard(name)))

    def end(self, a: str, b: str) -> None:
        """No policy permits the pair any more."""
        self._change(lambda: self._ended.add((min(a, b), max(a, b))))

    def permit(self, a: str, b: str) -> None:
        """One does again."""
        self._change(lambda: self._ended.discard((min(a, b), max(a, b))))

    # Inside

    def _written(self, node: NodeSpec) -> NodeSpec:
        return replace(node, kind="node") if node.name in self._demoted else node

    def _change(self, change: Callable[[], object]) -> None:
        change()
        for node in self._world.nodes.values():
            if node.spec.has_agent:
                self._world.clock.after(self._dice.uniform(0.0, APPLY_S), lambda node=node: self._reach(node))

    def _reach(self, node: Node) -> None:
        if node.spec.name in self._gone:
            return
        if node.kernel.up:
            node.deploy(self.spec)
        else:
            self._world.clock.after(_AGAIN_S, lambda: self._reach(node))
