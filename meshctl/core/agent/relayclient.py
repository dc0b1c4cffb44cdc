"""A node's side of relays: at which anchors, bound from its tunnel's own port, one in use and one kept warm.

The controlling end asks the two nearest anchors; each tells both ends of its port. Both bind, and when an anchor says
that both have, its relay is ready. So an end never moves to a relay that the other has not heard of.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Union

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import RelayAsk, RelayGrant, RelayRefresh, RelayRefuse, RelayRelease
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import SendProbe
from meshctl.core.wire import stun
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256

# The one in use, and one for when its anchor dies.
WANTED_ANCHORS = 2
# An anchor is as near as another unless its round trip is shorter by this: leases do not wander for less.
MARGIN_S = 0.015
# What was asked and not answered is asked again; another anchor is taken after so many times.
ASK_AGAIN_S = 1.0
MAX_ASKED = 3
# Binds until the relay is ready: a round trip each, but slower when the other end takes its time.
BIND_AGAIN_S = (0.05, 0.1, 0.2, 0.4, 0.8)
# So many binds in one family, when there are two, before the other one is tried.
BINDS_OF_FAMILY = 4
# Binds that keep the NAT's mapping to the port and show that the anchor lives.
REBIND_S = 20.0
# So many in a row may be lost.
MAX_UNANSWERED = 3
# How long before its end a lease is renewed, as a share of its lifetime.
RENEW_SHARE = 0.5


class Say(NamedTuple):
    """A message for an anchor."""

    anchor: PeerConfig
    body: RelayAsk | RelayRefresh | RelayRelease


class Ready(NamedTuple):
    """Both ends are bound there: `peer` can be reached at `relay`. The best of those that are ready."""

    peer: PeerConfig
    relay: Address


class Lost(NamedTuple):
    """No relay to `peer` is ready any more."""

    peer: PeerConfig


Output = Union[Say, SendProbe, Ready, Lost]


@dataclass
class _Lease:
    """One peer's relay at one anchor. `due_at` is the next thing to say or send."""

    anchor: PeerConfig
    asked: int = 0
    due_at: float = 0.0
    token: bytes = b""
    relay: tuple[Address, ...] = ()
    bound: Address | None = None  # where the last bind went
    renew_at: float = 0.0
    binds: int = 0
    ready: bool = False
    refused_until: float = 0.0

    @property
    def granted(self) -> bool:
        return bool(self.token)


