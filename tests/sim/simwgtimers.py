"""WireGuard's timers (timers.c) on Linux's timer wheel, which rings late and never early."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from simclock import Clock

if TYPE_CHECKING:
    from simwg import Peer

_JITTER_S = 0.333
# Linux's kernel/time/timer.c: a timer that is due in 63 ticks or more rings at a multiple of 8 of them, in 8 times as
# many or more, of 64, and so on; after its time, never before.
_WHEEL_TICKS, _WHEEL_STEP = 63, 8
# A host may have been up for so long; more makes no difference to when its ticks are.
_UPTIME_S = 180.0


class WgTimers:
    """Those of all peers of one interface: `rings` has what each does, by its name; `knows`: whether a peer is there.

    They are late as the kernel's are, by up to 0.26 s, and by up to 2.05 s when they are set to more than 16 s.
    """

    tick_s = 1 / 250  # CONFIG_HZ of Debian; 0 makes exact timers, as those of wireguard-go are

    def __init__(
        self, clock: Clock, dice: random.Random, rings: Mapping[str, Callable[[Peer], None]],
        knows: Callable[[Peer], bool],
    ) -> None:  # fmt: skip
        self._clock, self._dice, self._rings, self._knows = clock, dice, rings, knows
        self.booted_s = -dice.random() * _UPTIME_S  # when the ticks were zero: each host has its own

    def arm(self, peer: Peer, name: str, delay_s: float, *, again: bool = True) -> None:
        """Let a timer ring; one that is set is moved, unless not `again`."""
        if not again and name in peer.due:
            return
        jitter = self._dice.random() * _JITTER_S if name in ("retransmit", "new-handshake") else 0.0
        peer.due[name] = self._clock.now + self._late(delay_s + jitter)
        self._wind(peer, name)

    def _late(self, delay_s: float) -> float:
        """After how long a timer rings that is to ring after `delay_s`."""
        grain_s = self.tick_s
        while delay_s >= _WHEEL_TICKS * grain_s > 0:
            grain_s *= _WHEEL_STEP
        since_tick_s = (self._clock.now + delay_s - self.booted_s) % grain_s if grain_s else 0.0
        return delay_s + grain_s - since_tick_s

    def _wind(self, peer: Peer, name: str) -> None:
        """See to it that the timer rings in time; one that rings too early is wound again then."""
        when, wound = peer.due[name], peer.wound.get(name)
        if wound is None or when < wound:
            peer.wound[name] = when
            self._clock.at(when, lambda: self._ring(peer, name, when))

    def _ring(self, peer: Peer, name: str, when: float) -> None:
        if peer.wound.get(name) != when or not self._knows(peer):
            return
        del peer.wound[name]
        due = peer.due.get(name)
        if due is not None and due > when:
            self._wind(peer, name)
        elif due is not None:
            del peer.due[name]
            self._rings[name](peer)
