"""The compiler against the reference evaluator, on random inventories."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from policy_strategies import INTERNET_HOSTS, layouts, policies
from reference import Packet, Reference

from meshctl import inventory
from meshctl.core.traffic import ICMP, OTHER, PORT_PROTOCOLS, PORTS, by_protocol
from meshctl.errors import InventoryError
from meshctl.model.mesh import Mesh
from meshctl.model.policy import INTERNET, Subject, is_prefix
from meshctl.policy import NetworkPolicy, compile_policies


def read(data: dict[str, Any]) -> Mesh:
    """The mesh of an inventory. Rules that contradict each other are refused, so such a draw is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.yml"
        path.write_text(yaml.safe_dump(data))
        try:
            return inventory.read(path).mesh
        except InventoryError as error:
            codes = {d.code for d in error.diagnostics if d.severity == "error"}
            assert codes == {"contradiction"}, error.diagnostics  # noqa: PT017
            assume(False)
            raise


@st.composite
def inventories(draw: st.DrawFn) -> dict[str, Any]:
    layout = draw(layouts())
    return {**layout, "policies": draw(policies(layout))}


def points(mesh: Mesh) -> list[tuple[str, int]]:
    """(protocol, port) at and beside every border that a rule names."""
    found = {("icmp", 0), ("gre", 0), *((protocol, port) for protocol in PORT_PROTOCOLS for port in (0, 1, PORTS - 1))}
    for rule in mesh.rules:
        for protocol, first, last in by_protocol(rule.traffic):
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
    places = [(s, a) for s in policy.subjects() for a in addresses(policy, s)]
    for one, source in places:
        for other, destination in places:
            if ip_address(source).version == ip_address(destination).version:
                yield one, other, source, destination


@given(inventories())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_compiler_agrees_with_the_reference_about_every_pair(data: dict[str, Any]) -> None:
    mesh = read(data)
    reference, interesting = Reference(data), points(mesh)
    chance = random.Random(0)  # noqa: S311
    for name, policy in compile_policies(mesh).networks.items():
        for one, other, source, destination in pairs(policy):
            allowed = policy.allowed(one, other)
            for protocol, port in chance.sample(interesting, 5):
                packet = Packet(name, source, destination, protocol, port)
                point = number(protocol, port)
                compiled = any(low <= point <= high for low, high in allowed)
                assert compiled == reference.allowed(packet), (packet, one, other)
