"""What the ways of mapping a port have in common: what was granted, what is held, and when to ask again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import Action
from meshctl.core.wire.error import WireError
from meshctl.core.wire.specialranges import Reach, reach

# What is asked for, and the longest that is believed: a router that lost a mapping is not noticed for half of it.
LIFETIME_S = 7200
# A router that grants less is not worth asking (RFC 6887 section 15 recommends two minutes as the least).
SHORTEST_S = 60
# Between a refusal and the next question: whatever the router says, no sooner; of a router that was silent, or that
# will not do it, later.
SOONEST_S = 30.0
SILENT_S = 1024.0
REFUSED_S = 1800.0
# How long a mapping still counts that the router has perhaps lost: about as long as making it again takes.
DOUBT_S = 10.0


@dataclass(frozen=True)
class Held:
    """A mapping as it must be known to take it over, or to delete it, after a crash. `protocol` is `pcp`, `nat-pmp`,
    `upnp` or `upnp-pinhole`; PCP has the nonce, UPnP the control's URL and type, and mappings that are `permanent`."""

    gateway: str
    internal: Address
    external: Address
    protocol: str
    nonce: bytes = b""
    control: str = ""
    service: str = ""
    permanent: bool = False


@dataclass(frozen=True)
class Mapped:
    """A mapping that works: packets to `external` reach `held.internal` until `expires_at`."""

    external: Address
    expires_at: float
    held: Held


class Method:
    """One way of asking one gateway to map one address. It asks, and then renews or asks again by itself, until it is
    stopped. `why` says in words why there is no mapping."""

    def __init__(self, gateway: str, internal: Address, dice: random.Random) -> None:
        self.gateway, self.internal, self.dice = gateway, internal, dice
        self.mapped: Mapped | None = None
        self.why = ""
        self.asking = False
        self._wake: float | None = None  # asking: the end of patience; else: when to ask
        self._actions: list[Action] = []

    def actions(self) -> Iterator[Action]:
        """What is to be sent, once."""
        actions, self._actions = self._actions, []
        return iter(actions)

    @property
    def idle(self) -> bool:
        """Whether it was never started, or stopped."""
        return self._wake is None

    def start(self, when: float) -> None:
        """Ask at that time, unless asking already."""
        if not self.asking:
            self._wake = when if self._wake is None else min(self._wake, when)

    def restart(self, now: float) -> None:
        """Another router may have the address now: what is being asked is asked from the beginning."""
        if self.asking:
            self._ask(now)

    def stop(self) -> None:
        """Ask no more, and forget."""
        self.mapped, self.asking, self._wake = None, False, None

    def due(self) -> float | None:
        """When `poll` has something to do."""
        times = [t for t in (self._wake, self.mapped.expires_at if self.mapped else None) if t is not None]
        return min(times, default=None)

    def poll(self, now: float) -> None:
        """Do what is due."""
        if self.mapped is not None and self.mapped.expires_at <= now:
            self.mapped = None
        if self._wake is None or now < self._wake:
            return
        if self.asking:
            self._unanswered(now)
        else:
            self.asking = True
            self._ask(now)

    def release(self) -> None:
        """Delete the mapping if there is one, and stop."""
        if self.mapped is not None:
            self._delete(self.mapped.held)
        self.stop()

    def doubt(self, when: float, now: float) -> None:
        """The router may have lost the mapping: ask again at that time."""
        if self.mapped is not None:
            ends = min(self.mapped.expires_at, max(when, now) + DOUBT_S)
            self.mapped = replace(self.mapped, expires_at=ends)
            self.start(max(when, now))

    # For the ways themselves

    def _ask(self, now: float) -> None:
        raise NotImplementedError

    def _unanswered(self, now: float) -> None:
        raise NotImplementedError

    def _delete(self, held: Held) -> None:
        raise NotImplementedError

    def _grant(self, held: Held, lifetime_s: float, now: float) -> None:
        """The router said yes. What it says is worth nothing if the internet cannot reach it, or it ends at once."""
        why = unusable(held.external, self.internal)
        if not why and lifetime_s < SHORTEST_S:
            why = f"the router maps for {lifetime_s:.0f} s only"
        if why:
            self._delete(held)
            self.mapped = None
            self._fail(why, REFUSED_S, now)
            return
        lifetime_s = min(lifetime_s, LIFETIME_S)
        self.mapped, self.asking, self.why = Mapped(held.external, now + lifetime_s, held), False, ""
        # RFC 6887 section 11.2.1: between a half and five eighths, so that not all hosts ask at once.
        self._wake = now + lifetime_s * self.dice.uniform(1 / 2, 5 / 8)

    def _fail(self, why: str, retry_s: float, now: float) -> None:
        """It did not work this time. A mapping that is there stays until its end, and is asked for sooner."""
        self.asking, self.why = False, why
        if self.mapped is not None:
            retry_s = min(retry_s, (self.mapped.expires_at - now) / 2)
        self._wake = now + max(retry_s, SOONEST_S) * self.dice.uniform(1, 1.1)


def unusable(external: Address, internal: Address) -> str:
    """Why nobody could reach a node by this external address, in words; "" when it may be."""
    try:
        where = reach(external.ip)
    except WireError:
        return "the router's address outside is none"
    if external.family != internal.family or not external.port:
        return "the router gave an address that cannot be"
    if where is Reach.INNER:
        return f"the router is behind another NAT: its address outside is {external.ip}"
    return "" if where is Reach.GLOBAL else "the router has no address outside yet"
