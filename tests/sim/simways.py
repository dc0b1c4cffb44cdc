"""What is done to the direct ways of hosts alone: whatever comes from an anchor, or goes to one, passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simconfig import wg_key
from simkernel import Kernel, is_stun
from simnat import Place
from simpairs import anchor_ips
from simwg import sender_of

if TYPE_CHECKING:
    from simspec import Fault
    from simworld import World

BLOCKS, BLINKS = "blocks wireguard", "blinks"
# So long direct ways are dead, and then alive, of those that blink.
BLINK_S = 3.5


class Sieve:
    """In front of one host's kernel. `dead`: no direct way works; `blocked`: of these keys WireGuard's packets are
    dropped, and since when."""

    def __init__(self, world: World, kernel: Kernel) -> None:
        self._world = world
        self.dead = False
        self.blocked: dict[bytes, float] = {}
        kernel.sieve = self.passes

    def passes(self, other: Place, data: bytes) -> bool:
        """Whether a packet from or to that place does."""
        if other[0] in anchor_ips(self._world):
            return True
        return not self.dead and (is_stun(data) or sender_of(data) not in self.blocked)


def _sieve(world: World, name: str) -> Sieve:
    found = world.sieves.get(name)
    if found is None:
        found = world.sieves[name] = Sieve(world, world.nodes[name].kernel)
    return found


def block(world: World, fault: Fault) -> None:
    """From now on something drops WireGuard's packets between two hosts, wherever they are, and lets checks pass."""
    now = world.clock.now
    _sieve(world, fault.target).blocked.setdefault(wg_key(fault.value), now)
    if fault.value in world.nodes:
        _sieve(world, fault.value).blocked.setdefault(wg_key(fault.target), now)


def is_blocked_at(world: World, names: tuple[str, str], at: float) -> bool:
    """Whether that is so between the two by then; it does not end."""
    return any(f.kind == BLOCKS and {f.target, f.value} == {*names} and f.at <= at for f in world.spec.faults)


def blink(world: World, fault: Fault) -> None:
    """A host's direct ways die and come back every few seconds."""
    sieve, end = _sieve(world, fault.target), world.clock.now + fault.lasts_s

    def change() -> None:
        if world.clock.now < end:
            sieve.dead = not sieve.dead
            world.clock.after(BLINK_S, change)

    change()


def steady(world: World, fault: Fault) -> None:
    """They are as they were."""
    _sieve(world, fault.target).dead = False

