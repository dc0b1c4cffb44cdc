"""Who may open what to whom as a graph in Graphviz's DOT language. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from meshctl.core.traffic import words
from meshctl.model.policy import INTERNET, is_prefix
from meshctl.policy.network import NetworkPolicy


def to_dot(policies: tuple[NetworkPolicy, ...]) -> str:
    """A digraph: nodes as boxes, prefixes as notes, an arrow for each pair that may talk, labelled with its traffic."""
    subjects = dict.fromkeys(s for policy in policies for s in policy.subjects())
    lines = [f"  {_quoted(s)} [shape={_shape(s)}];" for s in subjects]
    for policy in policies:
        lines += _arrows(policy, name_network=len(policies) > 1)
    return "\n".join(("digraph policies {", "  rankdir=LR;", *lines, "}", ""))


def _arrows(policy: NetworkPolicy, *, name_network: bool) -> Iterator[str]:
    for source in policy.source:
        for destination in policy.subjects():
            traffic = words(policy.allowed(source, destination))
            if traffic:
                label = " ".join((*((f"{policy.name}:",) if name_network else ()), *traffic))
                yield f"  {_quoted(source)} -> {_quoted(destination)} [label={_quoted(label)}];"


def _shape(subject: str) -> str:
    return "ellipse" if subject == INTERNET else "note" if is_prefix(subject) else "box"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
