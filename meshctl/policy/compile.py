"""Policies and the resolved mesh to decisions. Pure: no host, no clock, no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from meshctl.core.topology import compile_topology
from meshctl.model.mesh import Mesh
from meshctl.model.policy import Rule
from meshctl.model.topology import Reach, Topology
from meshctl.policy.network import NetworkPolicy


@dataclass(frozen=True)
class Decisions:
    """Every network's compiled policies; mappings are sorted by network."""

    networks: Mapping[str, NetworkPolicy]

    def network(self, name: str) -> NetworkPolicy:
        """One network's decisions. Raises KeyError."""
        return self.networks[name]

    @cached_property
    def reaches(self) -> Mapping[str, Mapping[str, Reach]]:
        """network -> node -> what it has to do with: the pairs that become peers, and the routes between them."""
        return {name: policy.reaches() for name, policy in self.networks.items()}


@dataclass(frozen=True)
class Compiled:
    """A mesh with everything that follows from its policies."""

    mesh: Mesh
    decisions: Decisions
    topology: Topology


def compile_mesh(mesh: Mesh) -> Compiled:
    """Policies first, then who is whose peer."""
    decisions = compile_policies(mesh)
    return Compiled(mesh, decisions, compile_topology(mesh, decisions.reaches))


def compile_policies(mesh: Mesh) -> Decisions:
    """Compile a resolved mesh's rules. Pairs are decided when they are asked about."""
    rules = tuple(sorted(mesh.rules, key=_precedence))  # sorted() is stable: of equal rules the first written one wins
    return Decisions({name: NetworkPolicy(mesh, name, rules) for name in sorted(mesh.networks)})


def _precedence(rule: Rule) -> tuple[int, bool]:
    return -rule.priority, not rule.deny
