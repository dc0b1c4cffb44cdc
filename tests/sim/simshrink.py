"""Makes a failing world smaller, as long as it fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from simspec import Link, NodeSpec, SiteSpec, WorldSpec

# Worlds that are tried at most; each takes as long as the first one.
MAX_TRIES = 150


def shrink(spec: WorldSpec, fails: Callable[[WorldSpec], bool], tries: int = MAX_TRIES) -> WorldSpec:
    """The smallest world that was found in which `fails` is still true; the same one if none is."""
    left = tries
    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in simpler(spec):
            left -= 1
            if fails(candidate):
                spec, smaller = candidate, True
                break
            if left <= 0:
                break
    return spec


def simpler(spec: WorldSpec) -> Iterator[WorldSpec]:
    """Worlds with one thing less, the biggest things first."""
    for node in reversed(spec.nodes):
        if len(spec.nodes) > 2:
            yield without_node(spec, node)
    for fault in spec.faults:
        yield replace(spec, faults=tuple(f for f in spec.faults if f != fault))
    if spec.outsider:
        yield replace(spec, outsider=False)
    if spec.stun:
        yield replace(spec, stun="")
    for flow in spec.flows:
        yield replace(spec, flows=tuple(f for f in spec.flows if f != flow))
    for override in spec.overrides:
        yield replace(spec, overrides=tuple(o for o in spec.overrides if o != override))
    for pair in spec.pairs:
        yield _of_pairs(spec, tuple(p for p in spec.pairs if p != pair))
    if spec.link != Link():
        yield replace(spec, link=Link())
    yield from _plainer_sites(spec)
    yield from _plainer_nodes(spec)


def without_node(spec: WorldSpec, node: NodeSpec) -> WorldSpec:
    """The world without a node, and what hangs on it."""
    name = node.name
    left = replace(
        spec, nodes=tuple(n for n in spec.nodes if n != node),
        faults=tuple(f for f in spec.faults if f.target != name and f.value.partition(" ")[0] != name),
        overrides=tuple(o for o in spec.overrides if name not in o[:2]),
    )  # fmt: skip
    return _of_pairs(left, tuple(p for p in spec.pairs if name not in p))


def _of_pairs(spec: WorldSpec, pairs: tuple[tuple[str, str], ...]) -> WorldSpec:
    flows = tuple(f for f in spec.flows if (min(f.a, f.b), max(f.a, f.b)) in pairs)
    return replace(spec, pairs=pairs, flows=flows)


def _plainer_sites(spec: WorldSpec) -> Iterator[WorldSpec]:
    used = {n.site for n in spec.nodes} | {f.target for f in spec.faults} | {f.value for f in spec.faults}
    used |= {s.carrier for s in spec.sites}
    for site in spec.sites:
        others = tuple(s for s in spec.sites if s != site)
        if site.name not in used:
            yield replace(spec, sites=others)
            continue
        for change in ({"speaks": (), "lie": ""}, {"v6": False}):
            plainer = replace(site, **change)
            if plainer != site:
                yield replace(spec, sites=tuple(plainer if s == site else s for s in spec.sites))


def _plainer_nodes(spec: WorldSpec) -> Iterator[WorldSpec]:
    for node in spec.nodes:
        for change in (
            {"second": False}, {"others": 0}, {"gateless": False}, {"v6": False, "v4": True}, {"userspace": False},
            {"far_s": 0.0}, {"starts_at": 0.0},
        ):  # fmt: skip
            plainer = replace(node, **change)
            if plainer != node:
                yield replace(spec, nodes=tuple(plainer if n == node else n for n in spec.nodes))
    if spec.named_anchors:
        yield replace(spec, named_anchors=False, ttl_s=None)
    if spec.ttl_s is not None:
        yield replace(spec, ttl_s=None)


def describe(spec: WorldSpec) -> str:
    """The world in a few lines, for a person."""
    lines = [f"seed {spec.seed}, {spec.link}, until {int(spec.seconds)} s; pairs {spec.pairs}"]
    lines += [f"  {_site(site)}" for site in spec.sites]
    lines += [f"  {_node(node)}" for node in spec.nodes]
    lines += [
        f"  {f.a} pings {f.b} every {f.every_s} s{', which does not answer' * f.one_way}" for f in spec.flows
    ]
    lines += [f"  at {int(f.at * 1000) / 1000} s: {f}" for f in spec.faults]
    lines += [f"  override: {o}" for o in spec.overrides]
    lines += [f"  a STUN server, {spec.stun}"] if spec.stun else []
    lines += [f"  anchors have names; TTL: {spec.ttl_s} s"] if spec.named_anchors else []
    lines += ["  an outsider replays"] if spec.outsider else []
    return "\n".join(lines)


def _site(site: SiteSpec) -> str:
    nat = site.nat
    words = [f"{nat.mapping} mapping", f"{nat.filtering} filtering", f"{nat.allocation} ports"]
    words += [f"expires in {int(nat.expiry_s)} s"]
    words += ["hairpin"] if nat.hairpin else []
    words += ["UDP blocked"] if nat.blocked else []
    words += ["IPv6"] if site.v6 else []
    words += [f"behind {site.carrier}"] if site.carrier else []
    words += ["/".join(site.speaks)] if site.speaks else []
    words += [f"lies: {site.lie}"] if site.lie else []
    return f"{site.name} {site.lan}: {', '.join(words)}"


def _node(node: NodeSpec) -> str:
    words = [f"{node.kind} at {node.site or 'the internet'}"]
    words += ["IPv4"] if node.v4 else []
    words += ["IPv6"] if node.v6 else []
    words += ["and 172.17.0.1"] if node.second else []
    words += [f"and {node.others} that lead nowhere"] if node.others else []
    words += ["told of no gateway"] if node.gateless else []
    words += [f"{node.far_s} s farther away"] if node.far_s else []
    words += ["a userspace WireGuard"] if node.userspace else []
    return f"{node.name}: {', '.join(words)}, from {int(node.starts_at * 1000) / 1000} s"
