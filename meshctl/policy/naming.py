"""Sets of subjects as the shortest list of selectors that means just them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from meshctl.model.mesh import Node
from meshctl.model.policy import INTERNET, Subject, is_prefix
from meshctl.policy.network import NetworkPolicy

# A label has so many names at most.
_LABEL_NAMES = 3
# Base and head of a diff.
_Sets = tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True)
class Party:
    """Subjects at one end of a connection. `names` are selectors that mean just the `subjects`."""

    names: tuple[str, ...]
    subjects: tuple[Subject, ...]

    @property
    def label(self) -> str:
        """The names, or the first of many, and what is cut out of them: `* less a, b, c`, `* less 7`."""
        if len(self.names) <= _LABEL_NAMES:
            return ", ".join(self.names)
        cut = [name[1:] for name in self.names if name.startswith("!")]
        kept = [name for name in self.names if not name.startswith("!")]
        label = ", ".join(kept) if len(kept) <= _LABEL_NAMES else f"{kept[0]} and {len(kept) - 1} more"
        if not cut:
            return label
        return f"{label} less {', '.join(cut) if len(cut) <= _LABEL_NAMES else len(cut)}"


def single(subject: Subject) -> Party:
    """One subject as a party."""
    return Party((subject,), (subject,))


def pair_of(source: Party, destination: Party) -> tuple[Subject, Subject]:
    """A pair that stands for all of the two parties: two different subjects where there are two."""
    other = destination.subjects[-1] if destination == source else destination.subjects[0]
    return source.subjects[0], other


def parties(policy: NetworkPolicy, everyone: frozenset[str]) -> tuple[Party, ...]:
    """The network's subjects, those about whom its policies say the same together; `everyone` is in the mesh.

    Nodes alone are put together: a prefix and its gateway, which nothing passes between, stay apart.
    """
    gateways = {policy.home(prefix) for prefix in policy.prefixes}
    alike: dict[tuple[object, ...], list[Subject]] = {}
    for subject in policy.subjects():
        apart = subject not in policy.nodes or subject in gateways
        said = policy.source.get(subject), policy.destination[subject], policy.home(INTERNET, subject)
        alike.setdefault((subject,) if apart else said, []).append(subject)
    naming = Naming(policy.name, (policy.nodes, policy.nodes), (everyone, everyone), policy.prefixes)
    return tuple(
        Party(naming.names(found, (True, True)) if len(found) > 1 else (found[0],), tuple(found))
        for found in alike.values()
    )


class Naming:
    """The names of one network's nodes in two versions: the network's (or `*`), groups and tags.

    `nodes` are the network's, `everyone` those of the whole mesh, in each version; `prefixes` are all that are told
    apart, in canonical order.
    """

    def __init__(
        self,
        network: str,
        nodes: tuple[Mapping[str, Node], Mapping[str, Node]],
        everyone: _Sets,
        prefixes: tuple[str, ...],
    ) -> None:
        members = frozenset(nodes[0]), frozenset(nodes[1])
        self._known = members[0] | members[1]
        known = frozenset(prefixes)
        self._around = {prefix: narrowest(prefix, known, inside=True) for prefix in prefixes}
        whole = "*" if members == everyone else network
        self._names: dict[str, _Sets] = {whole: members}
        groups = {g for side in nodes for node in side.values() for g in node.groups}
        tags = {t for side in nodes for node in side.values() for t in node.tags}
        for group in sorted(groups):
            self._names[group] = _both(nodes, lambda node: node.groups, group)
        for tag in sorted(tags):
            self._names[f"tag:{tag}"] = _both(nodes, lambda node: node.tags, tag)

    def names(self, subjects: Collection[Subject], sides: tuple[bool, bool]) -> tuple[str, ...]:
        """Selectors for `subjects`; each means the same in every version for which `sides` is true.

        A `!` cuts out of the names before it.
        """
        nodes = self._known.intersection(subjects)
        behind = frozenset(filter(is_prefix, subjects))
        others = [s for s in subjects if s not in nodes and s not in behind]
        return (*self._nodes(nodes, sides), *self._prefixes(behind), *others)

    def _prefixes(self, wanted: frozenset[str]) -> list[str]:
        """Prefixes less what is told apart inside them: `192.168.10.0/24`, `!192.168.10.0/28`."""
        return [
            prefix if prefix in wanted else f"!{prefix}"
            for prefix, around in self._around.items()
            if (prefix in wanted) != (around in wanted)
        ]

    def _nodes(self, wanted: frozenset[str], sides: tuple[bool, bool]) -> list[str]:
        """The shortest of: each by itself; a name less those it has besides; the names within, and whom they lack."""
        if len(wanted) < 2:
            return sorted(wanted)
        options = [sorted(wanted)]
        cover: list[str] = []
        rest = wanted
        known = {n: [m for m, counts in zip(sets, sides, strict=True) if counts] for n, sets in self._names.items()}
        for name in sorted(known, key=lambda n: -len(known[n][0])):  # stable: of equal ones the network's goes first
            if all(wanted <= members for members in known[name]):
                extra = frozenset[str]().union(*known[name]) - wanted
                options.append([name, *(f"!{node}" for node in sorted(extra))])
            same = all(members == known[name][0] for members in known[name])
            if same and known[name][0] <= wanted and len(known[name][0] & rest) > 1:
                cover.append(name)
                rest -= known[name][0]
        options.append([*cover, *sorted(rest)])
        return min(options, key=len)


def _both(
    nodes: tuple[Mapping[str, Node], Mapping[str, Node]], labels: Callable[[Node], frozenset[str]], label: str
) -> _Sets:
    base, head = (frozenset(name for name, node in side.items() if label in labels(node)) for side in nodes)
    return base, head


def narrowest(prefix: str, among: frozenset[str], *, inside: bool = False) -> str | None:
    """The narrowest prefix of `among` that covers `prefix`: itself, but when `inside` is asked for."""
    net = ip_network(prefix)
    start = net.prefixlen - inside
    wider = (str(net.supernet(new_prefix=length)) for length in range(start, -1, -1))
    return next((text for text in wider if text in among), None)
