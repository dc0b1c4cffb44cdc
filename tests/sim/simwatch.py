"""Looks on while a world runs: counts, and speaks up at once where a single act is already wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from simattack import OUTSIDER_IP
from simconfig import pair_key
from simtrace import Meter
from simtries import ATTEMPT_S
from simwg import handshake_of

from meshctl.core.agent import events as ev
from meshctl.core.agent import signal
from meshctl.core.agent.bodies import MessageType, SignalError
from meshctl.core.agent.config import node_id
from meshctl.core.agent.history import Decision, History
from meshctl.core.agent.network import INSISTING
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.state import load
from meshctl.core.wire import stun

if TYPE_CHECKING:
    from simnet import Packet
    from simnode import Node
    from simworld import World

_Noted = TypeVar("_Noted")
_MAX_NOTED = 20_000
# So long a host may sleep while its agent tries a splice.
_ASLEEP_S = 15.0
# The message type that a STUN request begins with; and how USE-CANDIDATE and ICE-CONTROLLED begin, which have 0 and 8
# bytes (RFC 8445 section 16.1).
BINDING_REQUEST = (stun.BINDING | stun.Class.REQUEST).to_bytes(2, "big")
_MARKS = (bytes.fromhex("00250000"), bytes.fromhex("80290008"))


class Finding(NamedTuple):
    """An invariant that does not hold: which, when, at whom, and how."""

    invariant: str
    at: float
    who: str
    words: str

    def __str__(self) -> str:
        return f"{self.at:8.3f}  {self.who}: {self.invariant}: {self.words}"


class Decided(NamedTuple):
    """One decision of an agent about a peer, in the world's time."""

    at: float
    node: str
    peer: str
    decision: Decision


class Moved(NamedTuple):
    """An agent gave a peer another endpoint."""

    at: float
    node: str
    peer: str
    address: tuple[str, int]


