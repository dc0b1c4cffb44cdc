"""Where this node can be reached, in one network: its own addresses, and what anchors and servers see of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.candidates import LocalCandidates
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.nat import MAX_SERVERS, OBSERVATION_S, NatKnowledge
from meshctl.core.agent.probes import Transactions
from meshctl.core.agent.stunclient import Seen, Server, StunClient
from meshctl.core.wire import stun

# Own addresses of a family that servers are asked from at a time …
MAX_BASES = 3
# … and how long those have until the next so many are asked from as well, where no answer has come to any: most that a
# host has may lead nowhere, and `candidate.MAX_HOSTS` of them are asked from in less than six seconds.
WIDEN_S = 0.5
# Servers without a key whose word is remembered, with the base: names may lead to others each time. Who is forgotten
# here is so by `NatKnowledge` too, and cannot contradict itself there.
MAX_STRANGERS = 2 * MAX_BASES * MAX_SERVERS
# Everything is asked again before what is known of the NAT is too old to count.
REFRESH_S = OBSERVATION_S - 60.0
# What peers are told of waits so long for more: one offer of three candidates instead of three.
TRICKLE_S = 0.02


class Gatherer:
    """`changed_at`: peers are to hear of a change from then on, None: of nothing; `moved`: and try all pairs anew, for
    this node stands elsewhere, or its NAT has forgotten it."""

    def __init__(self, own: LocalCandidates, nat: NatKnowledge, transactions: Transactions) -> None:
        self._own, self._nat = own, nat
        self._stun_client = StunClient(transactions)
        self._servers: tuple[Server, ...] = ()
        # Base and server -> what it said first; who has answered last comes last.
        self._strangers: dict[tuple[Address, Address], Address] = {}
        self._untried: set[Address] = set()  # new bases that no answer has come to yet
        self._vain: Counter[Address] = Counter()  # questions that were not answered there, since others were
        self._tried: set[Address] = set()  # bases that were asked from since all were to be asked
        self._widen_at: float | None = None
        self._again_at: float | None = None
        self.changed_at: float | None = None
        self.moved = False

    @property
    def due(self) -> float | None:
        """When `poll` has something to do."""
        times = (self._stun_client.due(), self._again_at, self._widen_at, self._own.next_expiry())
        return min((t for t in times if t is not None), default=None)

    def set_hosts(
        self, addresses: Iterable[LocalAddress], port: int, now: float, gateways: Iterable[str] = ()
    ) -> None:
        """The host's own addresses, and its default gateways'."""
        before, answered = set(self._own.bases()), self._own.answered
        self._note(self._own.set_hosts(addresses, port, gateways), now)
        bases = set(self._own.bases())
        self._untried = (self._untried & bases) | (bases - before)
        if bases != before:
            self._nat.forget(bases & before)
            self._strangers.clear()
            self._stun_client.keep(bases)
            self._vain = Counter({base: n for base, n in self._vain.items() if base in bases})
        if _has_moved(before, bases, answered):
            self.doubt(now)
        else:  # what servers see will say: at a new address, or at the same one, which many networks give out
            self.ask_all(now)

    def set_servers(self, servers: Iterable[Server], now: float) -> None:
        """Who can be asked. New ones are asked at once."""
        known, self._servers = set(self._servers), tuple(sorted(set(servers)))
        new = [server for server in self._servers if server not in known]
        if new:
            self._begin_to_widen(now)
        for server in new:
            self.ask(server, now)

    def ask(self, server: Server, now: float) -> None:
        """Ask one server, from a few own addresses of its family."""
        self._ask_from([b for b in self._own.bases() if b.family == server.address.family], server, now)

    def ask_anew(self, server: Server, now: float) -> None:
        """Ask one that was not there yet when it was asked, if it was."""
        self._stun_client.begin_anew(server)
        self._vain.clear()
        self._begin_to_widen(now)
        self.ask(server, now)

    def ask_again(self, server: Server, now: float) -> None:
        """Ask one server that has been asked before: not from where no answer ever came to, as on a bridge."""
        self._ask_from(self._own.to_ask_from(server.address.family), server, now)

    def ask_all(self, now: float) -> None:
        """Ask all servers."""
        self._again_at = now + REFRESH_S
        self._begin_to_widen(now)
        for server in self._servers:
            self.ask(server, now)

    def _ask_from(self, bases: Iterable[Address], server: Server, now: float) -> None:
        """Those that answers come to go first; those from which servers were asked in vain give way to the others."""
        answered = self._own.answered
        for base in sorted(bases, key=lambda base: (base not in answered, self._vain[base]))[:MAX_BASES]:
            self._tried.add(base)
            self._stun_client.ask(base, server, now)

    def _begin_to_widen(self, now: float) -> None:
        self._tried.clear()
        self._widen_at = now + WIDEN_S

    def _widen(self, now: float) -> None:
        """Ask from the next few addresses of each family to which no answer has come, if any was not asked from yet."""
        self._widen_at = None
        answered = {base.family for base in self._own.answered}
        for family in sorted({base.family for base in self._own.bases()} - answered):
            untried = [b for b in self._own.to_ask_from(family) if b not in self._tried and not self._vain[b]]
            for server in self._servers if untried else ():
                if server.address.family == family:
                    self._widen_at = now + WIDEN_S
                    self._ask_from(untried, server, now)

    def doubt(self, now: float) -> None:
        """Whatever is known may be out of date: ask everybody, and let peers try everything."""
        self.moved, self.changed_at = True, now
        self._untried.clear()
        self._vain.clear()
        self.ask_all(now)

    def slept(self, now: float) -> None:
        """The host slept: as `doubt`, and what was asked before is asked anew, so that its answers are none that have
        waited."""
        self._stun_client.forget()
        self.doubt(now)

    def poll(self, now: float) -> SendProbe | None:
        """The question that is due, if any is."""
        if self._again_at is not None and now >= self._again_at:
            self.ask_all(now)
        if self._widen_at is not None and now >= self._widen_at:
            self._widen(now)
        self._note(self._own.expire(now), now)
        return self._stun_client.poll(now)

    def silent(self, now: float) -> Iterator[Address]:
        """Servers that have not answered a question in its time."""
        for base, server in self._stun_client.silent(now):
            self._vain[base] += 1
            yield server

    def answered(self, received: stun.Received, local: Address, remote: Address, now: float) -> Seen | None:
        """An answer of a server; None when it counts for nothing."""
        seen = self._stun_client.receive(received, local, remote, now)
        if seen is not None:
            self._vain.pop(seen.base, None)
            if any(server.address == remote and server.key for server in self._servers):
                self.seen("srflx", seen.base, seen.server, seen.mapped, now)
            else:
                self._told_by_stranger(seen, now)
        return seen

    def _told_by_stranger(self, seen: Seen, now: float) -> None:
        """A server without a key may say what it likes: where peers may try, and how the NAT maps as long as it does
        not contradict itself. That this node has moved is not its to say."""
        key = seen.base, seen.server
        known = self._strangers[key] = self._strangers.pop(key, seen.mapped)
        if len(self._strangers) > MAX_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        if known == seen.mapped:
            self._nat.observe(seen.base, seen.server, seen.mapped, now)
        self._note(self._own.put("told", seen.mapped, seen.base, now + OBSERVATION_S, seen.server.ip), now)

    def seen(self, kind: str, base: Address, server: Address, mapped: Address, now: float) -> None:
        """Somebody who is trusted with it sees this node there."""
        alone = self._nat.ends_alone(base, server, mapped, now)
        if self._nat.observe(base, server, mapped, now):
            for each in (kind, "told"):
                self._own.drop(each, keep=(mapped,))
            if alone:
                self.ask_all(now)  # the second server that sees another mapping says that all have ended
            else:
                self.doubt(now)
        self._note(self._own.put(kind, mapped, base, now + OBSERVATION_S, server.ip), now)
        if kind == "srflx" and base in self._untried:
            self.doubt(now)

    def mapped(self, mappings: Iterable[tuple[Address, Address, float]], now: float) -> None:
        """What routers have promised: (external, own address, its end) of all mappings."""
        found = list(mappings)
        self._note(self._own.drop("mapped", keep=[external for external, _, _ in found]), now)
        for external, base, expires_at in found:
            self._note(self._own.put("mapped", external, base, expires_at), now)

    def has_moved(self, now: float) -> bool:
        """Whether `take_change` is about to say so."""
        return self.moved and self.changed_at is not None and now >= self.changed_at

    def take_change(self, now: float) -> tuple[bool, bool]:
        """Whether peers are to hear of a change now, and whether this node has moved; once."""
        if self.changed_at is None or now < self.changed_at:
            return False, False
        moved, self.changed_at, self.moved = self.moved, None, False
        return True, moved

    def _note(self, changed: bool, now: float) -> None:
        if changed and self.changed_at is None:
            self.changed_at = now + TRICKLE_S


def _has_moved(before: AbstractSet[Address], bases: AbstractSet[Address], answered: AbstractSet[Address]) -> bool:
    """Whether other addresses of its own say by themselves that the host stands elsewhere. `answered`: those before to
    which servers' answers came. Bridges come and go as well, by which nobody is reached."""
    if answered - bases:
        return True  # the way out that there was is gone
    if answered:
        return False  # it is still there; a new address may be a bridge's, until an answer comes to it
    return bool(bases - before)  # no server has answered yet, and perhaps none will: any new address may be the way out