class RelayClient:
    """The relays to one peer. `base` is the tunnel's own address and port in each family that this node has."""

    def __init__(self, peer: PeerConfig, *, controlling: bool, dice: random.Random) -> None:
        self._peer = peer
        self._controlling = controlling
        self._dice = dice
        self._leases: dict[bytes, _Lease] = {}
        self._wanted = False
        self._used: Address | None = None
        self._rtts: dict[bytes, float] = {}
        self._open: dict[bytes, bytes] = {}  # transaction -> anchor
        self._outputs: list[Output] = []

    def outputs(self) -> Iterator[Output]:
        """What is to be said, sent and known, once."""
        found, self._outputs = self._outputs, []
        return iter(found)

    @property
    def ready(self) -> Address | None:
        """The relay that can be used at once."""
        return self._used

    def want(self, anchors: Mapping[bytes, tuple[PeerConfig, float]], now: float) -> None:
        """Have relays at the nearest of these anchors, which are up: id -> (anchor, round-trip seconds).

        Called again when one comes, goes, or has been measured anew.
        """
        self._wanted = True
        self._rtts = {anchor: rtt for anchor, (_, rtt) in anchors.items()}
        for anchor in [a for a in self._leases if a not in anchors]:
            del self._leases[anchor]
        if self._controlling:
            held = [a for a, lease in self._leases.items() if lease.refused_until <= now]
            for anchor in self._nearest(anchors, held, now):
                self._leases.setdefault(anchor, _Lease(anchors[anchor][0], due_at=now))
        self._settle()

    def release(self) -> None:
        """Have none any more: the direct path has proved itself."""
        for _, lease in sorted(self._leases.items()):
            if lease.granted:
                self._outputs.append(Say(lease.anchor, RelayRelease(self._peer.id, lease.token)))
        self._leases.clear()
        self._open.clear()
        self._wanted, self._used = False, None

    def due(self) -> float | None:
        """When `poll` has something to do."""
        return min((lease.due_at for lease in self._leases.values()), default=None)

    def poll(self, bases: tuple[Address, ...], now: float) -> None:
        """Say and send what is due, from this node's `bases`: the tunnel's port at one address of each family."""
        for anchor, lease in sorted(self._leases.items()):
            if lease.due_at > now:
                continue
            if not lease.granted:
                self._ask(lease, now)
            else:
                self._renew_and_bind(anchor, lease, bases, now)
        self._settle()

    def granted(self, anchor: PeerConfig, grant: RelayGrant, now: float) -> None:
        """An anchor's port for this peer, asked for by either end."""
        if not (self._wanted or not self._controlling):
            return
        lease = self._leases.setdefault(anchor.id, _Lease(anchor))
        if lease.token != grant.token or lease.relay != grant.relay:
            lease.token, lease.relay, lease.ready, lease.binds, lease.due_at = grant.token, grant.relay, False, 0, now
        lease.renew_at = now + RENEW_SHARE * grant.lifetime_s
        lease.asked = 0
        self._settle()

    def refused(self, anchor: PeerConfig, refusal: RelayRefuse, now: float) -> None:
        """No relay there, for now or ever; a lease that the anchor has forgotten is asked for again."""
        lease = self._leases.get(anchor.id)
        if lease is None:
            return
        had = lease.granted
        again = now if had else now + refusal.retry_s if refusal.retry_s else inf
        self._leases[anchor.id] = _Lease(anchor, due_at=again, refused_until=again)
        self._settle()

    def answered(self, message: stun.Message, now: float) -> bool:
        """An anchor's authentic answer to a bind; whether it was one of ours."""
        anchor = self._open.pop(message.transaction, None)
        lease = self._leases.get(anchor) if anchor is not None else None
        if lease is None:
            return False
        lease.ready = message.message_class is stun.Class.SUCCESS
        if lease.ready:
            lease.binds = 0
            lease.due_at = now + REBIND_S
        self._settle()
        return True

    def token_of(self, transaction: bytes) -> bytes | None:
        """The key of the answer to this bind."""
        lease = self._leases.get(self._open.get(transaction, b""))
        return lease.token if lease else None

    # Inside

    def _nearest(
        self, anchors: Mapping[bytes, tuple[PeerConfig, float]], held: list[bytes], now: float
    ) -> list[bytes]:
        """The anchors to have relays at: those that are held count as nearer by the margin."""

        def distance(anchor: bytes) -> tuple[float, bytes]:
            return anchors[anchor][1] - (MARGIN_S if anchor in held else 0.0), anchor

        open_ = [a for a in anchors if a not in self._leases or self._leases[a].refused_until <= now]
        return sorted(open_, key=distance)[:WANTED_ANCHORS]

    def _ask(self, lease: _Lease, now: float) -> None:
        if lease.asked >= MAX_ASKED:
            lease.asked, lease.refused_until = 0, now + ASK_AGAIN_S * MAX_ASKED
            lease.due_at = lease.refused_until
            return
        lease.asked += 1
        lease.due_at = now + ASK_AGAIN_S
        self._outputs.append(Say(lease.anchor, RelayAsk(self._peer.id)))

    def _renew_and_bind(self, anchor: bytes, lease: _Lease, bases: tuple[Address, ...], now: float) -> None:
        if lease.renew_at <= now:
            lease.renew_at = now + ASK_AGAIN_S
            self._outputs.append(Say(lease.anchor, RelayRefresh(self._peer.id, lease.token)))
        if lease.ready and lease.binds >= MAX_UNANSWERED:
            lease.ready = False
        step = min(lease.binds, len(BIND_AGAIN_S) - 1)
        lease.binds += 1
        lease.due_at = now + BIND_AGAIN_S[step]
        pairs = [(base, relay) for relay in lease.relay for base in bases if base.family == relay.family]
        if not pairs:
            return
        # The two ends must meet in one family: the anchor forwards within one alone.
        pair = pairs[lease.binds // BINDS_OF_FAMILY % len(pairs)]
        if lease.ready:
            pair = next((p for p in pairs if p[1] == lease.bound), pair)
        lease.bound = pair[1]
        transaction = self._dice.getrandbits(96).to_bytes(12, "big")
        for old in [t for t, a in self._open.items() if a == anchor][: -MAX_UNANSWERED - 1]:
            del self._open[old]
        self._open[transaction] = anchor
        request = stun.Message(stun.Class.REQUEST, transaction, username=lease.token.hex())
        data = stun.encode(request, lease.token, integrity=(MESSAGE_INTEGRITY_SHA256,))
        self._outputs.append(SendProbe(pair[0], pair[1], data))

    def _settle(self) -> None:
        """Say which relay is to be used, when that is another one than before."""
        ready = {
            lease.bound: self._rtts.get(anchor, inf)
            for anchor, lease in self._leases.items()
            if lease.ready and lease.bound is not None
        }
        best = min(ready, key=lambda place: (ready[place], place), default=None)
        if best is not None and self._used in ready and ready[self._used] - ready[best] <= MARGIN_S:
            best = self._used
        if best == self._used:
            return
        self._used = best
        self._outputs.append(Ready(self._peer, best) if best is not None else Lost(self._peer))
