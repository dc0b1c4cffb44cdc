"""Through a hard NAT when the other one is easy: many open ports on the one side, many guesses on the other.

The hard side opens mappings from many local ports to where the easy side is, which is known, and says so. The easy side
guesses at the ports that the hard NAT has given to them. A guess that is right arrives at one of the local ports as an
authentic check: from there on it is an ordinary pair, which `checklist` checks and nominates. When the path takes it,
WireGuard's packets for this peer are made to leave from that port (`InstallSplice`). With 256 ports open, half of all
attempts hit within 174 guesses, and 98 % within 1,024.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, Union

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import Splice
from meshctl.core.agent.candidate import priority
from meshctl.core.agent.check import ANSWER_S, SCHEDULE_S
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.events import InstallSplice, OpenPorts, RemoveSplice, SendProbe
from meshctl.core.agent.probes import Transactions, signed
from meshctl.core.agent.router import TokenBucket
from meshctl.core.agent.splice_situation import MAX_GUESSES, MAX_OUTSIDE, Role, Situation, guesses
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.wire import stun
from meshctl.model.keys import PublicKey

OPENED = 256
# Between two handfuls of an attempt's packets, and how many these are.
PACE_S, BURST = 0.005, 5
# How long the hard side listens once all its ports are open.
LISTEN_S = 10.0
# How long what was hit may take to be checked and nominated.
SETTLE_S = SCHEDULE_S[-1] + ANSWER_S
SAY_AGAIN_S = 1.0
MAX_SAID = 3
# With one peer: between two attempts of the hard side, and between two that the easy side takes part in.
BETWEEN_S = 30.0
ACCEPTED_AGAIN_S = 20.0
# Attempts with one peer that may be in vain at once, and how long it is to one more. Where the other end is, is its own
# word, and it may name a victim. Three honest attempts in a row are in vain once in 100,000 times; where all are, as
# behind one carrier's NAT, a thousand guesses each time shall not be most of what the pair sends.
VAIN_BURST, VAIN_AGAIN_S = 3.0, 1800.0
# What one attempt sends at the most.
MAX_SHOTS = max(MAX_GUESSES, OPENED * MAX_OUTSIDE)


class Failed(NamedTuple):
    """The attempt is over, and nothing came of it."""

    peer: PublicKey


# A `Splice` is a message for the peer.
Output = Union[SendProbe, OpenPorts, InstallSplice, RemoveSplice, Splice, Failed]


@dataclass
class _Attempt:
    """`shots` are still to be sent, to the hosts `aimed_at`; `guessed` are those of the easy side that were; times are
    when something is due."""

    situation: Situation
    role: Role
    ports: tuple[int, ...]
    shots: deque[Pair]
    shot_at: float
    aimed_at: frozenset[str] = field(init=False)
    guessed: set[Address] = field(default_factory=set)
    say_at: float = inf
    said: int = 0
    ends_at: float = inf

    def __post_init__(self) -> None:
        self.aimed_at = frozenset(shot.remote.ip for shot in self.shots)

    def listen(self, now: float) -> None:
        """Nothing more is opened or guessed; what was hit has its time."""
        self.shot_at = inf
        self.ends_at = min(self.ends_at, now + (LISTEN_S if self.role is Role.HARD else SETTLE_S))


class Splicer:
    """The splice with one peer: at most one attempt, and at most one that stands. Drain `outputs` after every call."""

    def __init__(
        self, peer: PublicKey, slot: SpliceSlot, dice: random.Random, transactions: Transactions
    ) -> None:
        self._peer = peer
        self._slot = slot
        self._dice, self._transactions = dice, transactions
        self._number = dice.getrandbits(32)
        self._attempt: _Attempt | None = None
        self._vain = TokenBucket(1.0 / VAIN_AGAIN_S, VAIN_BURST)
        self._drawn: tuple[int, ...] = ()  # the ports of the last attempt
        self._started_at = -inf
        self._accepted_at = -inf
        self._standing: Pair | None = None
        self._outputs: list[Output] = []

    def outputs(self) -> Iterator[Output]:
        """What is to be sent, said and done, once and in this order."""
        found, self._outputs = self._outputs, []
        return iter(found)

    @property
    def trying(self) -> Role | None:
        """This node's part in the attempt that is under way."""
        return self._attempt.role if self._attempt else None

    @property
    def ports(self) -> tuple[int, ...]:
        """The local ports that are open: what comes to them is this peer's."""
        standing = (self._standing.local.port,) if self._standing else ()
        return self._attempt.ports if self._attempt and self._attempt.ports else standing

    @property
    def standing(self) -> Pair | None:
        """The pair that WireGuard's packets are spliced to; to be saved, for `restore`."""
        return self._standing

    def due(self) -> float | None:
        """When `poll` has something to do."""
        a = self._attempt
        return min(a.shot_at, a.say_at, a.ends_at) if a else None

    def start(self, situation: Situation, now: float) -> str:
        """The hard side opens ports. Why not, in a few words; "" when it does."""
        part = situation.part()
        if part is None or part[0] is not Role.HARD:
            return "the NATs are not hard here and easy there"
        base = part[1]
        towards = situation.outside_of_easy(base.family)
        if not towards:
            return "the peer's outer address is not known"
        if self._attempt or now < self._started_at + BETWEEN_S:
            return f"the last attempt is less than {BETWEEN_S:.0f} s ago"
        refusal = self._may_not(now)
        if refusal:
            return refusal
        self.leave()
        self._started_at = now
        self._number = (self._number + 1) % 2**32
        ports = self._drawn = self._slot.draw(OPENED, self._dice)
        shots = deque(Pair(Address(base.ip, port), remote) for remote in towards for port in ports)
        self._attempt = _Attempt(situation, Role.HARD, ports, shots, now)
        self._outputs.append(OpenPorts(self._peer, ports))
        return ""

    def received(self, said: Splice, situation: Situation, now: float) -> str:
        """The easy side guesses. Why not, in a few words; "" when it does."""
        part = situation.part()
        if part is None or part[0] is not Role.EASY or not said.ports:
            return "the NATs are not easy here and hard there"
        _, base, theirs = part
        outside = situation.outside_of_hard(base.family)
        if outside is None:
            return "the peer's outer address is not known"
        if self._attempt or now < self._accepted_at + ACCEPTED_AGAIN_S:
            return f"the last attempt is less than {ACCEPTED_AGAIN_S:.0f} s ago"
        refusal = self._may_not(now)
        if refusal:
            return refusal
        self._accepted_at = now
        ports = guesses(outside.port, theirs.port_step, said.ports, self._dice)
        shots = deque(Pair(base, Address(outside.ip, port)) for port in ports)
        self._attempt = _Attempt(situation, Role.EASY, (), shots, now)
        return ""

    def poll(self, now: float) -> None:
        """Send and say what is due, or end the attempt."""
        a = self._attempt
        if a is None:
            return
        if now >= a.ends_at:
            self.abort()
            self._outputs.append(Failed(self._peer))
            return
        if now >= a.shot_at:
            self._shoot(a, now)
        if now >= a.say_at:
            a.said += 1
            a.say_at = now + SAY_AGAIN_S if a.said < MAX_SAID else inf
            self._outputs.append(Splice(self._number, len(a.ports)))

    def heard(self, pair: Pair, now: float) -> None:
        """An authentic request came on the pair: if that is a hit, no more ports are opened or guessed."""
        a = self._attempt
        if a and (pair.local.port in a.ports or pair.remote in a.guessed):
            a.listen(now)
            a.say_at = inf

    def take(self, pair: Pair) -> bool:
        """The path is about to use the pair: what it needs is installed, and the attempt is over. Whether it can be
        used: not when its local port was a splice's and is closed."""
        a, ours = self._attempt, self._standing
        if pair == ours:
            return True
        local = pair.local.port
        if local in self._drawn and local not in self.ports:
            return False
        spliced = bool(a) and local in self.ports
        if a and a.aimed_at == {pair.remote.ip}:  # who has answered there is no victim, and there was none beside it
            self._vain.give_back()
        self._finish()
        if spliced:
            self._install(pair)
        elif a and a.ports:
            self._outputs.append(OpenPorts(self._peer, ()))
        return True

    def leave(self) -> None:
        """The path does not use the splice any more (if there is one): undo it."""
        if self._standing is None:
            return
        gone, self._standing = self._standing, None
        self._slot.hold(self._peer, None)
        self._outputs.extend(undone(self._peer, gone))

    def restore(self, pair: Pair) -> None:
        """The splice that stood before a restart stands again."""
        self._install(pair)

    def abort(self) -> None:
        """Stop trying; a splice that stands stays."""
        opened = bool(self._attempt and self._attempt.ports)
        self._finish()
        if opened:
            self._outputs.append(OpenPorts(self._peer, ()))

    def stop(self) -> None:
        """The peer is gone: nothing of it stays."""
        self.abort()
        self.leave()

    # Inside

    def _may_not(self, now: float) -> str:
        """Why no attempt may begin now that could; "" when it does."""
        if not self._slot.acquire(self._peer):
            return "ports are being tried with another peer"
        if not self._vain.take(now):
            self._slot.release(self._peer)
            return "too many attempts were in vain"
        return ""

    def _shoot(self, a: _Attempt, now: float) -> None:
        for _ in range(min(BURST, len(a.shots))):
            shot = a.shots.popleft()
            if a.role is Role.EASY:
                a.guessed.add(shot.remote)
            self._outputs.append(SendProbe(shot.local, shot.remote, self._request(a.situation)))
        a.shot_at = now + PACE_S
        if not a.shots:
            a.listen(now)
            a.say_at = now if a.role is Role.HARD else inf

    def _request(self, situation: Situation) -> bytes:
        """An ordinary check, but nobody waits for its answer."""
        tie_breaker, controlling = self._dice.getrandbits(64), situation.controlling
        request = stun.Message(
            stun.Class.REQUEST,
            self._transactions.new(),
            username=situation.credentials.username,
            priority=priority("prflx", 0),
            ice_controlling=tie_breaker if controlling else None,
            ice_controlled=None if controlling else tie_breaker,
        )
        return signed(request, situation.credentials.key)

    def _install(self, pair: Pair) -> None:
        self._standing = pair
        self._slot.hold(self._peer, pair.local.port)
        self._outputs.append(OpenPorts(self._peer, (pair.local.port,)))
        self._outputs.append(InstallSplice(self._peer, pair.remote, pair.local.port))

    def _finish(self) -> None:
        self._attempt = None
        self._slot.release(self._peer)


def undone(peer: PublicKey, pair: Pair) -> tuple[RemoveSplice, OpenPorts]:
    """What takes away the splice that stands on this pair."""
    return RemoveSplice(peer, pair.remote, pair.local.port), OpenPorts(peer, ())
