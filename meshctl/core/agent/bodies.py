"""What signalling messages say, one frozen class for each type. `fields` has their bytes, `signal` the header."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType, Union

from meshctl.core.agent.address import Address


class SignalError(ValueError):
    """A signalling message that cannot be read or written; says in a few words why, and nothing of its content."""


class MessageType(IntEnum):
    """The header's type byte."""

    HELLO = 1
    HELLO_ACK = 2
    OFFER = 3
    ACK = 4
    OBSERVED = 5
    RELAY_ASK = 6
    RELAY_GRANT = 7
    RELAY_REFUSE = 8
    RELAY_REFRESH = 9
    RELAY_RELEASE = 10
    SPLICE = 11


# What a candidate is worth, as its owner tells it: in offers and as PRIORITY in checks (RFC 8445 section 5.1.2). What a
# pair is worth is another number (`check.Rank`).
CandidatePriority = NewType("CandidatePriority", int)

TOKEN_BYTES = 16
# How many candidates of one node a message carries: 32 of IPv6 with all the rest of an offer take 1,173 of 1,200 bytes.
MAX_OFFERED = 32
# How many anchors an offer names.
MAX_DISTANCES = 8
MAX_RTT_MS = 2**16 - 1
MAX_PRIORITY = 2**31 - 1  # RFC 8445 section 5.1.2
# Candidate kinds by their number on the wire.
KIND_NUMBERS = {"host": 1, "srflx": 2, "observed": 3, "mapped": 4, "prflx": 5, "static": 6, "relay": 7, "told": 8}


class RefuseReason(IntEnum):
    """Why an anchor does not relay."""

    NOT_PERMITTED = 1
    FULL = 2
    UNKNOWN = 3  # no such allocation (any more): ask again


class Wish(IntEnum):
    """What an operator wants for a pair (`config.OVERRIDES`), as the one end tells the other."""

    NONE = 0
    RELAY = 1
    DIRECT = 2
    PREFER_RELAY = 3


WISHES = {"": Wish.NONE, "relay": Wish.RELAY, "direct": Wish.DIRECT, "prefer-relay": Wish.PREFER_RELAY}


@dataclass(frozen=True)
class Offered:
    """A candidate as it is told to the peer. `foundation` is 8 hex digits."""

    kind: str
    address: Address
    foundation: str
    priority: CandidatePriority


@dataclass(frozen=True)
class NatSummary:
    """What a node knows of the NAT in front of it in one family; numbers as in `nat.Mapping` and `nat.Filtering`.

    `port_step` is what a NAT with sequential allocation adds from one mapping to the next, 0: not known.
    """

    family: int
    mapping: int
    filtering: int
    port_step: int = 0


@dataclass(frozen=True)
class AnchorDistance:
    """How far an anchor is from the sender; `used`: its relay carries the sender's packets to the receiver."""

    anchor: bytes
    rtt_ms: int
    used: bool = False


@dataclass(frozen=True)
class Observation:
    """WireGuard's endpoint of the node with this id, as the sender sees it, and how old that is."""

    node: bytes
    address: Address
    age_s: int


@dataclass(frozen=True)
class Hello:
    """Asks the peer for its session; the header says all."""


@dataclass(frozen=True)
class HelloAck:
    """Answers the HELLO of that sequence number."""

    answers: int


@dataclass(frozen=True)
class Offer:
    """All candidates of a node; a newer generation takes the place of an older one.

    `relays` names at most `MAX_DISTANCES` anchors, each once, and at most one as used. `restart` is another number
    than before when all pairs are to be checked anew, by both ends at once, as by RFC 8445 section 9. `blocked` is
    another one, and not 0, when the sender gives the pair in use up though its checks are answered: WireGuard's packets
    do not come through. `userspace`: the sender's WireGuard is not in the kernel, and has no session with
    the receiver.
    """

    generation: int
    candidates: tuple[Offered, ...] = ()
    nat: tuple[NatSummary, ...] = ()
    relays: tuple[AnchorDistance, ...] = ()
    wish: Wish = Wish.NONE
    restart: int = 0
    blocked: int = 0
    userspace: bool = False


NO_OFFER = 0


@dataclass(frozen=True)
class Ack:
    """The newest generation that has arrived; `NO_OFFER`: none, so that it is to be said again."""

    generation: int


@dataclass(frozen=True)
class Observed:
    """An anchor's view of the endpoints of the receiver, and of clients that it may reach."""

    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class RelayAsk:
    """Asks an anchor for a relay port to this peer."""

    peer: bytes


@dataclass(frozen=True)
class RelayGrant:
    """The anchor's relay to this peer; both ends of a pair get one, with a token each for their bind probes."""

    peer: bytes
    relay: tuple[Address, ...]  # one for each family
    token: bytes
    lifetime_s: int


@dataclass(frozen=True)
class RelayRefuse:
    """No relay to this peer at this anchor; `retry_s` 0: not with the configuration that the anchor has."""

    peer: bytes
    reason: RefuseReason
    retry_s: int = 0


@dataclass(frozen=True)
class RelayRefresh:
    """Asks for the whole lifetime again; answered by a grant."""

    peer: bytes
    token: bytes


@dataclass(frozen=True)
class RelayRelease:
    """The relay is not needed any more."""

    peer: bytes
    token: bytes


@dataclass(frozen=True)
class Splice:
    """The sender, behind a hard NAT, has so many ports open towards the receiver, who may try to hit one of them.

    Said again with the same `attempt` until it is heard.
    """

    attempt: int
    ports: int


Body = Union[
    Hello, HelloAck, Offer, Ack, Observed, RelayAsk, RelayGrant, RelayRefuse, RelayRefresh, RelayRelease, Splice
]
TYPE_OF = {
    Hello: MessageType.HELLO,
    HelloAck: MessageType.HELLO_ACK,
    Offer: MessageType.OFFER,
    Ack: MessageType.ACK,
    Observed: MessageType.OBSERVED,
    RelayAsk: MessageType.RELAY_ASK,
    RelayGrant: MessageType.RELAY_GRANT,
    RelayRefuse: MessageType.RELAY_REFUSE,
    RelayRefresh: MessageType.RELAY_REFRESH,
    RelayRelease: MessageType.RELAY_RELEASE,
    Splice: MessageType.SPLICE,
}
