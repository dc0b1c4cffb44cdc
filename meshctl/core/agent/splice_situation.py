"""Whether a splice is of use between two NATs, who plays which part in it, and where the other end may be hit."""

from __future__ import annotations

import enum
import random
from collections import Counter
from dataclasses import dataclass, field

from meshctl.core.agent.address import Address, is_private
from meshctl.core.agent.bodies import NatSummary
from meshctl.core.agent.candidate import Candidate
from meshctl.core.agent.checklist import Credentials
from meshctl.core.agent.nat import Mapping, predict_ports

# Guesses of one attempt, at ports above the well-known ones.
MAX_GUESSES = 1024
GUESSED_PORTS = range(1024, 65536)
# Of them where a NAT that allocates in sequence would have gone on. They are wider apart than its mappings, so that
# four of them fall among those that were opened, and reach far, so that it may have served others in between.
PREDICTED = 512
PREDICTED_HITS = 4
# Outside addresses of the easy side that ports are opened to.
MAX_OUTSIDE = 2

_HARD = frozenset(mapping for mapping in Mapping if mapping.is_hard)
_EASY = frozenset((Mapping.NO_NAT, Mapping.ENDPOINT_INDEPENDENT))
# Kinds of candidates that show the outside of a NAT, of a host without one, and of a hard NAT towards others. What only
# a server without a key has told is none of them: hundreds of packets would go where it likes.
_OUTSIDE_OF_EASY = ("srflx", "observed", "host", "prflx")
_OUTSIDE_OF_HARD = ("srflx", "observed")


class Role(enum.Enum):
    """Which part this node plays."""

    HARD = "hard"  # opens ports
    EASY = "easy"  # guesses them


def role(ours: NatSummary, theirs: NatSummary) -> Role | None:
    """This node's part; None where a splice is of no use. The other end comes to the opposite from the same.

    Filtering is not asked: what is known of it says whom a NAT lets in at the least, and may be out of date. Where it
    lets in enough, the ordinary checks have succeeded before.
    """
    if ours.family == theirs.family:
        if ours.mapping in _HARD and theirs.mapping in _EASY:
            return Role.HARD
        if ours.mapping in _EASY and theirs.mapping in _HARD:
            return Role.EASY
    return None


@dataclass(frozen=True)
class Situation:
    """What an attempt is made of. `bases`: the tunnel's port at one own address of each family; `ours`, `theirs`: what
    is known of the NATs; `candidates`: the peer's; `credentials`: those of its checks; `controlling`: as there."""

    bases: tuple[Address, ...]
    ours: tuple[NatSummary, ...]
    theirs: tuple[NatSummary, ...]
    candidates: tuple[Candidate, ...]
    credentials: Credentials = field(repr=False)
    controlling: bool

    def part(self) -> tuple[Role, Address, NatSummary] | None:
        """This node's role, with its base, and the other end's NAT: of the first family in which there is one."""
        for mine in sorted(self.ours, key=lambda nat: nat.family):
            for their in self.theirs:
                found = role(mine, their)
                base = next((base for base in self.bases if base.family == mine.family), None)
                if found is not None and base is not None:
                    return found, base, their
        return None

    def outside_of_easy(self, family: int) -> tuple[Address, ...]:
        """Where the easy side is seen, the likeliest first."""
        found = sorted(self._outside(family, _OUTSIDE_OF_EASY), key=lambda c: (_OUTSIDE_OF_EASY.index(c.kind), c.order))
        return tuple(dict.fromkeys(c.address for c in found))[:MAX_OUTSIDE]

    def outside_of_hard(self, family: int) -> Address | None:
        """The hard side's outer address, with the highest port of those that it was seen to have."""
        seen = [c.address for c in self._outside(family, _OUTSIDE_OF_HARD)]
        votes = Counter(address.ip for address in seen)
        return max(seen, key=lambda address: (votes[address.ip], address), default=None)

    def _outside(self, family: int, kinds: tuple[str, ...]) -> list[Candidate]:
        of_family = (c for c in self.candidates if c.address.family == family and c.kind in kinds)
        return [c for c in of_family if not is_private(c.address.ip)]


def guesses(newest: int, step: int, opened: int, dice: random.Random) -> tuple[int, ...]:
    """The ports to try of a NAT that has mapped `opened` ports: none twice, the likeliest first.

    `newest` is the highest port that it was seen to give before, `step` what it adds from one to the next (0: random).
    """
    predicted = predict_ports(newest, step * max(1, opened // PREDICTED_HITS), PREDICTED)
    return tuple(dict.fromkeys((*predicted, *dice.sample(GUESSED_PORTS, MAX_GUESSES))))[:MAX_GUESSES]
