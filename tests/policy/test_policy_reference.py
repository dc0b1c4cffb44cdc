"""The compiler against the reference evaluator, on thousands of random rules over random meshes.

It hunts for a packet about which the two name different rules: not only a different verdict, so that a wrong order
among rules shows even where they happen to say the same.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from effort import examples
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from policy_strategies import INTERNET_HOSTS, RuleMaker, layouts
from reference import Packet, Reference

from meshctl import inventory
from meshctl.core.traffic import ICMP, OTHER, PORT_PROTOCOLS, PORTS, by_protocol
from meshctl.errors import InventoryError
from meshctl.model.mesh import Mesh
from meshctl.model.policy import INTERNET, Rule, Subject, is_prefix
from meshctl.policy import NetworkPolicy, compile_policies

SETS_OF_RULES = 5  # over each mesh; with 220 meshes and four rules a set these are 4,400 policies
PAIRS = 40  # asked about for each set of rules, in each network
POINTS = 12  # of traffic, asked about for each pair
_CONTRADICTED = re.compile(r"policy `(\w+)` has no effect")


def read(data: dict[str, Any]) -> Mesh:
    """The mesh of an inventory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.yml"
        path.write_text(json.dumps(data))  # it is YAML too, and quicker
        return inventory.read(path).mesh


def sound(data: dict[str, Any]) -> tuple[dict[str, Any], Mesh]:
    """The inventory without the rules that it is refused for, which are those that others contradict; its mesh."""
    while True:
        try:
            return data, read(data)
        except InventoryError as error:
            errors = [d for d in error.diagnostics if d.severity == "error"]
            found = {m[1] for d in errors if d.code == "contradiction" and (m := _CONTRADICTED.match(d.message))}
            assert len(found) == len(errors), errors
            data = {**data, "policies": [rule for rule in data["policies"] if rule["name"] not in found]}


def borders(mesh: Mesh, names: frozenset[str] | None = None) -> list[tuple[str, int]]:
    """(protocol, port) at and beside every border that a rule (or one of those named) draws."""
    found = {("icmp", 0), ("gre", 0), *((protocol, port) for protocol in PORT_PROTOCOLS for port in (0, 1, PORTS - 1))}
    for rule in mesh.rules:
        for protocol, first, last in by_protocol(rule.traffic) if names is None or rule.name in names else ():
            if protocol in PORT_PROTOCOLS:
                beside = (first - 1, first, last, last + 1)
                found.update((protocol, port) for port in beside if 0 <= port < PORTS)
    return sorted(found)


def number(protocol: str, port: int) -> int:
    if protocol in PORT_PROTOCOLS:
        return PORT_PROTOCOLS.index(protocol) * PORTS + port
    return ICMP if protocol == "icmp" else OTHER


def addresses(policy: NetworkPolicy, subject: Subject) -> Iterable[str]:
    """Addresses at which the subject is, at the borders of what is its own, by family."""
    if subject == INTERNET:
        return INTERNET_HOSTS
    if not is_prefix(subject):
        attachment = policy.nodes[subject].attachment(policy.name)
        return attachment.addresses if attachment else ()
    net = ip_network(subject)
    inner = [ip_network(p) for p in policy.prefixes if p != subject and ip_network(p).version == net.version]
    inner = [i for i in inner if i.subnet_of(net)]  # type: ignore[arg-type]
    edges = {int(net.network_address), int(net.broadcast_address)}
    edges |= {int(i.network_address) - 1 for i in inner} | {int(i.broadcast_address) + 1 for i in inner}
    own = [type(net.network_address)(edge) for edge in sorted(edges)]
    return [str(a) for a in own if a in net and not any(a in i for i in inner)][:2]


def pairs(policy: NetworkPolicy) -> Iterator[tuple[Subject, Subject, str, str]]:
    """(subject, subject, their addresses) of one family."""
    subjects = dict.fromkeys((*policy.subjects(), INTERNET))
    places = [(s, a, ip_address(a).version) for s in subjects for a in addresses(policy, s)]
    for one, source, version in places:
        for other, destination, its_version in places:
            if version == its_version:
                yield one, other, source, destination


def told(rule: Rule | dict[str, Any] | None) -> str:
    """The name of the rule that decides."""
    if rule is None:
        return "nobody"
    return rule.name if isinstance(rule, Rule) else str(rule["name"])


def disagreement(data: dict[str, Any], mesh: Mesh, chance: random.Random) -> str:
    """A packet about which the two disagree, in words; empty: none was found."""
    reference = Reference(data)
    for name, policy in compile_policies(mesh).networks.items():
        asked = list(pairs(policy))
        for one, other, source, destination in chance.sample(asked, min(PAIRS, len(asked))):
            about = frozenset(rule["name"] for rule in reference.about(name, source, destination))
            interesting = borders(mesh, about)
            pieces = policy.decide(one, other)
            for protocol, port in chance.sample(interesting, min(POINTS, len(interesting))):
                packet, point = Packet(name, source, destination, protocol, port), number(protocol, port)
                compiled = next((piece.rule for piece in pieces if piece.low <= point <= piece.high), None)
                expected = reference.decides(packet)
                if told(compiled) != told(expected):
                    return f"{packet}: compiled {told(compiled)}, reference {told(expected)}"
    return ""


def smallest(data: dict[str, Any], fails: Callable[[dict[str, Any]], str]) -> str:
    """What is wrong with the fewest rules that are wrong in themselves, and these."""
    for index in range(len(data["policies"])):
        fewer = {**data, "policies": [r for i, r in enumerate(data["policies"]) if i != index]}
        if fails(fewer):
            return smallest(fewer, fails)
    return f"{fails(data)}\n{json.dumps(data['policies'])}"


# Hypothesis would take minutes to make the layout smaller, which is small already.
QUICK = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.reuse, Phase.generate]}


@given(layouts(), st.integers(0, 2**32))
@settings(max_examples=examples(220), **QUICK)
def test_the_compiler_names_the_rule_that_the_reference_names(layout: dict[str, Any], seed: int) -> None:
    def fails(data: dict[str, Any]) -> str:
        return disagreement(*sound(data), random.Random(seed))  # noqa: S311

    maker = RuleMaker(layout, seed)
    for _ in range(SETS_OF_RULES):
        data = {**layout, "policies": maker.policies()}
        assert not fails(data), smallest(data, fails)


@given(layouts(), st.integers(0, 2**32))
@settings(max_examples=examples(60), **QUICK)
def test_those_are_peers_between_whom_some_packet_may_pass_and_nobody_else(layout: dict[str, Any], seed: int) -> None:
    data, mesh = sound({**layout, "policies": RuleMaker(layout, seed).policies()})
    reference, decisions = Reference(data), compile_policies(mesh)
    for network, reaches in decisions.reaches().items():
        met: dict[str, set[str]] = {name: set() for name in reaches}
        for _, _, source, destination in pairs(decisions.network(network)):
            way = reference.between(network, source, destination)
            if way and any(reference.allowed(Packet(network, source, destination, *p)) for p in borders(mesh)):
                met[way[0]].add(way[1])
                met[way[1]].add(way[0])
        assert {name: reach.peers - {name} for name, reach in reaches.items()} == met
