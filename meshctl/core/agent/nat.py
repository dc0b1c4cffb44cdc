"""What is known of the NATs in front of this node, from what others see of it (terms of RFC 4787 and RFC 5780)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum

from meshctl.core.agent.address import Address, is_private
from meshctl.core.agent.bodies import NatSummary

# How long an observation says something of the present. A mapping that nothing uses lives for two minutes at the least
# by RFC 4787 (REQ-5), five by its recommendation, and agents ask more often than that.
OBSERVATION_S = 300.0
# What a NAT lets in is rarely seen, and does not change unless the NAT does.
BEHAVIOUR_S = 3600.0
MAX_SERVERS = 16
# Remote addresses that are remembered as sent to: those of 300 peers with more than ten candidates each.
MAX_REMOTES = 4096
# A NAT that allocates ports in sequence gives the next free one; between two of ours it may serve others.
MAX_PORT_STEP = 16


class Mapping(IntEnum):
    """How the NAT maps this node's port; the numbers are on the wire."""

    UNKNOWN = 0
    NO_NAT = 1
    ENDPOINT_INDEPENDENT = 2
    ADDRESS_DEPENDENT = 3
    ADDRESS_AND_PORT_DEPENDENT = 4  # also when it is dependent and nobody could tell on what

    @property
    def is_hard(self) -> bool:
        """Whether another remote address sees another mapping, so that none can be told to a peer in advance."""
        return self >= Mapping.ADDRESS_DEPENDENT


class Filtering(IntEnum):
    """Whom the NAT lets in, at the least; the numbers are on the wire. That it lets nobody else in cannot be told."""

    UNKNOWN = 0
    ENDPOINT_INDEPENDENT = 1
    ADDRESS_DEPENDENT = 2


@dataclass(frozen=True)
class _Seen:
    """A server's view of a base: the mapping, when it was seen last and first, when it took the place of another one,
    and whether another server has seen the NAT rebind since."""

    mapped: Address
    at: float
    since: float
    changed_at: float = float("-inf")
    void: bool = False


@dataclass
class _Base:
    """What is known of one own address and port."""

    seen: dict[Address, _Seen] = field(default_factory=dict)  # by server
    sent: dict[Address, None] = field(default_factory=dict)  # remote addresses, the oldest first
    forgot_at: float = float("-inf")  # one of those was let go for want of room
    filtering: tuple[Filtering, float] = (Filtering.UNKNOWN, float("-inf"))
    hairpins: tuple[bool, float] = (False, float("-inf"))


