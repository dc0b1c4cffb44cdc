"""Mutations of a table of enumerated values, which cosmic-ray's own operators leave alone: another value in the place
of one, a row less, a value less in a tuple."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Position = tuple[tuple[int, int], tuple[int, int]]


def members(source: str) -> dict[str, tuple[str, ...]]:
    """The members of each enumeration in a module, in their order."""
    classes = re.findall(r"^class (\w+)\(enum\.Enum\):\n((?:(?:    .*)?\n)+)", source, re.MULTILINE)
    return {name: tuple(re.findall(r"^    ([A-Z_]+) = ", body, re.MULTILINE)) for name, body in classes}


class OtherMember:
    """`State.DIRECT` becomes each other state; of the longer enumerations, the member after it."""

    MOST = 6

    def __init__(self, enumerations: Mapping[str, Sequence[str]]) -> None:
        self._enumerations = enumerations

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        """One for each member that could stand here instead."""
        for _ in self._others(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Put the other one in its place."""
        node.children[1].children[1].value = self._others(node)[index]
        return node

    def _others(self, node: Any) -> Sequence[str]:
        parts = [child.get_code(include_prefix=False) for child in getattr(node, "children", ())]
        if len(parts) != 2 or parts[0] not in self._enumerations:
            return ()
        every, member = self._enumerations[parts[0]], parts[1][1:]
        at = every.index(member)
        others = [*every[at + 1 :], *every[:at]]
        return others if len(every) <= self.MOST else others[:1]


class DropElement:
    """A pair of a dict display, or an element of a tuple, is not there."""

    SIZES = {"dictorsetmaker": 4, "testlist_comp": 2}  # noqa: RUF012 - with the comma after it

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        """One for each element."""
        size = self.SIZES.get(node.type, 0)
        # A comprehension looks the same, but for what stands after its first element.
        if size and node.children[1].get_code().strip() in (",", ":"):
            elements = [(element.start_pos, element.end_pos) for element in node.children[::size]]
            yield from elements

    def mutate(self, node: Any, index: int) -> Any:
        """Take it out."""
        size = self.SIZES[node.type]
        del node.children[index * size : (index + 1) * size]
        return node
