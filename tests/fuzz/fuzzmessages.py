"""Messages of peers that have keys: one of each type to begin with, and whatever a fuzzer makes of their fields."""

from __future__ import annotations

from meshctl.core.agent import bodies, fields, signal
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import TYPE_OF, Body, MessageType

_PEER, _TOKEN = b"the peer", bytes(bodies.TOKEN_BYTES)
_FAR = Address("203.0.113.77", 40000)
BODIES: tuple[Body, ...] = (
    bodies.Hello(),
    bodies.HelloAck(1),
    bodies.Offer(
        7, (bodies.Offered("host", _FAR, "0a0b0c0d", bodies.CandidatePriority(5)),), (bodies.NatSummary(4, 1, 1),),
        (bodies.AnchorDistance(_PEER, 20, used=True),), bodies.Wish.DIRECT, 3, 4, userspace=True,
    ),
    bodies.Ack(7),
    bodies.Observed((bodies.Observation(_PEER, _FAR, 3),)),
    bodies.RelayAsk(_PEER),
    bodies.RelayGrant(_PEER, (_FAR,), _TOKEN, 600),
    bodies.RelayRefuse(_PEER, bodies.RefuseReason.FULL, 5),
    bodies.RelayRefresh(_PEER, _TOKEN),
    bodies.RelayRelease(_PEER, _TOKEN),
    bodies.Splice(1, 64),
)  # fmt: skip
_OF_TYPE = {TYPE_OF[type(body)]: body for body in BODIES}
_TYPES = tuple(MessageType)


def kind(number: int) -> MessageType:
    """The type that a byte of a fuzzer's stands for: any byte stands for one."""
    return _TYPES[number % len(_TYPES)]


def number(body: Body) -> int:
    """The byte that stands for the body's type."""
    return _TYPES.index(TYPE_OF[type(body)])


def unsigned(header: signal.Header, written: bytes) -> bytes:
    """A message without its tag: this header, and these bytes where its fields belong."""
    body = _OF_TYPE[header.kind]
    whole = signal.encode(header, body, b"")
    return whole[: -signal.TAG_BYTES - len(fields.write(body))] + written


def messages(header: signal.Header) -> tuple[bytes, ...]:
    """One of each type under that header, without tags."""
    return tuple(unsigned(header._replace(kind=TYPE_OF[type(body)]), fields.write(body)) for body in BODIES)