def same_nat(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    """Whether two nodes are seen under one public address: they are behind one NAT, if only a provider's."""
    return bool(set(ours) & set(theirs))


def predict_ports(port: int, step: int, count: int) -> tuple[int, ...]:
    """The next ports of a NAT that allocates in sequence and gave `port` last; () for step 0. Ports below 1,024 are
    passed over."""
    span = 0x10000 - 1024
    return tuple(1024 + (port - 1024 + step * n) % span for n in range(1, count + 1)) if step else ()


class NatKnowledge:
    """Knowledge of the NAT in front of each own address, with WireGuard's port: mappings of a splice's ports say
    nothing of those. All answers are of the time that is asked for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._bases: dict[Address, _Base] = {}
        self.version = 0  # another number than before when something that `summary` says may be another

    def forget(self, keep: Iterable[Address] = ()) -> None:
        """Forget all but these bases: the others' addresses are gone, or the network is another one."""
        self.version += 1
        kept = set(keep)
        self._bases = {base: known for base, known in self._bases.items() if base in kept}

    def observe(self, base: Address, server: Address, mapped: Address, now: float) -> bool:
        """`server` saw `base` as `mapped`. Whether it saw another mapping before: the NAT has rebound (or it lies)."""
        self.version += 1
        known = self._bases.setdefault(base, _Base())
        before = known.seen.get(server)
        if before is None:
            known.seen[server] = _Seen(mapped, now, now)
            if len(known.seen) > MAX_SERVERS:
                del known.seen[min(known.seen, key=lambda s: (known.seen[s].at, s))]
            return False
        if before.mapped == mapped:
            known.seen[server] = replace(before, at=now, void=False)
            return False
        for other, seen in known.seen.items():
            # It happened after `before.at`: who has noticed since then stands, of the others nobody knows.
            known.seen[other] = replace(seen, void=seen.void or seen.changed_at <= before.at)
        known.seen[server] = _Seen(mapped, now, now, now)
        return True

    def ends_alone(self, base: Address, server: Address, mapped: Address, now: float) -> bool:
        """Whether that `server` sees `base` as `mapped` now may say nothing of other mappings: a hard NAT has one for
        each server, and each of them ends by itself."""
        known = self._bases.get(base, _Base()).seen.get(server)
        return known is not None and known.mapped.ip == mapped.ip and self.mapping(base, now).is_hard

    def mapping(self, base: Address, now: float) -> Mapping:
        """How the NAT maps this base, told by two servers or more."""
        return self._mapping(base, now)[0]

    def contradicted(self, base: Address, now: float) -> bool:
        """Whether a server says other than most do: it lies, or stands in another place."""
        return self._mapping(base, now)[1]

    def seen(self, base: Address, now: float) -> dict[Address, Address]:
        """Where each server sees this base, of those whose word still counts."""
        return {server: seen.mapped for server, seen in self._fresh(base, now).items()}

    def preserves_port(self, base: Address, now: float) -> bool | None:
        """Whether the mapped port is the own one; None: no NAT, or not known."""
        ports = {seen.mapped.port for seen in self._fresh(base, now).values() if seen.mapped != base}
        return ports == {base.port} if ports else None

    def port_step(self, base: Address, now: float) -> int:
        """By how much the port grows from one mapping to the next, when the NAT is hard and does so; else 0."""
        if not self.mapping(base, now).is_hard:
            return 0
        views = sorted(self._fresh(base, now).values(), key=lambda seen: (seen.since, seen.mapped))
        ports = list(dict.fromkeys(seen.mapped.port for seen in views))
        steps = [(later - earlier) % 0x10000 for earlier, later in zip(ports, ports[1:])]
        if len(steps) < 2 or not all(1 <= step <= MAX_PORT_STEP for step in steps):
            return 0
        counts = Counter(steps)
        return min(counts, key=lambda step: (-counts[step], step))

    def sent(self, base: Address, remote: Address, now: float) -> None:
        """A packet has left for `remote`, so that the NAT lets its answers in."""
        if base.port != self._port:
            return
        known = self._bases.setdefault(base, _Base())
        known.sent[remote] = None
        if len(known.sent) > MAX_REMOTES:
            del known.sent[next(iter(known.sent))]
            known.forgot_at = now

    def received(self, base: Address, remote: Address, now: float) -> None:
        """An authentic packet has come from `remote`: if nothing was ever sent there, the NAT did not filter it."""
        if base.port != self._port or is_private(remote.ip):
            return
        known = self._bases.setdefault(base, _Base())
        if remote in known.sent or now < known.forgot_at + BEHAVIOUR_S:
            return
        met = any(remote.ip == other.ip for other in known.sent)
        proven = Filtering.ADDRESS_DEPENDENT if met else Filtering.ENDPOINT_INDEPENDENT
        current = self.filtering(base, now)
        if current is Filtering.UNKNOWN or proven <= current:
            self.version += 1
            known.filtering = (proven, now)

    def filtering(self, base: Address, now: float) -> Filtering:
        """Whom the NAT lets in at the least."""
        known = self._bases.get(base)
        return known.filtering[0] if known and now < known.filtering[1] + BEHAVIOUR_S else Filtering.UNKNOWN

    def outside(self, base: Address, now: float) -> frozenset[str]:
        """The addresses under which servers see this base, if there is a NAT: another host seen there is behind it."""
        return frozenset(seen.mapped.ip for seen in self._fresh(base, now).values()) - {base.ip}

    def hairpinned(self, base: Address, now: float, *, worked: bool) -> None:
        """Of this base and another host behind the same NAT, each has asked at the other's mapping: with success, or in
        vain, which says less."""
        known = self._bases.setdefault(base, _Base())
        if worked or not self.hairpins(base, now):
            known.hairpins = (worked, now)

    def hairpins(self, base: Address, now: float) -> bool | None:
        """Whether the NAT lets two hosts behind it reach each other by its outer address (RFC 4787 section 6): None
        where no two have tried."""
        known = self._bases.get(base)
        return known.hairpins[0] if known and now < known.hairpins[1] + BEHAVIOUR_S else None

    def summary(self, bases: Iterable[Address], now: float) -> tuple[NatSummary, ...]:
        """What peers are told: for each family, of the first of these bases that is of it."""
        first: dict[int, Address] = {}
        for base in bases:
            first.setdefault(base.family, base)
        return tuple(
            NatSummary(family, self.mapping(base, now), self.filtering(base, now), self.port_step(base, now))
            for family, base in sorted(first.items())
        )

    def _fresh(self, base: Address, now: float) -> dict[Address, _Seen]:
        """By server, what still says something. One that sees a private address as it is stands in the same network,
        and says nothing of the NAT."""
        known = self._bases.get(base, _Base())
        return {
            server: seen
            for server, seen in sorted(known.seen.items())
            if seen.at >= now - OBSERVATION_S and not seen.void and not (seen.mapped == base and is_private(base.ip))
        }

    def _mapping(self, base: Address, now: float) -> tuple[Mapping, bool]:
        views: dict[str, set[Address]] = {}
        fresh = self._fresh(base, now)
        for server, seen in fresh.items():
            views.setdefault(server.ip, set()).add(seen.mapped)
        if not views:
            return Mapping.UNKNOWN, False
        # A server address that sees one mapping from each of its ports has one vote.
        votes = Counter(next(iter(mapped)) for mapped in views.values() if len(mapped) == 1)
        mapped, most = min(votes.items(), key=lambda vote: (-vote[1], vote[0])) if votes else (base, 0)
        if 2 * most > len(views) and (most >= 2 or mapped == base):
            behaviour = Mapping.NO_NAT if mapped == base else Mapping.ENDPOINT_INDEPENDENT
            return behaviour, most < len(views)
        if any(len(mapped) > 1 for mapped in views.values()):
            return Mapping.ADDRESS_AND_PORT_DEPENDENT, False
        if len(views) == 1:
            return Mapping.UNKNOWN, False
        two_ports = len(fresh) > len(views)
        return (Mapping.ADDRESS_DEPENDENT if two_ports else Mapping.ADDRESS_AND_PORT_DEPENDENT), False
