"""`--limit`: which nodes a run is about."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from meshctl.errors import UsageError
from meshctl.inventory.suggest import nearest
from meshctl.model.mesh import Mesh

_GLOB_SIGNS = frozenset("*?[")


def select(mesh: Mesh, limit: Sequence[str], option: str = "--limit") -> tuple[str, ...]:
    """Names of the managed nodes that the patterns name, sorted; all of them without patterns.

    A pattern is a node, a group, a network or a glob over node names, several with commas; `!x` takes away. Raises
    UsageError, which names the option, for one that names nothing.
    """
    managed = {node.name for node in mesh.managed()}
    patterns = [part.strip() for text in limit for part in text.split(",") if part.strip()]
    chosen: set[str] = set()
    if not any(not p.startswith("!") for p in patterns):
        chosen = set(managed)
    for pattern in patterns:
        if not pattern.startswith("!"):
            chosen |= _named(mesh, pattern, option)
    for pattern in patterns:
        if pattern.startswith("!"):
            chosen -= _named(mesh, pattern[1:], option)
    chosen &= managed
    if not chosen:
        raise UsageError(
            f"{option} {','.join(patterns)} leaves no node" if patterns else "the inventory has no node to contact",
            hint="stock clients are not contacted" if mesh.nodes else "",
        )
    return tuple(sorted(chosen))


def _named(mesh: Mesh, pattern: str, option: str) -> set[str]:
    if pattern in mesh.nodes:
        return {pattern}
    if pattern in mesh.groups:
        return set(mesh.groups[pattern])
    if pattern in mesh.networks:
        return {node.name for node in mesh.nodes.values() if node.attachment(pattern)}
    found = {name for name in mesh.nodes if fnmatchcase(name, pattern)} if _GLOB_SIGNS & set(pattern) else set()
    if not found:
        near = nearest(pattern, [*mesh.nodes, *mesh.groups, *mesh.networks])
        hint = f"did you mean {near}?" if near else "name a node, a group, a network or a glob"
        raise UsageError(f"{option}: no node, group or network is called {pattern!r}", hint=hint)
    return found
