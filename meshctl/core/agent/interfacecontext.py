"""What the paths of one interface have in common: where this node stands, and how they act."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from meshctl.core.agent.address import Address, LocalAddress, refusal
from meshctl.core.agent.anchorlink import AnchorLink
from meshctl.core.agent.bodies import Body, NatSummary
from meshctl.core.agent.candidates import LocalCandidates
from meshctl.core.agent.config import InterfaceConfig, PeerConfig
from meshctl.core.agent.events import Action, SendProbe
from meshctl.core.agent.lifetime import MappingLifetime
from meshctl.core.agent.nat import NatKnowledge
from meshctl.core.agent.probes import Transactions
from meshctl.core.wire import stun

# Between two checks of one node, whatever the number of its peers: 500 a second are 60 kB/s, and RFC 8445 section 14.2
# wants 5 ms for each stream of an agent that has a few.
GAP_S = 0.002
# Who comes so much later than its time has been held up, with all others, and waits for another one. Longer than a busy
# machine is late; at most MISSED_S / GAP_S = 25 checks leave together after that.
MISSED_S = 0.05

# How long what is known of the NATs is not looked up anew, unless something has changed.
SUMMARY_S = 5.0

# What else than a peer can be touched (`InterfaceContext.touch`): where this node is seen, what an anchor does for
# others, and how long the NAT keeps mappings.
GATHER, DUTY, SILENCE = b"gather", b"duty", b"silence"

# What takes the answer to a request: the message, the pair's local and remote address, now. Whether it is authentic:
# what is not counts as never received (RFC 8489 section 9.1.4).
Answered = Callable[[stun.Received, Address, Address, float], bool]


@dataclass
class Pace:
    """One for a whole node: the time from which the next check may be sent."""

    free_at: float = 0.0

    def reserve(self, now: float) -> float:
        """When a check may leave that is due now. Each caller has a time of its own: of hundreds that wait, one is
        woken at a time."""
        send_at = max(self.free_at, now)
        self.free_at = send_at + GAP_S
        return send_at


class SendSlot:
    """One peer's time in the node's pace, while a check with it is due."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._send_at: float | None = None

    def reserve(self, due: float | None, now: float) -> None:
        """A check is `due` then, None: none is. It leaves at the node's pace; one that is answered meanwhile does not.
        A time that was missed counts no more: those who miss theirs together are not to go together."""
        if due is None or due > now:
            self._send_at = None
        elif self._send_at is None or now > self._send_at + MISSED_S:
            self._send_at = self._pace.reserve(now)

    def not_before(self, due: float | None) -> float | None:
        """When the check that is `due` then can leave."""
        return due if due is None or self._send_at is None else max(due, self._send_at)

    def take(self, now: float) -> bool:
        """Whether the check may leave now; then it does, and the next one needs a time of its own."""
        if self._send_at is None or now < self._send_at:
            return False
        self._send_at = None
        return True


@dataclass
class InterfaceContext:
    """What is the same for all paths of one interface. `act` has an action done; `probe` sends a request and says what
    takes its answer; `say` tells a peer something by signalling, if there is a session with it; `touch` says, by the
    peer's id, that its timers or offer may have changed; `my_session` gives this node's own session with a peer, by
    the peer's id."""

    config: InterfaceConfig
    own: LocalCandidates
    dice: random.Random
    pace: Pace
    act: Callable[[Action], None]
    probe: Callable[[SendProbe, Answered], None]
    say: Callable[[PeerConfig, Body, float], None]
    touch: Callable[[bytes], None]
    my_session: Callable[[bytes], bytes]
    hosts: tuple[LocalAddress, ...] = ()
    gateways: tuple[str, ...] = ()
    anchors: dict[bytes, AnchorLink] = field(default_factory=dict)  # by id

    def __post_init__(self) -> None:
        self._summary: tuple[object, tuple[NatSummary, ...]] = (None, ())
        self.lifetime = MappingLifetime(self.config.keepalive_s)
        self.nat = NatKnowledge(self.config.listen_port)
        self.transactions = Transactions(self.dice)

    def configure(self, config: InterfaceConfig) -> None:
        """The inventory says this of the interface."""
        self.config = config
        self.own.set_ranges(config.mesh_ranges)
        self.lifetime.configure(config.keepalive_s)

    @property
    def bases(self) -> tuple[Address, ...]:
        """The tunnel's port at the best own address of each family."""
        return tuple(base for base in (self.own.base(4), self.own.base(6)) if base is not None)

    def is_relay(self, address: Address) -> bool:
        """Whether an anchor relays there, or has."""
        return any(link.relays_at(address) for link in self.anchors.values())

    def refuses(self, address: Address) -> bool:
        """Whether that is nobody's endpoint: inside the mesh's ranges, for one."""
        return bool(refusal(*address, self.config.mesh_ranges))

    def relay_places(self, anchor: bytes, granted: tuple[Address, ...]) -> tuple[Address, ...]:
        """Where this node reaches an anchor's relay; () if the anchor names no address that can be an endpoint."""
        link = self.anchors.get(anchor)
        places = (link.relay_at(at) if link is not None else at for at in granted if not self.refuses(at))
        return tuple(dict.fromkeys(at for at in places if not self.refuses(at)))

    def nat_summary(self, now: float) -> tuple[NatSummary, ...]:
        """What is known of this node's NATs, for offers and splices; what has become too old counts a while longer."""
        key = (self.nat.version, self.bases, now // SUMMARY_S)
        if self._summary[0] != key:
            self._summary = (key, self.nat.summary(self.bases, now))
        return self._summary[1]
