"""Who reaches whom now: the answers of all agents (`paths`), and what follows from them for routed pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshctl.deploy.asking import Answers, Document
from meshctl.errors import RemoteError
from meshctl.model.mesh import Mesh
from meshctl.model.topology import Topology

DIRECT, RELAYED, ROUTED, DOWN = STATES = ("direct", "relayed", "routed", "down")
NO_AGENT = "no-agent"
# Of nodes that are not asked.
OFF, CLIENT = "off", "client"
# A day: nobody waits that long for an answer, and the sum of two is a number.
_RTT_MAX_MS = 86_400_000


@dataclass(frozen=True)
class Path:
    """One direction of a pair, as its source sees it. `endpoint` is where packets go first, `relay` the anchor that
    relays or routes; `since` is RFC 3339."""

    network: str
    source: str
    to: str
    state: str
    endpoint: str | None
    relay: str | None
    rtt_ms: float | None
    since: str | None
    age_s: int | None
    reason: str

    def to_json(self) -> Document:
        """One entry of the document's `paths`."""
        values = dict(vars(self))
        network, source = values.pop("network"), values.pop("source")
        return {"network": network, "from": source, **values}


@dataclass(frozen=True)
class NodeStatus:
    """What became of asking one node: `running`, `none`, `unreachable`; who is not asked is `off` where the inventory
    leaves the node without an agent, or a stock `client`."""

    agent: str
    version: str | None = None
    error: RemoteError | None = None

    def to_json(self) -> Document:
        """One entry of the document's `nodes`."""
        e = self.error
        error = None if e is None else {"kind": e.kind, "message": e.message, "hint": e.hint}
        return {"agent": self.agent, "version": self.version, "error": error}


@dataclass(frozen=True)
class MeshStatus:
    """`paths` by network, source and destination; `nodes` by name."""

    paths: tuple[Path, ...]
    nodes: Mapping[str, NodeStatus]

    @property
    def ok(self) -> bool:
        """Whether every node that should answer did, and no path is down."""
        answered = all(node.error is None for node in self.nodes.values())
        return answered and all(path.state != DOWN for path in self.paths)

    def to_json(self) -> Document:
        """The shape of schemas/status.schema.json."""
        return {
            "paths": [path.to_json() for path in self.paths],
            "nodes": {name: node.to_json() for name, node in self.nodes.items()},
        }


def mesh_status(mesh: Mesh, topology: Topology, answers: Answers) -> MeshStatus:
    """The whole, from what agents have answered to `paths`."""
    known = {
        (path.network, path.source, path.to): path
        for name, document in answers.documents.items() for path in read_paths(name, document)
    }  # fmt: skip
    routed = [path for name in answers.documents for path in _routed(name, topology, known)]
    paths = sorted([*known.values(), *routed], key=lambda p: (p.network, p.source, p.to))
    nodes = {name: NodeStatus("running", str(d["version"])) for name, d in answers.documents.items()}
    for name, error in answers.errors.items():
        nodes[name] = NodeStatus("none" if error.kind == NO_AGENT else "unreachable", None, error)
    nodes |= {node.name: NodeStatus(OFF) for node in mesh.managed() if not node.has_agent}
    nodes |= {node.name: NodeStatus(CLIENT) for node in mesh.nodes.values() if node.client}
    return MeshStatus(tuple(paths), dict(sorted(nodes.items())))


def read_paths(source: str, document: Document) -> list[Path]:
    """The paths of an agent's answer. Raises KeyError, TypeError, ValueError or AttributeError when it is none."""
    str(document["version"])
    return [_path(source, row) for row in document["paths"]]


def _path(source: str, row: Document) -> Path:
    rtt_ms, age_s = row["rtt_ms"], row["age_s"]
    if row["state"] not in STATES:
        raise ValueError("a state that is none")
    if rtt_ms is not None and not 0 <= rtt_ms <= _RTT_MAX_MS:
        raise ValueError("a time that is none")
    return Path(
        str(row["network"]), source, str(row["peer"]), row["state"], _text(row["endpoint"]), _text(row["relay"]),
        None if rtt_ms is None else float(rtt_ms), _text(row["since"]), None if age_s is None else int(age_s),
        str(row["reason"]),
    )  # fmt: skip


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _routed(source: str, topology: Topology, known: Mapping[tuple[str, str, str], Path]) -> Iterator[Path]:
    """Pairs that an anchor carries in the clear between its two tunnels: neither end's agent has a path to find."""
    for link in topology.interfaces(source):
        for to, anchor in sorted(link.routed.items()):
            first = known.get((link.network, source, anchor))
            if first is not None and (link.network, source, to) not in known:
                # The other end knows how far it is to the anchor; the anchor only whether the tunnel is up.
                legs = [known.get((link.network, *ends)) for ends in ((anchor, to), (to, anchor))]
                yield _by_way_of(anchor, to, first, [leg for leg in legs if leg is not None])


def _by_way_of(anchor: str, to: str, first: Path, second: Iterable[Path]) -> Path:
    state, reason = ROUTED, f"routed by anchor {anchor}"
    legs = list(second)
    down = next((leg for leg in (first, *legs) if leg.state == DOWN), None)
    if down is not None:
        state, reason = DOWN, f"{down.source} does not reach {down.to}: {down.reason}"
    elif not legs:
        reason = f"{reason}, which was not asked whether it reaches {to}"
    rtt_ms = next((leg.rtt_ms for leg in legs if leg.rtt_ms is not None), None)
    both = rtt_ms is not None and first.rtt_ms is not None
    return Path(
        first.network, first.source, to, state, first.endpoint, anchor,
        round((first.rtt_ms or 0) + (rtt_ms or 0), 1) if both else None, first.since, first.age_s, reason,
    )  # fmt: skip
