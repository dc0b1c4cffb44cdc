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
from simtrace import KEPT
from simwatch import Finding
from simworld import Outcome, World

# Of the worlds, one in so many has a twin.
EVERY = 40
_LINES = 10_000  # of a trace, so that the first difference is still there
_BEFORE, _AFTER = 40, 10  # lines of each trace that are shown around it


def outcome_of(spec: WorldSpec, *, kept_lines: int = KEPT) -> Outcome:
    """What comes of a world; where it has a twin, what differs there is a finding too, and in the text."""
    outcome = World(spec, kept_lines=kept_lines).run()
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
    lines = list(zip_longest(plain.text.splitlines(), twin.text.splitlines(), fillvalue="nothing"))
    at = next((n for n, (one, other) in enumerate(lines) if one != other), len(lines))
    words = " | ".join(line.strip() for line in lines[at]) if at < len(lines) else "only the digests"
    found = Finding("forged and replayed messages change nothing", spec.seconds, "all", f"differs in {words}")
    differing = replace(outcome, copies=copies, findings=(*outcome.findings, found))
    return differing.with_text(_around(lines, at), trace=bool(outcome.findings))


def _around(lines: list[tuple[str, str]], at: int) -> str:
    """Both traces before and after their first difference, which is marked."""
    shown = range(max(at - _BEFORE, 0), min(at + _AFTER, len(lines)))
    text = []
    for which, title in enumerate(("without", "with")):
        text.append(f"--- {title} the one who forges and sends again")
        text += [f"{'>' if n == at else ' '} {lines[n][which]}" for n in shown]
    return "\n".join(text)


def attacked(spec: WorldSpec) -> tuple[Outcome, Counter[str]]:
    """The world with the attacker, and what that delivered."""
    world = World(spec, kept_lines=_LINES)
    world.copyist = copyist = Copyist(world)
    with judging(copyist):
        return world.run(), copyist.delivered
