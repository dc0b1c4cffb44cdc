"""How much a core remembers: the elements of all containers that can be reached from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


def containers(root: object) -> Iterator[tuple[str, int]]:
    """(where, elements) of each container, each once. Classes, modules and functions are not followed."""
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [(type(root).__name__, root)]
    while waiting:
        where, thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type)) or callable(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, _CONTAINERS):
            yield where, len(thing)
            values = [*thing.keys(), *thing.values()] if isinstance(thing, dict) else list(thing)
            waiting += [(f"{where}[]", value) for value in values]
        elif hasattr(thing, "__dict__"):
            waiting += [(f"{where}.{name}", value) for name, value in vars(thing).items()]
