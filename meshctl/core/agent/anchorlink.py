"""A node's link to one anchor: whether it works, how far the anchor is, and which of its addresses is used.

The link is the tunnel to the anchor's static endpoint. It is the way of all signalling before there are other paths, so
it is asked (by STUN, on WireGuard's own port) as soon as the counters of WireGuard make it doubtful.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from meshctl.core.agent.address import Address, is_private
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.liveness import IDLE_HANDSHAKE_MAX_S, Liveness
from meshctl.core.agent.relayserver import PORTS

# Between two series of questions to an anchor in doubt: the first come at once, then each pause is twice as long, and
# shortened by up to this share of it: two that ask each other at one moment, and have WireGuard begin a handshake with
# the answer, would for ever have both handshakes cross, and fail, where the way is long.
ASK_FIRST_S, ASK_LONGEST_S = 2.0, 30.0
ASK_JITTER = 0.5
_FORMER = 4  # so many of the addresses that it had before are known: two moves of both families
# A new round trip counts so much against those before (RFC 6298 has 1/8 for many samples; these are rare).
SMOOTHING = 0.25


class AnchorLink:
    """One anchor. `endpoints` are its static addresses as far as they are resolved, `former` those before them."""

    def __init__(self, peer: PeerConfig) -> None:
        self.peer = peer
        self.endpoints: tuple[Address, ...] = ()
        self.former: tuple[Address, ...] = ()
        self.status: PeerStatus | None = None
        self.missing = False  # in the last reading
        self.rtt_s: float | None = None
        self.since = 0.0  # when it came up last
        self._liveness = Liveness()
        self._dead = False
        self._asked: set[Address] = set()
        self._answered: list[Address] = []
        self._ask_at: float | None = None
        self._pause_s = ASK_FIRST_S

    @property
    def up(self) -> bool:
        """Whether messages can be sent that way: there is a handshake, and nothing says that the anchor is dead."""
        age = self.status.handshake_age_s if self.status else None
        return age is not None and age < IDLE_HANDSHAKE_MAX_S and not self._dead

    @property
    def _shaken(self) -> bool:
        """Whether there was a handshake. Without one WireGuard may have no address, or one that leads nowhere: a name
        that did not resolve when the host started, or the wrong family."""
        return self.status is not None and self.status.handshake_age_s is not None

    @property
    def endpoint(self) -> Address | None:
        """Where WireGuard sends; None while it has not been read, or knows no place."""
        return self.status.endpoint if self.status is not None else None

    @property
    def _places(self) -> tuple[Address, ...]:
        """Where it is reached: where WireGuard sends comes before where the inventory has it."""
        return self.endpoints if self.endpoint is None else (self.endpoint, *self.endpoints)

    def _cut_off(self, families: Collection[int]) -> bool:
        """Whether that is of a family that this node does not have: no packet leaves the host, and WireGuard counts
        none, so that silence is no sign. A node of which no address is known yet is not cut off."""
        return self.endpoint is not None and bool(families) and self.endpoint.family not in families

    @property
    def distance_s(self) -> float:
        """Round trip in seconds; one that was not measured yet is far."""
        return self.rtt_s if self.rtt_s is not None else 1.0

    @property
    def due(self) -> float | None:
        """When an anchor that is dead is to be asked again."""
        return self._ask_at

    def set_endpoints(self, addresses: tuple[Address, ...]) -> None:
        """Where it is, as far as that is resolved."""
        left = [address for address in self.endpoints if address not in addresses]
        self.former = tuple(dict.fromkeys((*left, *self.former)))[:_FORMER]
        self.endpoints = addresses

    def relays_at(self, address: Address) -> bool:
        """Whether that is one of its relays, or was one where it has been."""
        return address.port in PORTS and any(address.ip == at.ip for at in (*self._places, *self.former))

    def relay_at(self, granted: Address) -> Address:
        """Where this node reaches a relay that the anchor says it has there. Behind 1:1 NAT, as hosts of clouds are, an
        anchor knows its inner address alone, and is reached at the outer one: where WireGuard sends, or else where the
        inventory has it."""
        ips = [at.ip for at in self._places if at.family == granted.family]
        return Address(ips[0], granted.port) if ips and is_private(granted.ip) else granted

    def sample(self, status: PeerStatus, now: float, families: Collection[int] = (4, 6)) -> None:
        """One reading of WireGuard's counters. `families`: of which this node has addresses."""
        before, was_up = self._liveness.heard_at, self.up
        endpoint_before = self.endpoint
        self.status, self.missing = status, False
        self._liveness.sample(status, now)
        if self._liveness.heard_at != before:
            self._lives()
        elif self._ask_at is None and (not self._shaken or self._liveness.distress(now)):
            self._ask_at = now
        if self.endpoint != endpoint_before and self._cut_off(families):
            self._ask_at = now
        if self.up and not was_up:
            self.since = now

    def miss(self) -> None:
        """A reading has no such peer: the interface is gone, or the anchor is none of its peers. Nothing can be set."""
        self.status, self.missing, self._ask_at = None, True, None

    def told(self, size: int) -> None:
        """A message of so many bytes came from there: that no more come is no sign."""
        self._liveness.signalled(size, sent=False)

    def ask(self, now: float, draw: Callable[[], float], families: Collection[int] = (4, 6)) -> tuple[Address, ...]:
        """The addresses to ask, when it is time: those of the families that this node has. What is drawn then, from 0
        to 1, says how much of ASK_JITTER the pause until the next time is shortened by."""
        if self._ask_at is None or now < self._ask_at:
            return ()
        self._ask_at = now + self._pause_s * (1.0 - ASK_JITTER * draw())
        self._pause_s = min(2 * self._pause_s, ASK_LONGEST_S)
        asked = tuple(endpoint for endpoint in self.endpoints if endpoint.family in families)
        self._asked, self._answered = set(asked), []
        return asked

    def hurry(self, now: float, families: Collection[int] = (4, 6)) -> None:
        """The network is another one: an anchor that was dead may not be, and one that was not may be."""
        self._pause_s = ASK_FIRST_S
        if self._ask_at is not None or self._dead or self._cut_off(families):
            self._ask_at = now

    def answered(self, server: Address, rtt_s: float, now: float) -> Address | None:
        """It has answered at one of its addresses. The address that WireGuard should be told to use, if another one."""
        self.rtt_s = rtt_s if self.rtt_s is None else self.rtt_s + SMOOTHING * (rtt_s - self.rtt_s)
        self._liveness.rtt_s = self.rtt_s
        self._asked.discard(server)
        self._answered.append(server)
        return self._decide(now)

    def silent(self, server: Address, now: float) -> Address | None:
        """It has not answered there. As `answered`."""
        self._asked.discard(server)
        return self._decide(now)

    def _decide(self, now: float) -> Address | None:
        """When in doubt: the address in use is kept if it answers, another one is taken if it does not."""
        current = self.endpoint
        if self._ask_at is None or (current in self._asked and current not in self._answered):
            return None
        if not self._answered:
            self._dead = self._dead or not self._asked
            return None
        better = None if current in self._answered else self._answered[0]
        self._liveness.heard(now)
        if self._shaken:
            self._lives()
        else:  # the address may be the wrong one still: asked on, until there is a handshake
            self._dead = False
        return better

    def _lives(self) -> None:
        self._dead = False
        self._ask_at = None
        self._pause_s = ASK_FIRST_S
