"""Static endpoints that are DNS names: when each is asked for, and what it last resolved to."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from meshctl.core.agent.address import Address, NamedEndpoint, refusal
from meshctl.core.agent.events import Resolve, Resolved

# An answer is asked for again when its TTL is over, within these bounds, and when nobody has said one after this. While
# nothing answers at the old address, sooner: it may have changed before its time.
SHORTEST_S, LONGEST_S = 30.0, 3600.0
UNSAID_S = 300.0
DEAD_S = 60.0
# After a failure: this, doubled each time. A resolver that is down is down for everybody.
RETRY_S = 1.0
RETRY_MAX_S = 60.0
# A question without an answer has failed: longer than resolv.conf's two servers, two attempts, 5 s each.
PATIENCE_S = 30.0
# Between two questions for one name, however often the network changes.
SPACING_S = 1.0
# More addresses under one name are a mistake, or somebody's game.
MAX_ADDRESSES = 16


@dataclass
class _Name:
    """What is known of one name. `waiting`: asked at `asked_at`, and not answered; `due_at`: ask then for certain."""

    due_at: float | None
    waiting: bool = False
    asked_at: float = float("-inf")
    answered_at: float = float("-inf")
    lasts_s: float = UNSAID_S
    failures: int = 0
    addresses: tuple[Address, ...] = ()
    why: str = "not resolved yet"


class Resolver:
    """All names of this node's peers. What an answer says may be forged, and costs no more than a few checks: only an
    authentic answer to one of those makes an address an endpoint."""

    def __init__(self, mesh_ranges: Iterable[str]) -> None:
        self._mesh_ranges = tuple(mesh_ranges)
        self._names: dict[NamedEndpoint, _Name] = {}
        self._dead: frozenset[NamedEndpoint] = frozenset()
        self._first: float | None = None  # `due`, which is asked for at each event

    def set_ranges(self, mesh_ranges: Iterable[str]) -> None:
        """No address in these is an endpoint."""
        self._mesh_ranges = tuple(mesh_ranges)

    def set_names(self, names: Iterable[NamedEndpoint], now: float) -> None:
        """These are the names. A new one is asked for at once; one that is not among them any more is forgotten."""
        self._names = {name: self._names.get(name) or _Name(now) for name in sorted(set(names))}
        self._set_due()

    def set_dead(self, names: AbstractSet[NamedEndpoint]) -> None:
        """Those of peers whose path is not alive."""
        if names != self._dead:
            self._dead = frozenset(names)
            self._set_due()

    def network_changed(self, now: float) -> None:
        """Another network may have other servers with other answers, and one that failed may be up: ask for all."""
        for known in self._names.values():
            known.due_at, known.failures = max(now, known.asked_at + SPACING_S), 0
        self._set_due()

    def poll(self, now: float) -> tuple[Resolve, ...]:
        """What is to be asked now."""
        asked = []
        for name, known in self._names.items():
            if now < self._due(name, known):
                continue
            if known.waiting and known.due_at is None:
                self._failed(known, "no answer", now)
            else:
                known.due_at, known.waiting, known.asked_at = None, True, now
                asked.append(Resolve(name))
        self._set_due()
        return tuple(asked)

    def due(self) -> float | None:
        """When `poll` has something to do."""
        return self._first

    def resolved(self, event: Resolved, now: float) -> bool:
        """Take an answer. Whether `addresses` of that name are others now: a failure leaves them as they are."""
        known = self._names.get(event.name)
        if known is None:
            return False
        changed = self._answered(known, event, now)
        self._set_due()
        return changed

    def _answered(self, known: _Name, event: Resolved, now: float) -> bool:
        fit = {a for a in event.addresses if not refusal(a.ip, a.port, self._mesh_ranges)}
        addresses = tuple(sorted(Address.of(*a) for a in fit))[:MAX_ADDRESSES]
        if not addresses:
            self._failed(known, "no usable address" if event.addresses else "no address", now)
            return False
        known.waiting, known.answered_at, known.failures, known.why = False, now, 0, ""
        known.lasts_s = UNSAID_S if event.ttl_s is None else min(max(event.ttl_s, SHORTEST_S), LONGEST_S)
        changed = addresses != known.addresses
        known.addresses = addresses
        return changed

    def addresses(self, name: NamedEndpoint) -> tuple[Address, ...]:
        """What the name resolved to when it last did, sorted."""
        known = self._names.get(name)
        return known.addresses if known else ()

    def why(self, name: NamedEndpoint) -> str:
        """Why the last question for the name has failed, in words; "" when it has not."""
        known = self._names.get(name)
        return known.why if known else ""

    def _set_due(self) -> None:
        self._first = min([self._due(name, known) for name, known in self._names.items()], default=None)

    def _due(self, name: NamedEndpoint, known: _Name) -> float:
        if known.due_at is not None:
            return known.due_at
        if known.waiting:
            return known.asked_at + PATIENCE_S
        return known.answered_at + (min(known.lasts_s, DEAD_S) if name in self._dead else known.lasts_s)

    def _failed(self, known: _Name, why: str, now: float) -> None:
        known.waiting, known.why = False, why
        # An order of network_changed that is under way stays.
        retry_at = now + min(RETRY_S * 2**known.failures, RETRY_MAX_S)
        known.due_at = retry_at if known.due_at is None else min(known.due_at, retry_at)
        known.failures = min(known.failures + 1, 16)
