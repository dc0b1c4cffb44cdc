"""Who may open connections to whom, node by node: what is behind a node, and its way out, counted as the node's."""

from __future__ import annotations

from itertools import product

from meshctl.model.policy import INTERNET, Subject
from meshctl.policy.network import NetworkPolicy


class Openers:
    """The directions in which a network's pairs may begin to talk."""

    def __init__(self, policy: NetworkPolicy) -> None:
        self._policy = policy
        self._at: dict[str, list[Subject]] = {name: [name] for name in policy.nodes}
        for prefix in policy.prefixes:
            self._at[str(policy.home(prefix))].append(prefix)

    def opens(self, one: str, other: str) -> bool:
        """Whether policy lets `one`, or what is behind it, open anything to or by way of `other`, another node."""
        policy = self._policy
        if any(policy.opens(s, d) for s, d in product(self._at[one], self._at[other])):
            return True
        return policy.nodes[one].exit_via == other and policy.opens(one, INTERNET)
