"""What to expect of every permitted pair before anything is deployed: its outcome and its MTU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshctl.core.anchors import serving_anchors
from meshctl.core.reachability import RELAYED, UNREACHABLE, End, Helpers, Outcome, nat_of, predict
from meshctl.model.topology import Reach
from meshctl.policy.compile import Compiled
from meshctl.policy.openers import Openers
from meshctl.policy.wire import bytes_on_wire

# WireGuard sends to a peer of which it knows an endpoint: configured, or where it was last heard from.
_SILENT = "has no endpoint and no keepalive"


@dataclass(frozen=True)
class Prediction:
    """One permitted pair of one network; `one` < `other`.

    `mtu` is the largest packet that both ends and, for a routed relay (`via`: its anchor), the anchor take; `wire_mtu`
    is what the networks below must carry for that in one piece. `introduced`: the two meet by an anchor's help alone.
    `waiting`: who must wait, as (from, to), for `to` to send something by itself: only then is it known where that is.
    """

    network: str
    one: str
    other: str
    outcome: str
    reason: str
    mtu: int
    wire_mtu: int
    via: str = ""
    introduced: bool = False
    waiting: tuple[tuple[str, str], ...] = ()


def predictions(compiled: Compiled) -> tuple[Prediction, ...]:
    """Every pair that policy permits anything, in either direction, by network and names."""
    return tuple(
        prediction
        for network, of_node in compiled.decisions.reaches.items()
        for prediction in _Network(compiled, network).predictions(of_node)
    )


def _speaks_tls(turn: str) -> bool:
    """Whether a TURN URI (RFC 7065) names TLS over TCP; over UDP it would be DTLS, which needs what is blocked."""
    return turn.startswith("turns:") and not turn.endswith("transport=udp")


class _Network:
    """One network's members as the oracle sees them, and the outcomes that it gave: few kinds of pair make many."""

    def __init__(self, compiled: Compiled, network: str) -> None:
        mesh = compiled.mesh
        nodes = [n for n in mesh.nodes.values() if n.attachment(network) is not None]
        self.network = network
        attached = {n.name: a for n in nodes for a in n.attachments if a.network == network}
        self.ends = {n.name: End(nat_of(mesh, n), bool(attached[n.name].endpoint), not n.client) for n in nodes}
        self.mtus = {name: attachment.mtu for name, attachment in attached.items()}
        self.anchors = {n.name for n in serving_anchors(mesh, network)}
        self.helpers = Helpers(
            introducer=bool(self.anchors),
            relay=bool(self.anchors or mesh.turn),
            tls=bool(self.anchors or any(map(_speaks_tls, mesh.turn))),
        )
        self.routed = {
            link.node: link.routed for links in compiled.topology.links.values() for link in links
            if link.network == network
        }  # fmt: skip
        self.silent = {name for name, a in attached.items() if not a.endpoint and not a.keepalive_s}
        self.openers = Openers(compiled.decisions.network(network))
        self._known: dict[tuple[End, End], Outcome] = {}

    def predictions(self, reaches: Mapping[str, Reach]) -> Iterator[Prediction]:
        for one in sorted(reaches):
            for other in sorted(p for p in reaches[one].peers if p > one):
                yield self._predict(one, other)

    def _predict(self, one: str, other: str) -> Prediction:
        via = self.routed[one].get(other) or self.routed[other].get(one) or ""
        outcome = self._by_way_of(via, one, other) if via else self._outcome(one, other)
        outcome, waiting = self._first_word(outcome, one, other)
        mtu = min(self.mtus[name] for name in (one, other, via) if name)
        helped = not via and not self.ends[one].endpoint and not self.ends[other].endpoint
        introduced = helped and outcome.kind != UNREACHABLE
        kind, reason, tls = outcome
        wire_mtu = bytes_on_wire(mtu, tls=tls)
        return Prediction(self.network, one, other, kind, reason, mtu, wire_mtu, via, introduced, waiting)

    def _first_word(self, outcome: Outcome, one: str, other: str) -> tuple[Outcome, tuple[tuple[str, str], ...]]:
        """The outcome, and who waits, where an end sends nothing before it has something to say."""
        if outcome.kind == UNREACHABLE or self.silent.isdisjoint((one, other)):
            return outcome, ()
        ways = [way for way in ((one, other), (other, one)) if self.openers.opens(*way)]
        waiting = tuple(way for way in ways if way[1] in self.silent)
        if not waiting:
            return outcome, ()
        if len(waiting) == len(ways):
            return Outcome(UNREACHABLE, f"whoever is to be reached {_SILENT}: nobody learns where that is"), waiting
        return outcome._replace(reason=f"{outcome.reason}; one end {_SILENT}: found only after it has sent"), waiting

    def _outcome(self, one: str, other: str) -> Outcome:
        key = self.ends[one], self.ends[other]
        if key not in self._known:
            self._known[key] = predict(*key, self.helpers)
        return self._known[key]

    def _by_way_of(self, anchor: str, one: str, other: str) -> Outcome:
        """A routed relay: the anchor is a peer of both, decrypts what one sends and encrypts it for the other."""
        if anchor not in self.anchors:
            return Outcome(UNREACHABLE, f"anchor {anchor}, which would route the pair, has no UDP")
        hops = {end: self._outcome(end, anchor) for end in (one, other)}
        for end, hop in hops.items():
            if hop.kind == UNREACHABLE:
                return Outcome(UNREACHABLE, f"{end} does not reach anchor {anchor}: {hop.reason}")
        return Outcome(RELAYED, f"routed by anchor {anchor}", any(hop.tls for hop in hops.values()))
