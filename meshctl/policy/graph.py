"""Who may open what to whom as a graph in Graphviz's DOT language. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshctl.core.traffic import words
from meshctl.model.policy import INTERNET, is_prefix
from meshctl.policy.naming import Party, pair_of
from meshctl.policy.network import NetworkPolicy


def to_dot(networks: Sequence[tuple[NetworkPolicy, Sequence[Party]]]) -> str:
    """A digraph of each network's parties: nodes as boxes, prefixes as notes, an arrow for each pair that may talk.

    An arrow from a party to itself is for those in it among themselves.
    """
    lines = list(dict.fromkeys(_box(party) for _, parties in networks for party in parties))
    for policy, parties in networks:
        lines += _arrows(policy, parties, prefix=f"{policy.name}: " if len(networks) > 1 else "")
    return "\n".join(("digraph policies {", "  rankdir=LR;", *lines, "}", ""))


def _box(party: Party) -> str:
    subject = party.subjects[0]
    shape = "ellipse" if subject == INTERNET else "note" if is_prefix(subject) else "box"
    return f"  {_id(party)} [label={_quoted(party.label)}, shape={shape}];"


def _arrows(policy: NetworkPolicy, parties: Sequence[Party], *, prefix: str) -> Iterator[str]:
    for source in parties:
        for destination in parties:
            traffic = words(policy.allowed(*pair_of(source, destination)))
            if traffic:
                yield f"  {_id(source)} -> {_id(destination)} [label={_quoted(prefix + ' '.join(traffic))}];"


def _id(party: Party) -> str:
    return _quoted(", ".join(party.names))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