class Watch:
    """What was seen of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.findings: list[Finding] = []
        self.rows: Counter[tuple[State, Trigger]] = Counter()
        self.decided: list[Decided] = []
        self.moved: list[Moved] = []
        self.relayed: dict[tuple[str, int], float] = {}  # anchor and port: when it was last to forward there
        self.installed: Counter[str] = Counter()  # by anchor: how often
        self.starts: Counter[str] = Counter()  # by the name whose keys it has: how often an agent was started
        self.woken: Counter[str] = Counter()  # by node: how often a timer of its agent rang
        self.insisted: Counter[str] = Counter()  # and of these, to set an endpoint again that was just set
        self.asked: Counter[str] = Counter()  # by node: how many questions its checks were
        self.readings: dict[str, Meter] = defaultdict(Meter)  # by node: of WireGuard
        self.lost: dict[bytes, list[float]] = defaultdict(list)  # by secret: when links lost a message of a handshake
        self._set: dict[tuple[str, str], tuple[str, int]] = {}
        self.of_node: dict[str, Meter] = {}
        self.unspliced: dict[str, Meter] = {}  # as `of_node`, but for what leaves while the node tries a splice
        self._splices_until: dict[str, float] = {}  # by node
        self.of_path: dict[str, Meter] = {}
        self.signals: dict[str, Meter] = {}
        self._peers_of: dict[int, tuple[History, str]] = {}
        self._pairs = frozenset(world.spec.pairs)
        self._anchors = frozenset(a.name for a in world.spec.anchors)
        self._names = {node_id(n.public_key): n.name for n in world.identities}

    def lose(self, packet: Packet) -> None:
        """A link has lost a packet."""
        secret = handshake_of(packet.data)
        if secret is not None:
            self.lost[secret].append(self._world.clock.now)

    def read(self, node: Node) -> None:
        """An agent asks what WireGuard counts."""
        self.readings[node.name].add(None, self._world.clock.now)

    def wake(self, node: Node, reason: str) -> None:
        """A timer of an agent's rings."""
        self.woken[node.name] += 1
        self.insisted[node.name] += reason == INSISTING

    def probe(self, node: Node, action: ev.SendProbe) -> None:
        """A check leaves."""
        now = self._world.clock.now
        self.of_node.setdefault(node.name, Meter()).add(None, now)
        if now > self._splices_until.get(node.name, -1.0):
            self.unspliced.setdefault(node.name, Meter()).add(None, now)
        self.asked[node.name] += action.data[:2] == BINDING_REQUEST
        self.of_path.setdefault(node.name, Meter()).add((action.local, action.remote), now)
        if node.spec.kind != "malicious" and _wants_what_is_not_its_own(action.data):
            self._world.found("only the controlling side nominates", node.name, f"{action.remote}")

    def signal(self, node: Node, action: ev.SendSignal) -> None:
        """A signalling message leaves, this node's own or another's."""
        self.signals.setdefault(node.name, Meter()).add(None, self._world.clock.now)
        if node.spec.kind == "malicious":
            return
        try:
            header = signal.peek(action.data)
        except SignalError:
            return
        ends = self._ends(header)
        if header.kind is MessageType.OFFER and not _may_meet(node, *ends):
            self._unpermitted(node, f"sends an offer of {ends[0]} to {ends[1]}")
        if ends[0] != node.spec.name and not _may_meet(node, *ends):  # of whatever is said
            self._world.found("forwarded for who may not", node.name, f"{ends[0]} to {ends[1]}")
        if ends[0] == node.spec.name and node.spec.kind == "anchor" and header.kind is MessageType.OBSERVED:
            self._observed(node, action.data, ends)

    def _observed(self, node: Node, data: bytes, ends: tuple[str, str]) -> None:
        """Where a client is, is told to whom it may reach."""
        for observation in signal.decode(data, pair_key(*ends)).body.observations:
            client = self._names.get(observation.node, "a stranger")
            if client != ends[1] and not _may_meet(node, client, ends[1]):
                self._world.found("a client is shown to who may not reach it", node.name, f"{client} to {ends[1]}")

    def heard(self, node: Node, data: bytes) -> None:
        """A signalling message came in. Nothing but permitted pairs ever exchanges candidates."""
        if len(data) < 4 or data[3] != MessageType.OFFER or node.spec.kind == "malicious":
            return
        try:
            header = signal.peek(data)
        except SignalError:
            return
        ends = self._ends(header)
        if ends[1] == node.spec.name and signal.authentic(data, pair_key(*ends)) and not self._ever_meet(*ends):
            self._unpermitted(node, f"was handed an offer of {ends[0]} to {ends[1]}")

    def _ends(self, header: signal.Header) -> tuple[str, str]:
        """Who says it, and to whom."""
        return self._names.get(header.source, "a stranger"), self._names.get(header.destination, "a stranger")

    def _unpermitted(self, node: Node, words: str) -> None:
        self._world.found("candidates of unpermitted pairs", node.name, words)

    def _ever_meet(self, a: str, b: str) -> bool:
        return a in self._anchors or b in self._anchors or (min(a, b), max(a, b)) in self._pairs

    def endpoint(self, node: Node, peer: str, address: tuple[str, int]) -> None:
        """An agent gives a peer an endpoint; the same one again and again for a while."""
        if self._set.get((node.name, peer)) == tuple(address):
            return
        self._set[node.name, peer] = tuple(address)
        now = self._world.clock.now
        node.say(f"endpoint of {peer}: {address[0]} port {address[1]}")
        self._note(self.moved, Moved(now, node.name, peer, tuple(address)))
        if peer in self._world.nodes and self._world.nodes[peer].spec.is_fixed:
            self._world.found("a fixed endpoint is changed", node.name, f"{peer} shall be at {address[0]}")
        if address[0] == OUTSIDER_IP or address[0].startswith("10.42."):
            self._world.found("endpoint of nobody's", node.name, f"{peer} shall be at {address[0]}")

    def relay(self, node: Node, action: ev.InstallRelay) -> None:
        """An anchor's kernel is to forward."""
        self.relayed[node.name, action.port] = self._world.clock.now
        self.installed[node.name] += 1
        node.say(f"relay {action.port} between {action.a} and {action.b}")
        if OUTSIDER_IP in (action.a.ip, action.b.ip):
            self._world.found("replay moves a relay", node.name, f"port {action.port} now leads to an outsider")

    def reconfigured(self, node: Node) -> None:
        """An agent has read another document: whom that does not have, it has forgotten at once."""
        kept, keys = load(node.saved), {p.public_key: p.name for n in node.runs.networks for p in n.peers}
        for path in kept.paths:
            if path.peer not in keys:
                self._world.found("a path outlives its peer", node.name, node.peer_name(path.peer))
        for relay in kept.relays:
            ends = [node.peer_name(end.peer) for end in (relay.a, relay.b)]
            if not _may_meet(node, *ends):
                self._world.found("a relay outlives its pair", node.name, f"port {relay.port} for {' and '.join(ends)}")
        before = node.driver.relays_before if node.driver is not None else set()
        for port in sorted(node.kernel.relays.keys() - before - {relay.port for relay in kept.relays}):
            self._world.found("a relay outlives its pair", node.name, f"port {port}, of which nothing is known")
        for text in sorted(node.kernel.opened.keys() - {key.text for key in keys}):
            if node.kernel.opened[text]:
                self._world.found("open ports outlive their peer", node.name, f"{len(node.kernel.opened[text])}")

    def step(self, state: State, trigger: Trigger) -> None:
        """A row of the table was taken."""
        self.rows[state, trigger] += 1

    def decision(self, history: History, decision: Decision) -> None:
        """An agent has decided."""
        driver = self._world.deciding
        if driver is None or driver.node.spec.kind == "malicious":
            return
        node = driver.node
        peer = self._peer(node, history)
        if decision.before is not decision.after:
            words = f"{peer}: {decision.before.value} → {decision.after.value}: {decision.reason}"
            node.say(words)
            if decision.after is State.SPLICING:  # one at a time: there is one slot for all peers
                for end in (node.name, peer):  # one opens ports, and the other may answer from before it has heard
                    self._splices_until[end] = self._world.clock.now + ATTEMPT_S + _ASLEEP_S
            elif decision.before is State.SPLICING:
                self._splices_until.pop(node.name, None)
        self._note(self.decided, Decided(self._world.clock.now, node.name, peer, decision))

    def _note(self, notes: list[_Noted], note: _Noted) -> None:
        """For those invariants that are asked of all that there was."""
        if len(notes) < _MAX_NOTED:
            notes.append(note)
        else:
            self._world.found("more happened than is noted", "all", f"than {_MAX_NOTED}")

    def _peer(self, node: Node, history: History) -> str:
        known = self._peers_of.get(id(history))
        if known is None:
            newest = history.decisions[-1]
            peers = (p for p in node.peers() if any(d is newest for d in node.history(p)[-1:]))
            known = self._peers_of[id(history)] = (history, next(peers, "?"))
        return known[1]


def _wants_what_is_not_its_own(data: bytes) -> bool:
    """Whether a check nominates and says that its sender does not control (RFC 8445 section 8.1.1)."""
    if not all(mark in data for mark in _MARKS):  # parsed where it may be so: there are many checks
        return False
    message = stun.decode(data).message
    return message.use_candidate and message.ice_controlled is not None


def _may_meet(node: Node, a: str, b: str) -> bool:
    """Whether the document that the node's agent has read lets the two meet."""
    peers = {p.name: p for network in node.runs.networks for p in network.peers}
    mine = [peers.get(name) for name in (a, b) if name != node.spec.name]
    if None in mine:
        return False
    if len(mine) < 2:
        return any(n.is_anchor for n in node.runs.networks) or any(p.is_anchor or p.permitted for p in mine)
    one, other = mine
    return one.is_anchor or other.is_anchor or (b in one.reaches and a in other.reaches)
