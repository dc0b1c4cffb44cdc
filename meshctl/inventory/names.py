"""The names that an inventory defines."""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.inventory.document import Document


@dataclass(frozen=True)
class Names:
    """What may be referred to, refused definitions included, so that one fault is not reported twice."""

    nodes: frozenset[str]
    groups: frozenset[str]
    networks: frozenset[str]


def names_of(document: Document) -> Names:
    """All names that the document defines; call it before anything is pruned."""

    def keys(section: str) -> frozenset[str]:
        value = document.data.get(section)
        return frozenset(value) if isinstance(value, dict) else frozenset()

    return Names(keys("nodes"), keys("groups"), keys("networks"))
