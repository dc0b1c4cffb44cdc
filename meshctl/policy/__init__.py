"""Policies: compiled once, and asked by the topology, the firewall, tests, diffs and lint alike.

decisions = compile_policies(mesh)
decisions.network("corp").decide("web1", "pg1")
"""

from __future__ import annotations

from meshctl.policy.compile import Compiled, Decisions, compile_mesh, compile_policies
from meshctl.policy.network import NetworkPolicy, Piece

__all__ = ["Compiled", "Decisions", "NetworkPolicy", "Piece", "compile_mesh", "compile_policies"]
