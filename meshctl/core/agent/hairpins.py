"""What the checks with one peer say of a NAT that both are behind: whether it lets them reach each other by its outer
address (RFC 4787 section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as Lookup

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import NatSummary
from meshctl.core.agent.candidates import RemoteCandidates
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.nat import Mapping, NatKnowledge


class Hairpins:
    """Of the checks with one peer, whose candidates are `remote`; what they show is noted in `nat`."""

    def __init__(self, nat: NatKnowledge, remote: RemoteCandidates) -> None:
        self._nat, self._remote = nat, remote

    def received(self, pair: Pair, now: float) -> None:
        """Something authentic of the peer's came on this pair."""
        if self._leads_back(pair, now):
            self._nat.hairpinned(pair.local, now, worked=True)

    def tried(
        self, bases: Iterable[Address], theirs: Iterable[NatSummary], failed: Lookup[Pair, bool], now: float
    ) -> None:
        """Both ends have checked all pairs; `failed` says which in vain. `theirs`: the peer's NATs, as it knows them.

        That nothing came through means something only where each end knew at which mapping the other one is: both NATs
        must map by no destination.
        """
        easy = Mapping.ENDPOINT_INDEPENDENT
        families = {summary.family for summary in theirs if summary.mapping == easy}
        for base in bases:
            if base.family in families and self._nat.mapping(base, now) is easy:
                through = [pair for pair in failed if pair.local == base and self._leads_back(pair, now)]
                if through and all(failed[pair] for pair in through):
                    self._nat.hairpinned(base, now, worked=False)

    def _leads_back(self, pair: Pair, now: float) -> bool:
        """Whether the way leads by the outer address of our NAT to a host behind it: not to the NAT itself."""
        there = {c.address.ip for c in self._remote.all() if c.kind in ("host", "static")}
        return pair.remote.ip in self._nat.outside(pair.local, now) - there
