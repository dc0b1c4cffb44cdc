"""A world that runs: networks, hosts, traffic and faults of a `WorldSpec`, on one virtual clock."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import simfaults
import siminvariants
from simattack import Outsider, Victim
from simclock import Clock
from simconfig import anchor_name, anchor_places, mesh_ip, public_key
from simflow import FlowRun, ping
from siminventory import Inventory
from simnode import Node
from simoracle import Oracle, Situation
from simsite import Underlay
from simspec import Flow, WorldSpec
from simstun import StunServer
from simtrace import Trace, watching
from simwatch import Finding, Watch
from simways import Sieve

from meshctl.core.agent.address import Address, NamedEndpoint
from meshctl.core.agent.events import Signal
from meshctl.core.agent.path import State, Trigger
from meshctl.model.keys import PublicKey

if TYPE_CHECKING:
    from simbounds import BeforeIdle
    from simcalm import BeforeCalm
    from simcopyist import Copyist
    from simdriver import Driver

# After all was checked, agents wind up for so long.
_WIND_UP_S = 2.0


class Identity(NamedTuple):
    """A node's name and key."""

    name: str
    public_key: PublicKey


@dataclass(frozen=True)
class Outcome:
    """What came of a world. `digest` is of the whole trace, `course` of all but what was sent that is no question."""

    seed: int
    digest: str
    course: str
    findings: tuple[Finding, ...]
    rows: tuple[tuple[State, Trigger, int], ...]
    text: str
    copies: tuple[tuple[str, int], ...] = ()  # in its twin, what was delivered that should change nothing

    def with_text(self, before: str, *, trace: bool = True) -> Outcome:
        """The same with words before the trace, or instead of it."""
        return replace(self, text="\n".join(filter(None, (before, self.text if trace else ""))))


