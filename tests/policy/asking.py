"""Inventories as dicts, read as the product reads them, and the packets that are worth asking about."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from policy_strategies import INTERNET_HOSTS

from meshctl import inventory
from meshctl.core.traffic import ICMP, OTHER, PORT_PROTOCOLS, PORTS, by_protocol
from meshctl.errors import InventoryError
from meshctl.model.mesh import Mesh
from meshctl.model.policy import INTERNET, Subject, is_prefix
from meshctl.policy import NetworkPolicy

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
    """The point on the line of all traffic (core.traffic)."""
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


def smallest(data: dict[str, Any], fails: Callable[[dict[str, Any]], str]) -> str:
    """What is wrong with the fewest rules that are wrong in themselves, and these."""
    for index in range(len(data["policies"])):
        fewer = {**data, "policies": [r for i, r in enumerate(data["policies"]) if i != index]}
        if fails(fewer):
            return smallest(fewer, fails)
    return f"{fails(data)}\n{json.dumps(data['policies'])}"
