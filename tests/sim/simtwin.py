"""Twins: a world with and without somebody on every path who sends again what was sent, and forges. All must be equal.

As the world's randomness is not touched by that one (`simcopyist`), a decision that is another one, or comes a
millisecond later, is what a message did that should have done nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import zip_longest

from simcopyist import Copyist, judging
from simspec import WorldSpec
from simwatch import Finding
from simworld import Outcome, World

# Of the worlds, one in so many has a twin.
EVERY = 40
_LINES = 10_000  # of a trace, so that the first difference is still there


def outcome_of(spec: WorldSpec) -> Outcome:
    """What comes of a world; where it has a twin, what differs there is a finding too."""
    outcome = World(spec).run()
    return outcome if spec.seed % EVERY else _with_twin(spec, outcome)


def _with_twin(spec: WorldSpec, outcome: Outcome) -> Outcome:
    """The same, and what the attacker did in its twin: of a world in which nobody else uses keys that it should not,
    nor sends again what it saw. What an anchor answers to that one is its own affair, and no two get all of it."""
    honest = replace(
        spec, nodes=tuple(n.honest for n in spec.nodes), faults=tuple(f for f in spec.faults if f.kind != "double"),
        outsider=False,
    )  # fmt: skip
    plain = outcome if honest == spec else World(honest).run()
    twin, delivered = attacked(honest)
    copies = tuple(sorted(delivered.items()))
    if twin.course == plain.course:
        return replace(outcome, copies=copies)
    plain, twin = World(honest, kept_lines=_LINES).run(), attacked(honest)[0]
    lines = zip_longest(plain.text.splitlines(), twin.text.splitlines(), fillvalue="nothing")
    words = next((f"{one.strip()} | {other.strip()}" for one, other in lines if one != other), "only the digests")
    found = Finding("forged and replayed messages change nothing", spec.seconds, "all", f"differs in {words}")
    return replace(outcome, copies=copies, findings=(*outcome.findings, found))


def attacked(spec: WorldSpec) -> tuple[Outcome, Counter[str]]:
    """The world with the attacker, and what that delivered."""
    world = World(spec, kept_lines=_LINES)
    world.copyist = copyist = Copyist(world)
    with judging(copyist):
        return world.run(), copyist.delivered