class World:
    """`World(spec).run()` is all that most callers want."""

    def __init__(self, spec: WorldSpec, *, kept_lines: int = 600) -> None:
        self.spec = spec
        self.clock = Clock()
        self.trace = Trace(kept_lines)
        self.oracle = Oracle()
        underlay = Underlay(self.clock, spec.sites, spec.link, self.dice)
        self.internet, self.nowhere, self.sites = underlay.internet, underlay.nowhere, underlay.sites
        self.identities = [Identity(n.name, public_key(n.name)) for n in spec.nodes]
        self.watch = Watch(self)
        for segment in (self.internet, *(site.inside for site in self.sites.values())):
            segment.on_loss = self.watch.lose
        self.deciding: Driver | None = None
        self.dns_fails: set[str] = set()  # anchors whose names do not resolve
        self.flows: list[FlowRun] = []
        self.before_idle: dict[str, BeforeIdle] = {}  # what was, when idleness began
        self.before_calm: dict[str, BeforeCalm] = {}  # and when all faults had been over for a while
        self.carried: dict[tuple[str, str], list[float]] = {}  # by pair: when packets came in at both ends
        self.doubles: dict[str, Node] = {}
        self.sieves: dict[str, Sieve] = {}
        self.nodes = {n.name: Node(self, n) for n in spec.nodes}
        self.inventory = Inventory(self)
        self.victim = Victim(self)
        self.outsider = Outsider(self) if spec.outsider else None
        self.stun = StunServer(self.internet, spec.stun, self.dice("stun")) if spec.stun else None
        self.copyist: Copyist | None = None  # in a twin

    def dice(self, name: str) -> random.Random:
        """Randomness for one part, so that leaving another part out changes nothing in it."""
        return random.Random(f"{self.spec.seed} {name}")  # noqa: S311

    def run(self) -> Outcome:
        """Run to the end, and check."""
        with watching(self.watch.decision, self.watch.step):
            self._begin()
            siminvariants.schedule(self)
            self.clock.run(self.spec.seconds)
            for flow in self.flows:
                flow.end(self.clock.now)
            siminvariants.at_the_end(self)
            self._wind_up()
            siminvariants.afterwards(self)
        return self._outcome()

    def found(self, invariant: str, who: str, words: str) -> None:
        """Something is not as it must be. The same of the same node is said once."""
        if not any((f.invariant, f.who) == (invariant, who) for f in self.watch.findings):
            finding = Finding(invariant, self.clock.now, who, words)
            self.watch.findings.append(finding)
            self.trace.add(self.clock.now, who, f"FOUND {invariant}: {words}")

    # What hosts ask of it

    def resolve(self, name: NamedEndpoint) -> tuple[Address, ...]:
        """What DNS says."""
        anchor = next((a for a in self.spec.anchors if anchor_name(a) == name), None)
        if anchor is None or anchor.name in self.dns_fails:
            return ()
        return tuple(Address(*p) for p in anchor_places(self.nodes[anchor.name].numbered))

    def move_anchor(self, name: str) -> None:
        """Give an anchor that is off other addresses."""
        self.nodes[name].move()

    def heard_signal(self, node: Node, source: str, data: bytes) -> None:
        """Something came through the tunnel to the signalling port."""
        self.watch.heard(node, data)
        node.give(Signal(source, data))
        if self.copyist is not None:
            self.copyist.heard_signal(node, source, data)

    def add_double(self, name: str, place: str) -> None:
        """Another host with the keys of a node; one at a time."""
        self.remove_double(name)
        double = Node(self, self.nodes[name].spec, f"{name}'")
        double.written = self.nodes[name].written
        self.doubles[name] = double
        double.connect(place)
        double.boot()
        double.start_agent(b"")

    def remove_double(self, name: str) -> None:
        """It goes again."""
        double = self.doubles.pop(name, None)
        if double is not None:
            double.kill_agent()
            double.kernel.up = False
            double.kernel.wg.stop()
            double.disconnect()

    def situation(self) -> Situation:
        """Where everybody is now."""
        sites = ((site.spec, site.router.nat.behaviour) for site in self.sites.values())
        specs = tuple(spec if nat is spec.nat else replace(spec, nat=nat) for spec, nat in sites)
        return Situation(specs, tuple((n.name, n.place) for n in self.nodes.values()), self.spec.nodes)

    def add_flow(self, flow: Flow) -> None:
        """Traffic: pings from one node to another."""
        nested = any(site.carrier for site in self.spec.sites)
        run, number = FlowRun(flow, self.spec.link, nested=nested), len(self.flows)
        self.flows.append(run)
        self.clock.at(flow.starts_at, lambda: self._ping(run, number))

    # Inside

    def _begin(self) -> None:
        for node in self.nodes.values():
            node.kernel.heard = self.outsider.arrived if self.outsider else None
            node.connect(node.place)
            node.boot()
            self.clock.at(node.spec.starts_at, lambda node=node: node.start_agent())
        for flow in self.spec.flows:
            self.add_flow(flow)
        simfaults.schedule(self)

    def _ping(self, run: FlowRun, number: int) -> None:
        flow = run.flow
        if self.clock.now < flow.ends_at:
            data = ping(number, flow.size, one_way=flow.one_way)
            self.nodes[flow.a].kernel.wg.send(mesh_ip(self.spec.node(flow.b)), data)
            self.clock.after(flow.every_s, lambda: self._ping(run, number))

    def _wind_up(self) -> None:
        for kinds in (("node", "malicious"), ("anchor",)):
            for node in self.nodes.values():
                if node.spec.kind in kinds and node.driver is not None and node.driver.alive:
                    node.driver.wind_up()
            self.clock.run(self.clock.now + _WIND_UP_S / 2)

    def _outcome(self) -> Outcome:
        for name in self.nodes:
            self.trace.add(self.clock.now, name, f"{self.watch.asked[name]} questions")
        course = self.trace.digest
        for name, node in self.nodes.items():
            probes, signals = (m[name].total if name in m else 0 for m in (self.watch.of_node, self.watch.signals))
            words = f"{probes} probes, {signals} signals, {node.kernel.tunnel_packets} packets"
            self.trace.add(self.clock.now, name, words)
        rows: Counter[tuple[State, Trigger]] = self.watch.rows
        ordered = sorted(rows.items(), key=lambda row: (row[0][0].value, row[0][1].value))
        return Outcome(
            self.spec.seed, self.trace.digest, course, tuple(self.watch.findings),
            tuple((state, trigger, count) for (state, trigger), count in ordered), self.trace.text(),
        )  # fmt: skip
