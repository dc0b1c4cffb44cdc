"""A node's side of relays: at which anchors, bound from its tunnel's own port, one in use and one kept warm.

The controlling end asks the two nearest anchors; each tells both ends of its port. Both bind, and when an anchor says
that both have, its relay is ready. So an end never moves to a relay that the other has not heard of. Which one is used
is decided by the controlling end, from both ends' distances; the other takes the same as soon as it can.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from math import inf

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import (
    AnchorDistance,
    RefuseReason,
    RelayAsk,
    RelayGrant,
    RelayRefresh,
    RelayRefuse,
    RelayRelease,
)
from meshctl.core.agent.choice import Budget
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.relaybinds import Binds
from meshctl.core.agent.relaychoice import Distances
from meshctl.core.agent.relaylease import IDLE_GAP_S, REBIND_S, Lease
from meshctl.core.agent.relayoutputs import Lost, Output, Ready, Say
from meshctl.core.wire import stun

# The one in use, and one for when its anchor dies.
WANTED_ANCHORS = 2
# A relay that was bound to less than this ago needs no check when it is taken into use.
FRESH_S = 1.0


class RelayClient:
    """The relays to one peer. Drain `outputs` after every call."""

    def __init__(self, peer: PeerConfig, *, controlling: bool, binds: Binds) -> None:
        self._peer = peer
        self._controlling = controlling
        self._distances = Distances()
        self._changes = Budget()
        self._binds = binds
        self._leases: dict[bytes, Lease] = {}
        self._wanted = False
        self._preferred: bytes | None = None
        self._peer_uses: bytes | None = None
        self._used: bytes | None = None
        self._place: Address | None = None
        self._idle_until = -inf
        self._now = -inf  # the latest that was heard of
        self._outputs: list[Output] = []

    # What is known

    def outputs(self) -> Iterator[Output]:
        """What is to be said, sent and known, once."""
        found, self._outputs = self._outputs, []
        return iter(found)

    @property
    def wanted(self) -> bool:
        """Whether relays are wanted at this end."""
        return self._wanted

    @property
    def ready(self) -> Address | None:
        """The relay that can be used at once."""
        return self._place

    @property
    def used_anchor(self) -> PeerConfig | None:
        """Whose relay that is."""
        return self._leases[self._used].anchor if self._used is not None else None

    def is_at(self, address: Address) -> bool:
        """Whether an anchor relays there for this pair."""
        return any(address in lease.relay for lease in self._leases.values())

    def is_warm(self, address: Address) -> bool:
        """Whether another anchor relays there than the one whose relay is ready and in use."""
        used = self._leases[self._used].relay if self._used is not None else ()
        return self._place is not None and address not in used and self.is_at(address)

    def distances(self) -> tuple[AnchorDistance, ...]:
        """For the offer: the nearest anchors, that of the relay in use first."""
        return self._distances.told(self._used)

    def due(self) -> float | None:
        """When `poll` has something to do."""
        when = min([lease.due for lease in self._leases.values()], default=inf)
        return when if when < inf else None

    def token_of(self, transaction: bytes) -> bytes | None:
        """The key of the answer to this bind."""
        return self._binds.token(transaction)

    # What is wanted

    def want(
        self, anchors: Mapping[bytes, tuple[PeerConfig, float]], peer_rtts: Mapping[bytes, float], now: float
    ) -> None:
        """Have relays at the nearest of these anchors, which are up: id -> (anchor, round-trip seconds).

        `peer_rtts` are the peer's round trips, as its offer has them. Called again when something of this has changed.
        An anchor to which there never was a tunnel may be known by a family that this node does not have, and have the
        other one too: what it grants, by way of another anchor, is bound to all the same.
        """
        self._wanted, self._now = True, now
        fallen = [anchor for anchor in self._leases if anchor in self._distances and anchor not in anchors]
        self._distances.set(anchors, peer_rtts)
        for anchor, lease in sorted(self._leases.items()):
            if anchor in anchors:
                if not lease.up:
                    lease.up = True
                    self._doubt(lease, now, ask=self._controlling and lease.refused_until == -inf)
            elif not lease.token or now >= lease.expires_at:
                del self._leases[anchor]
            elif anchor in fallen:
                lease.down()
        self._choose(now)
        self._settle()

    def keep(self, anchors: Container[bytes], now: float) -> None:
        """The others are no anchors any more: their relays end, and there is nobody to whom anything could be said of
        them."""
        self._now = now
        self._distances.keep(anchors)
        self._leases = {anchor: lease for anchor, lease in self._leases.items() if anchor in anchors}
        if self._used not in self._leases:
            self._used = None
        self._choose(now)
        self._settle()

    def prefer(self, anchor: bytes | None) -> None:
        """The anchor whose relay the peer says that it uses. The controlling end decides, the other end follows.

        A relay that the peer begins to use is bound at both ends: if this one does not know, the answer was lost.
        """
        lease = self._leases.get(anchor) if anchor is not None and anchor != self._peer_uses else None
        if lease is not None and lease.place is None:
            lease.hurry(self._now)
        self._peer_uses = anchor
        self._preferred = None if self._controlling else anchor
        if self._wanted:
            self._follow(self._now)
        self._settle()

    def release(self) -> None:
        """Have none any more: the direct path has proved itself, or an operator wants no relay."""
        for anchor in sorted(self._leases):
            self._drop(anchor)
        self._binds.clear()
        self._distances.trust()
        self._wanted, self._used, self._place = False, None, None

    def check(self, now: float) -> None:
        """Bind to all again, quickly: packets do not come through, or the network is another one.

        The used one is asked for again too, which has the other end bind again.
        """
        self._now = now
        for anchor, lease in sorted(self._leases.items()):
            waiting = self._controlling and not lease.token and lease.refused_until == -inf
            self._doubt(lease, now, ask=anchor == self._used or waiting)

    def mistrust(self, now: float) -> None:
        """The relay in use answers binds, and what is sent there does not arrive: a firewall of its anchor's, perhaps.
        Where another is ready, that one is used, until no relay is wanted any more or the anchor's agent is a new one.
        The controlling end learns it from the other's distances."""
        self._now = now
        spare = any(lease.place for anchor, lease in self._leases.items() if anchor != self._used)
        if self._used is not None and spare:
            self._distances.mistrust(self._used)
            self._choose(now)
            self._settle()

    def refresh(self, now: float) -> None:
        """The path leads by the relay that is ready from now on, or may do so soon. A NAT may have forgotten one that
        was idle: both ends bind to it again."""
        self._now = now
        lease = self._leases.get(self._used) if self._used is not None else None
        if lease is not None and now - lease.answered_at > FRESH_S:
            self._doubt(lease, now, ask=True)

    def anchor_restarted(self, anchor: PeerConfig, now: float) -> None:
        """The anchor's agent is another one, which may know nothing of its relays: what works is not given up."""
        self._now = now
        self._distances.trust(anchor.id)
        lease = self._leases.get(anchor.id)
        if lease is not None:
            self._doubt(lease, now, ask=anchor.id == self._used or self._controlling)

    def anchor_speaks(self, anchor: PeerConfig, now: float) -> None:
        """The anchor has said something of its own accord, so that it knows this agent's session."""
        lease = self._leases.get(anchor.id)
        if lease is not None:
            lease.heard(now)

    # What comes in

    def granted(self, anchor: PeerConfig, grant: RelayGrant, now: float) -> None:
        """An anchor's port for this peer, asked for by either end."""
        self._now = now
        if self._controlling and not self._wanted:
            self._outputs.append(Say(anchor, RelayRelease(self._peer.id, grant.token)))
            return
        lease = self._leases.setdefault(anchor.id, Lease(anchor))
        lease.granted(grant, now)
        self._settle()

    def refused(self, anchor: PeerConfig, refusal: RelayRefuse, now: float) -> None:
        """No relay there, for now. One that is in use is not given up because the anchor has forgotten it."""
        self._now = now
        lease = self._leases.get(anchor.id)
        if lease is None:
            return
        if refusal.reason is not RefuseReason.UNKNOWN:
            self._leases[anchor.id] = lease.refused(refusal.retry_s, now)
        elif not lease.token:
            return  # it was asked for, and is asked for again in any case
        elif self._controlling or anchor.id == self._used:
            self._doubt(lease, now, ask=self._controlling and lease.ask_at == inf)
        else:
            del self._leases[anchor.id]
        self._choose(now)
        self._settle()

    def answered(self, message: stun.Message, now: float) -> None:
        """An anchor's authentic answer to a bind. One by a grant that has ended counts for nothing, and that once: the
        same may be granted again."""
        self._now = now
        bind = self._binds.take(message.transaction)
        lease = self._leases.get(bind.anchor) if bind is not None else None
        if lease is None or bind is None or lease.token != bind.token:
            return
        if message.message_class is stun.Class.SUCCESS:
            lease.answered(bind.relay, now)
            if bind.anchor == self._used:
                lease.bind_at = inf
            self._settle()
        elif message.nonce and not bind.nonce:  # the anchor wants to know that this is no old one
            self._outputs.append(self._binds.send(bind._replace(nonce=message.nonce)))

    def poll(self, bases: tuple[Address, ...], now: float) -> None:
        """Say and send what is due, from this node's `bases`: the tunnel's port at one address of each family."""
        self._now = now
        for lease in self._leases.values():
            if lease.refused_until <= now:
                lease.refused_until = -inf
        for anchor, lease in sorted(self._leases.items()):
            if not lease.up:
                continue
            if lease.ask_at <= now:
                lease.asked(now)
                self._outputs.append(Say(lease.anchor, RelayAsk(self._peer.id)))
            if lease.bind_at <= now:
                self._bind(anchor, lease, bases, now)
            if lease.renew_at <= now:
                self._renew(anchor, lease, now)
        self._choose(now)
        self._settle()

    # Inside

    def _doubt(self, lease: Lease, now: float, *, ask: bool) -> None:
        lease.hurry(now)
        if ask:
            lease.ask(now)

    def _choose(self, now: float) -> None:
        """Ask the nearest anchors, and drop what is neither theirs nor in use. The other end has what it is granted."""
        if not self._wanted:
            return
        if not self._controlling:
            self._follow(now)
            return
        nearest = self._nearest()
        for anchor in nearest:
            lease = self._leases.setdefault(anchor, Lease(self._distances.anchor(anchor)))
            if not lease.token and lease.ask_at == inf:
                lease.ask(now)
        for anchor, lease in sorted(self._leases.items()):
            if lease.up and anchor not in nearest and anchor != self._used and lease.refused_until == -inf:
                self._drop(anchor)

    def _follow(self, now: float) -> None:
        """The controlling end uses a relay that this end knows nothing of, for it had taken the peer for lost: it would
        not be told of it again, so it asks itself."""
        if self._preferred is not None and self._preferred in self._distances:
            lease = self._leases.setdefault(self._preferred, Lease(self._distances.anchor(self._preferred)))
            if not lease.token and lease.ask_at == inf and lease.refused_until == -inf:
                lease.ask(now)

    def _nearest(self) -> list[bytes]:
        """The anchors to have relays at: enough that answer, and those before them that do not."""
        found: list[bytes] = []
        answering = 0
        for anchor in self._distances.sorted(frozenset(a for a, lease in self._leases.items() if lease.token)):
            lease = self._leases.get(anchor)
            if lease is not None and lease.refused_until > -inf:
                continue
            found.append(anchor)
            answering += lease is None or not lease.silent
            if answering == WANTED_ANCHORS:
                break
        return found

    def _drop(self, anchor: bytes) -> None:
        lease = self._leases.pop(anchor)
        if lease.token and lease.up:
            self._outputs.append(Say(lease.anchor, RelayRelease(self._peer.id, lease.token)))

    def _renew(self, anchor: bytes, lease: Lease, now: float) -> None:
        if now >= lease.expires_at and anchor != self._used:
            del self._leases[anchor]
        elif not lease.renewals and now < self._idle_until:
            lease.renew_at = self._idle_until
        else:
            self._idle_until = now + IDLE_GAP_S
            lease.renewed(now)
            self._outputs.append(Say(lease.anchor, RelayRefresh(self._peer.id, lease.token)))

    def _bind(self, anchor: bytes, lease: Lease, bases: tuple[Address, ...], now: float) -> None:
        if lease.place is not None and not lease.binds and not lease.urgent:
            if now < self._idle_until:
                lease.bind_at = self._idle_until
                return
            self._idle_until = now + IDLE_GAP_S
        if not lease.bound(now, self._distances.own(anchor)) and self._controlling:
            lease.ask(now)
        self._outputs += self._binds.make(anchor, lease, bases)

    def _settle(self) -> None:
        """Say which relay is to be used, when that is another one than before."""
        ready = [anchor for anchor, lease in self._leases.items() if lease.place]
        best = self._preferred if self._preferred in ready else self._distances.best(ready, self._used)
        needless = self._used in ready and best != self._preferred
        if best != self._used and not (needless and not self._changes.take(self._now)):
            self._take(best)
        place = self._leases[self._used].place if self._used is not None else None
        if place != self._place:
            self._place = place
            self._outputs.append(Ready(self._peer, place) if place is not None else Lost(self._peer))

    def _take(self, best: bytes | None) -> None:
        """Another lease is used from now on. One that was idle is bound to again at both ends: a NAT may have
        forgotten it."""
        before = self._leases.get(self._used) if self._used is not None else None
        if before is not None and before.place is not None and not before.binds:
            before.bind_at = self._now + REBIND_S
        self._used = best
        if best is not None:
            lease = self._leases[best]
            if not lease.binds:
                lease.bind_at = inf
            if self._now - lease.answered_at > FRESH_S:
                self._doubt(lease, self._now, ask=self._controlling)
