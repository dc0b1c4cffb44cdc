"""Small worlds, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

from simchanges import NATS
from simfaults import KINDS
from simlong import lengthened
from simnat import PRESERVING, RANDOM, SEQUENTIAL, Behaviour
from simspec import INTERNET, LIES, SETTLE_S, Fault, Flow, Link, NodeSpec, SiteSpec, WorldSpec
from simstun import MANNERS
from simways import BLOCKS

from meshctl.core.reachability import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT

_CALM_S = 12.0  # before the first fault
_FAULTS_S = 24.0
_STARTS_S = 2.0
_NODES = (2, 2, 2, 2, 2, 3, 3, 3, 4, 5)
# Now and then a world lives through WireGuard's rekeying (120 s) and the expiry of most NATs.
_LONG_S = 150.0
_LASTS = 0.01  # and now and then through two hours
# One of several anchors is farther away than the others, by so much each way.
_FAR, _FAR_S = 0.2, (0.04, 0.08)
# Now and then nodes at home have more addresses that lead nowhere, so many, and where nobody maps ports their agents
# may be told of no gateway, so that all look alike.
_ROUTERS = 0.2
_OTHERS = (0, 1, 3, 5, 12)
_STUN = 0.15  # there is a STUN server besides the anchors
_TTLS_S = (None, 0, 30, 300, 86_400)  # of anchors' names: none, and on both sides of all bounds of the resolver
_EXPIRY_S = (20.0, 30.0, 60.0, 120.0, 300.0)
# Now and then something happens while ports are tried for a splice, which begins when all pairs have failed.
_SPLICES = 0.05
_SPLICE_AT_S, _SPLICE_S = 4.5, 5.0
_AT_SPLICES = ("agent dies", "anchor off", "anchors off", "deaf", "host off", "mute", "partition", "unplug")
_PINGS_S = (0.2, 0.2, 0.5, 1.0)
# Nobody answers. Not where links lose: the few keepalives of WireGuard's that answer within blockage.BLOCKED_S may all
# be lost, and a path be taken for one that drops its packets.
_ONE_WAY = 0.15
_USERSPACE = 0.08  # some WireGuards are, and two ends talk before their agents have started
_LANS = ("192.168.1", "192.168.1", "192.168.178", "10.0.0", "172.17.0")  # the last is where containers are, too
_PROTOCOLS = ((), (), ("pcp",), ("nat-pmp",), ("upnp",), ("pcp", "nat-pmp", "upnp"))
_LINKS = (
    Link(), Link(), Link(),
    Link(delay_s=0.002), Link(delay_s=0.08, jitter_s=0.05), Link(jitter_s=0.03, loss=0.02, duplication=0.02),
    Link(loss=0.05), Link(mtu=1300), Link(jitter_s=0.02, loss=0.08), Link(delay_s=0.2),
)  # fmt: skip


def draw(seed: int) -> WorldSpec:
    """The world of this seed: the same on every Python version."""
    dice = random.Random(f"world {seed}")  # noqa: S311
    link = dice.choice(_LINKS)
    sites = _sites(dice)
    nodes = _nodes(dice, sites)
    splices = dice.random() < _SPLICES
    if splices:
        sites, nodes = _hard_and_easy(sites, nodes)
    agents = [n.name for n in nodes if n.kind != "anchor"]
    pairs = tuple(
        (a, b) for a, b in combinations(agents, 2) if (a, b) == (agents[0], agents[1]) or dice.random() < 0.7
    )
    spec = WorldSpec(
        seed, link, sites, nodes, pairs, named_anchors=dice.random() < 0.2,
        outsider=not link.loss and dice.random() < 0.25,
    )  # fmt: skip
    earliest_s = _CALM_S if dice.random() < 0.8 else 0.5
    faults = _faults(dice, spec, earliest_s, _FAULTS_S, sorted(KINDS))
    if splices:
        faults = _faults(dice, spec, _SPLICE_AT_S, _SPLICE_S, _AT_SPLICES)
    quiet_at = max([_CALM_S, *(f.ends_at + KINDS[f.kind].keys_s for f in faults)])
    if spec.outsider or any(n.kind == "malicious" for n in nodes):
        quiet_at = max(quiet_at, _CALM_S + 8.0)
    if dice.random() < 0.04:
        quiet_at += _LONG_S
    seconds = quiet_at + SETTLE_S
    flows = tuple(
        Flow(*dice.choice((pair, pair[::-1])), dice.uniform(0.0, 6.0), dice.choice(_PINGS_S), seconds - 12.0)
        for pair in pairs
        if dice.random() < 0.3 or (splices and pair == ("n0", "n1"))
    )
    overrides: tuple[tuple[str, str, str], ...] = ()
    if dice.random() < 0.1:
        pair = dice.choice(pairs)
        overrides = ((*dice.choice((pair, pair[::-1])), dice.choice(("relay", "direct", "prefer-relay"))),)
    spec = WorldSpec(
        seed, link, sites, nodes, pairs, flows, faults, overrides, spec.outsider, spec.named_anchors, quiet_at, seconds
    )
    spec = replace(spec, stun=dice.choice(MANNERS) if dice.random() < _STUN else "")
    spec = _with_one_way(spec, dice) if dice.random() < _ONE_WAY and not link.loss else spec
    spec = _with_userspace(spec, dice) if dice.random() < _USERSPACE else spec
    spec = lengthened(spec, dice) if dice.random() < _LASTS else spec
    spec = _with_far_anchor(spec, dice) if dice.random() < _FAR and len(spec.anchors) > 1 else spec
    spec = replace(spec, ttl_s=dice.choice(_TTLS_S)) if spec.named_anchors else spec
    return _with_routers(spec, dice) if dice.random() < _ROUTERS else spec


def _with_far_anchor(spec: WorldSpec, dice: random.Random) -> WorldSpec:
    """The same with one anchor, whichever, on another continent."""
    far, far_s = dice.choice(spec.anchors), dice.choice(_FAR_S)
    return replace(spec, nodes=tuple(replace(n, far_s=far_s) if n == far else n for n in spec.nodes))


def _with_routers(spec: WorldSpec, dice: random.Random) -> WorldSpec:
    """The same where hosts are routers for networks of their own."""
    gateless = dice.random() < 0.5 and not any(s.speaks for s in spec.sites)
    return replace(spec, nodes=tuple(
        replace(n, others=dice.choice(_OTHERS), gateless=gateless) if n.kind == "node" else n for n in spec.nodes
    ))  # fmt: skip


def _with_one_way(spec: WorldSpec, dice: random.Random) -> WorldSpec:
    """The same with a flow to the end that nobody answers, in the place of one that there was between these two."""
    pair = dice.choice(spec.pairs)
    a, b = dice.choice((pair, pair[::-1]))
    flow = Flow(a, b, dice.uniform(0.0, 6.0), dice.choice(_PINGS_S), spec.seconds, one_way=True)
    return replace(spec, flows=(*(f for f in spec.flows if {f.a, f.b} != {a, b}), flow))


def _with_userspace(spec: WorldSpec, dice: random.Random) -> WorldSpec:
    """The same where each WireGuard may be one of userspace, and a pair whose both ends begin to talk at once.

    Nothing befalls them before they have met: where the first handshake is lost, the next two may cross, and so may
    those after them, as long as both ends talk all the time.
    """
    nodes = tuple(replace(n, userspace=dice.random() < 0.7) for n in spec.nodes)
    a, b = dice.choice(spec.pairs)
    starts_at, every_s = dice.uniform(0.0, _STARTS_S), dice.choice(_PINGS_S)
    both = tuple(Flow(*ends, starts_at, every_s, spec.seconds - 12.0) for ends in ((a, b), (b, a)))
    faults = tuple(f for f in spec.faults if f.at >= _CALM_S)
    return replace(spec, nodes=nodes, faults=faults, flows=(*(f for f in spec.flows if {f.a, f.b} != {a, b}), *both))


def behaviour(dice: random.Random, easy: int = 7) -> Behaviour:
    """A NAT; of those that map by destination there are four for each `easy`.

    None filters more loosely than it maps: it finds a flow by what it maps by. One that let everybody in by the port of
    any flow would answer each from another port, so that no two of them could ever agree on a pair.
    """
    mapping = dice.choice((INDEPENDENT,) * easy + (ADDRESS,) + (ADDRESS_AND_PORT,) * 3)
    filtering = dice.choice((INDEPENDENT,) * 2 + (ADDRESS,) * 2 + (ADDRESS_AND_PORT,) * 6)
    filtering = max(filtering, mapping, key=(INDEPENDENT, ADDRESS, ADDRESS_AND_PORT).index)
    return Behaviour(
        mapping, filtering, dice.choice((PRESERVING, PRESERVING, RANDOM, SEQUENTIAL)),
        expiry_s=dice.choice(_EXPIRY_S), hairpin=dice.random() < 0.3, blocked=dice.random() < 0.03,
    )  # fmt: skip


def _sites(dice: random.Random) -> tuple[SiteSpec, ...]:
    carriers = [
        SiteSpec(number, behaviour(dice), f"100.64.{200 + number}") for number in range(dice.choice((0, 0, 0, 1)))
    ]
    homes = [
        SiteSpec(
            number, behaviour(dice), dice.choice(_LANS),
            carrier := dice.choice((INTERNET, INTERNET, *(c.name for c in carriers))),
            v6=not carrier and dice.random() < 0.3, speaks=dice.choice(_PROTOCOLS),
            lie=dice.choice(LIES) if dice.random() < 0.3 else "",
        )
        for number in range(len(carriers), len(carriers) + dice.randint(1, 4))
    ]  # fmt: skip
    return (*carriers, *homes)


def _nodes(dice: random.Random, sites: tuple[SiteSpec, ...]) -> tuple[NodeSpec, ...]:
    anchors_v6 = dice.random() < 0.6
    anchors = [
        NodeSpec(f"a{n}", n, kind="anchor", v6=anchors_v6) for n in range(dice.choice((1, 2, 2, 3)))
    ]
    nodes = []
    for n in range(dice.choice(_NODES)):
        number = len(anchors) + n
        place = dice.choice((INTERNET, *(s.name for s in sites), *(s.name for s in sites)))
        kind = "node"
        if n >= 2:
            kind = dice.choice(("node",) * 10 + ("client", "malicious"))
        v6 = dice.random() < 0.5
        v4 = not (v6 and anchors_v6 and dice.random() < 0.15)
        nodes.append(
            NodeSpec(f"n{n}", number, place, kind, v4, v6, dice.random() < 0.15, dice.uniform(0.0, _STARTS_S))
        )
    return (*anchors, *nodes)


def _hard_and_easy(
    sites: tuple[SiteSpec, ...], nodes: tuple[NodeSpec, ...]
) -> tuple[tuple[SiteSpec, ...], tuple[NodeSpec, ...]]:
    """The same with the first two nodes behind NATs of their own, of which only a splice leads to the other."""
    first = len(sites)
    hard = SiteSpec(first, replace(NATS["hard"], allocation=RANDOM), "192.168.7")
    easy = SiteSpec(first + 1, NATS["easy"], "192.168.8")
    places = {"n0": hard.name, "n1": easy.name}
    moved = (replace(n, site=places[n.name], v4=True, v6=False) if n.name in places else n for n in nodes)
    return (*sites, hard, easy), tuple(moved)


def _faults(
    dice: random.Random, spec: WorldSpec, earliest_s: float, within_s: float, kinds: Iterable[str]
) -> tuple[Fault, ...]:
    """What goes wrong, from that time on; most of it is over within so many seconds."""
    targets = {
        "site": [s.name for s in spec.sites],
        "anchor": [n.name for n in spec.anchors],
        "agent": [n.name for n in spec.nodes if n.kind in ("node", "malicious")],
        "node": [n.name for n in spec.nodes if n.kind != "anchor"],
        "": [""],
        "name": [n.name for n in spec.anchors] if spec.named_anchors else [],
    }
    targets["end"] = targets["site"] + targets["node"] + targets["anchor"]
    found = []
    for _ in range(dice.choice((0, 0, 1, 1, 1, 2, 3, 5))):
        name = dice.choice([k for k in kinds if targets[KINDS[k].target]])
        kind = KINDS[name]
        lasts_s = dice.uniform(0.2, kind.longest_s) if kind.longest_s else 0.0
        at = earliest_s + dice.uniform(0.0, max(within_s - lasts_s, _SPLICE_S))
        target = dice.choice(targets[kind.target])
        found.append(Fault(name, at, lasts_s, target, _value(dice, spec, name, target)))
    return tuple(sorted(found, key=lambda f: (f.at, f.kind, f.target)))


def _value(dice: random.Random, spec: WorldSpec, kind: str, target: str) -> str:
    places = [INTERNET, *(s.name for s in spec.sites)]
    if kind in ("roam", "double"):
        return dice.choice(places)
    peers = [n for pair in spec.pairs for n in pair if target in pair and n != target]
    if kind == BLOCKS:
        return dice.choice(peers) if peers else target
    if kind == "pair ends":
        found = [n for n in peers if spec.node(n).has_agent]
        return dice.choice(found) if found else target
    if kind == "override":
        return f"{dice.choice(peers)} {dice.choice(('relay', 'direct', 'prefer-relay'))}" if peers else f"{target} "
    choices = {
        "router reboot": ("", "renumbered"), "nat becomes": tuple(sorted(NATS)),
        "host off": ("", "lost"), "anchor off": ("", "lost"), "anchors off": ("", "lost"),
        "anchor's agent dies": ("", "lost", "damaged"), "agent dies": ("", "lost", "damaged"),
        "clock": ("0.5", "5", "60", "3600"), "slow": ("0.2", "1", "3"), "anchor leaves": ("", "demoted"),
        "wall clock": ("-3600", "-60", "60", "3600"),
    }  # fmt: skip
    return dice.choice(choices.get(kind, ("",)))
