"""The oracle: what comes of a pair, from what stands in front of both ends. Pure; lint and simulations ask it.

A NAT is its mapping and its filtering (RFC 4787 sections 4.1 and 5). Two things are taken as given: a NAT has one outer
address for a host (REQ-2, "paired"), and UDP passes where nobody said that it is blocked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meshctl.model.mesh import Mesh, Node

# Outcomes.
DIRECT = "direct"  # WireGuard's packets go from end to end
SPLICED = "spliced"  # so too, from a port that was found by trying between a hard NAT and an easy one
RELAYED = "relayed"  # by way of an anchor or a TURN server
UNREACHABLE = "unreachable"
UNKNOWN = "unknown"  # what was declared allows more than one outcome
OUTCOMES = (DIRECT, SPLICED, RELAYED, UNREACHABLE, UNKNOWN)

# Behaviours, of mapping and of filtering alike.
INDEPENDENT = "endpoint-independent"
ADDRESS = "address-dependent"
ADDRESS_AND_PORT = "address-and-port-dependent"


class Nat(NamedTuple):
    """How a NAT maps and filters UDP."""

    mapping: str
    filtering: str


OPEN = Nat(INDEPENDENT, INDEPENDENT)
ADDRESS_FILTER = Nat(INDEPENDENT, ADDRESS)
PORT_FILTER = Nat(INDEPENDENT, ADDRESS_AND_PORT)
HARD = Nat(ADDRESS_AND_PORT, ADDRESS_AND_PORT)
BLOCKED = Nat("", "")  # maps nothing, lets nothing pass

# The kinds that an inventory declares. Sequential ports can be guessed faster; what is possible at all is the same.
KINDS: dict[str, Nat] = {
    "none": OPEN,
    "full-cone": OPEN,
    "address-dependent": ADDRESS_FILTER,
    "easy": PORT_FILTER,
    "cgnat": PORT_FILTER,  # two of them in a row filter and map as one
    "symmetric": HARD,
    "symmetric-sequential": HARD,
    "udp-blocked": BLOCKED,
}

# Each is at least as strict as those before it, in mapping and in filtering alike.
_HARDNESS = {nat: rank for rank, nat in enumerate((OPEN, ADDRESS_FILTER, PORT_FILTER, HARD, BLOCKED))}

# What the lab makes of a router without a kind (docs/lab.md).
_ROUTER_NAT = "easy"

# Both ends have an agent, both know each other's outer address, and there is somebody to relay.
TABLE: dict[tuple[Nat, Nat], tuple[str, str]] = {
    # An open end hears the other's first packet, whatever port that comes from, and answers to there.
    (OPEN, OPEN): (DIRECT, "both take packets from anybody"),
    (OPEN, ADDRESS_FILTER): (DIRECT, "one end takes packets from anybody"),
    (OPEN, PORT_FILTER): (DIRECT, "one end takes packets from anybody"),
    (OPEN, HARD): (DIRECT, "one end takes packets from anybody"),
    # Both send to the other's mapping, which is the same for everybody: each opens its own filter.
    (ADDRESS_FILTER, ADDRESS_FILTER): (DIRECT, "both mappings are known, so a hole can be punched"),
    (ADDRESS_FILTER, PORT_FILTER): (DIRECT, "both mappings are known, so a hole can be punched"),
    (PORT_FILTER, PORT_FILTER): (DIRECT, "both mappings are known, so a hole can be punched"),
    # A packet to any port of the hard end's address opens the filter for its every port.
    (ADDRESS_FILTER, HARD): (DIRECT, "one NAT filters by address alone, so the other's unknown port does no harm"),
    # The hard end's port towards this peer is unknown, and the filter wants it exactly: many ports are tried.
    (PORT_FILTER, HARD): (SPLICED, "one mapping is unknown and must be found by trying many ports"),
    # Both ports unknown: 2^32 combinations.
    (HARD, HARD): (RELAYED, "neither mapping can be known"),
    # TURN over TLS.
    (OPEN, BLOCKED): (RELAYED, "one end has no UDP: TURN over TLS"),
    (ADDRESS_FILTER, BLOCKED): (RELAYED, "one end has no UDP: TURN over TLS"),
    (PORT_FILTER, BLOCKED): (RELAYED, "one end has no UDP: TURN over TLS"),
    (HARD, BLOCKED): (RELAYED, "one end has no UDP: TURN over TLS"),
    (BLOCKED, BLOCKED): (RELAYED, "neither end has UDP: TURN over TLS"),
}


class End(NamedTuple):
    """One end. `nat` is a key of KINDS (that of several in a row is their `hardest`), None when undeclared; `agent`: it
    can punch, splice and use a relay."""

    nat: str | None = None
    endpoint: bool = False  # an address is declared at which anybody reaches it
    agent: bool = True


class Helpers(NamedTuple):
    """Who is there for a pair. `introducer`: tells each end the other's outer address. `relay`: carries ciphertext,
    over UDP at least; `tls`: for an end without UDP too, by TURN over TLS."""

    introducer: bool
    relay: bool
    tls: bool


class Outcome(NamedTuple):
    """What comes of a pair, and why, as a clause without full stop; `tls`: its packets travel inside TLS."""

    kind: str
    reason: str
    tls: bool = False


def predict(one: End, other: End, helpers: Helpers) -> Outcome:
    """The same whichever end is named first. Raises KeyError for a NAT kind that is not in KINDS."""
    ones, others = _possible(one), _possible(other)
    if not (one.agent and other.agent):
        return _without_agent(one, other, blocked=BLOCKED in ones | others)
    if not (one.endpoint or other.endpoint or helpers.introducer):
        return Outcome(UNREACHABLE, "neither has an endpoint, and no anchor introduces them")
    found = {_look_up(a, b, helpers) for a in ones for b in others}
    kinds = {outcome.kind for outcome in found}
    if len(kinds) > 1:
        undeclared = "neither NAT is" if one.nat is None and other.nat is None else "one NAT is not"
        return Outcome(UNKNOWN, f"{undeclared} declared: {' or '.join(k for k in OUTCOMES if k in kinds)}")
    outcome = min(found)
    if outcome.kind == DIRECT and (one.endpoint or other.endpoint):
        return Outcome(DIRECT, "both have an endpoint" if one.endpoint and other.endpoint else "one has an endpoint")
    return outcome


def _without_agent(one: End, other: End, *, blocked: bool) -> Outcome:
    """A stock client knows what its configuration says, and speaks nothing but UDP."""
    if blocked:
        return Outcome(UNREACHABLE, "one end has no UDP, and a stock client no other way")
    if one.endpoint or other.endpoint:
        return Outcome(DIRECT, "both have an endpoint" if one.endpoint and other.endpoint else "one has an endpoint")
    return Outcome(UNREACHABLE, "neither has an endpoint, and a stock client cannot punch a hole")


def _possible(end: End) -> frozenset[Nat]:
    """What may stand in front of this end. A declared endpoint is open by its meaning: somebody forwards the port."""
    if end.nat is None:
        return frozenset({OPEN}) if end.endpoint else frozenset(KINDS.values()) - {BLOCKED}
    nat = KINDS[end.nat]
    return frozenset({OPEN if end.endpoint and nat is not BLOCKED else nat})


def _look_up(one: Nat, other: Nat, helpers: Helpers) -> Outcome:
    kind, reason = TABLE[one, other] if (one, other) in TABLE else TABLE[other, one]
    tls = BLOCKED in (one, other)
    if kind == RELAYED and not (helpers.tls if tls else helpers.relay):
        return Outcome(UNREACHABLE, f"{reason}, and there is {'none' if tls else 'no relay'}")
    return Outcome(kind, reason, tls)


def hardest(kinds: Iterable[str]) -> str:
    """The kind as which NATs in a row behave: the strictest mapping and the strictest filtering among them.

    One kind of KINDS always has both. Raises ValueError for no kinds, KeyError for one that is not in KINDS.
    """
    return max(kinds, key=lambda kind: _HARDNESS[KINDS[kind]])


def nat_of(mesh: Mesh, node: Node) -> str | None:
    """The kind of NAT between a node and the internet, None when undeclared.

    `nat` says what all together are. Else the node's place in the lab counts: its own router, if it names a kind, and
    the declared ones that it stands behind. Of those, one without a kind is what the lab makes of it.
    """
    if node.nat or not node.lab.behind:
        return node.nat or node.lab.nat
    routers = mesh.lab.get("routers") or {}
    kinds = [node.lab.nat] if node.lab.nat else []
    at: str | None = node.lab.behind
    while at:
        router = routers.get(at) or {}
        kinds.append(router.get("nat") or _ROUTER_NAT)
        at = router.get("behind")
    return hardest(kinds)
