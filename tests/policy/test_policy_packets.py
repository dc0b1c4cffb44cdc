"""The rendered nftables judged by real packets: what the kernel does is what the reference says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from asking import borders, smallest, sound
from effort import examples
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from packets import PROTOCOLS, SELF, Host
from policy_strategies import INTERNET_HOSTS, LANS, RuleMaker, inventory, node
from reference import End, Packet, Reference

from meshctl.core.psk import PskRing
from meshctl.model.keys import Secret
from meshctl.model.mesh import Mesh
from meshctl.model.resources import Nftables
from meshctl.policy import Compiled, compile_mesh
from meshctl.render import Renderer

pytestmark = pytest.mark.lab
SECRET = Secret("tests of the firewall need a mesh secret of some length 0123456789")
LAYOUT = inventory(
    {
        "hub": node(1, ("corp",), endpoint=True, roles=["anchor"]),
        "gate": node(2, ("corp", "lab"), roles=["gateway"], routes=list(LANS), relay="routed")
        | {"endpoint": {"lab": "203.0.113.2:51820"}},
        "exit": node(3, ("corp",), roles=["gateway"], endpoint=True, exit_node=True),
        "n4": node(4, ("corp", "lab"), groups=["inner"], tags=["red"], relay="routed"),
        "n5": node(5, ("corp",), groups=["outer"], exit_via="exit"),
        "n6": node(6, ("corp",), tags=["blue"], relay="routed", exit_via="exit2"),
        "n7": node(7, ("lab",), endpoint=True, tags=["red"]),
        "n8": node(8, ("corp", "lab"), groups=["inner"], endpoint=True),
        "exit2": node(10, ("corp",), roles=["gateway"], endpoint=True, exit_node=True),
        "phone": node(9, ("corp",), client=True, peers=["hub"], tags=["blue"]),
    },
    ("corp", "lab"),
)
NODES: dict[str, dict[str, Any]] = LAYOUT["nodes"]
INTERFACES = {"corp": "wg0", "lab": "wg1"}
PRIVATE = ("10.9.9.9", "192.168.77.1", "172.16.0.1", "100.64.0.1", "fd77::1")
BEHIND = ("192.168.10.1", "192.168.10.9", "192.168.10.200", "fd99::9", "fd99::1:0:0:1")
# Only addresses that somebody has: WireGuard itself drops what comes from any other.
OF_NODES = {network: [a for n in NODES.values() for a in n["address"].get(network, ())] for network in INTERFACES}
HOME = {a: name for name, n in NODES.items() for own in n["address"].values() for a in own}
HOME.update(dict.fromkeys(BEHIND, "gate"))
EVERYWHERE = {"corp": [*OF_NODES["corp"], *BEHIND, *INTERNET_HOSTS], "lab": [*OF_NODES["lab"], *BEHIND]}


@pytest.fixture(scope="module", params=["n4", "n5", "gate", "hub", "exit"])
def host(request: pytest.FixtureRequest) -> Iterator[tuple[str, Host]]:
    made = host_of(request.param)
    yield request.param, made
    made.close()


def host_of(name: str) -> Host:
    """A node of the layout, without its table."""
    lan = "lan0" if name == "gate" else "wg0"
    addresses = {
        INTERFACES[network]: [f"{a}/64" if ":" in a else f"{a}/16" for a in own]
        for network, own in NODES[name]["address"].items()
    }
    return Host(addresses, {**dict.fromkeys(LANS, lan), "0.0.0.0/0": "lan0", "::/0": "lan0"})


def table(compiled: Compiled, name: str) -> str:
    doc = Renderer(compiled, PskRing(SECRET)).node(name)
    return next(r for r in doc.resources if isinstance(r, Nftables)).text


def expected(compiled: Compiled, reference: Reference, name: str, device: str, packet: Packet) -> str | None:
    """Where the packet should come out; None when either is right, as for pairs that this anchor need not carry."""
    interface = INTERFACES[packet.network]
    source, destination = (reference.end(packet.network, a) for a in (packet.source, packet.destination))
    allowed = reference.allowed(packet)
    if device == SELF:
        return interface if allowed or not (destination and NODES[destination.node].get("client")) else ""
    if source is None or destination is None or not allowed:
        return ""
    if device == "lan0":
        return interface if source.node == name and source.behind else ""
    return _out_of_the_mesh(compiled, name, packet, source, destination)


def _out_of_the_mesh(compiled: Compiled, name: str, packet: Packet, source: End, destination: End) -> str | None:
    if destination.node == name:
        return "lan0" if destination.behind else INTERFACES[packet.network]
    if destination.node == "internet":
        return "lan0" if NODES[source.node].get("exit_via") == name else ""
    link = next(link for link in compiled.topology.links[name] if link.network == packet.network)
    return INTERFACES[packet.network] if destination.node in link.carried.get(source.node, ()) else None


def sample(mesh: Mesh, name: str, chance: random.Random) -> Iterator[tuple[str, Packet]]:
    """(device, packet) of connections that somebody may open by way of the node, or that it opens itself."""
    # Port 0 is none: the kernel itself drops such a TCP segment.
    interesting = [(p if p in PROTOCOLS else "other", n) for p, n in borders(mesh) if n or p not in ("tcp", "sctp")]
    for network, own in NODES[name]["address"].items():
        elsewhere = [a for other, found in NODES[name]["address"].items() if other != network for a in found]
        for source in EVERYWHERE[network]:
            for destination in [*EVERYWHERE[network], *elsewhere]:
                device = _device(name, network, source, destination, own)
                if device and (":" in source) == (":" in destination):
                    yield device, Packet(network, source, destination, *chance.choice(interesting))


def _device(name: str, network: str, source: str, destination: str, own: list[str]) -> str:
    """Where such a packet comes from, seen from the node; empty: it never sees one."""
    if HOME.get(source) == HOME.get(destination) or not _meet_in(network, source, destination):
        return ""
    if source in own:
        return SELF if destination in OF_NODES[network] else ""
    if source in BEHIND and name == "gate":
        return "" if destination in INTERNET_HOSTS else "lan0"
    return INTERFACES[network]


def _meet_in(network: str, source: str, destination: str) -> bool:
    """Whether WireGuard would take such a packet: what is behind a gateway is routed in one network for each node."""
    others = [NODES[HOME[end]]["networks"][0] for end in (source, destination) if end in HOME and end not in BEHIND]
    return len(others) != 1 or (source not in BEHIND and destination not in BEHIND) or others == [network]


def disagreement(host: tuple[str, Host], data: dict[str, Any]) -> str:
    """A packet with which the kernel does something else than the reference says; empty: there was none."""
    name, namespace = host
    written, mesh = sound(data)
    compiled, reference = compile_mesh(mesh), Reference(written)
    namespace.load(table(compiled, name))
    for device, packet in sample(mesh, name, random.Random(0)):  # noqa: S311
        wanted = expected(compiled, reference, name, device, packet)
        seen = namespace.passes(device, packet.source, packet.destination, packet.protocol, packet.port)
        if seen != wanted and (wanted is not None or seen not in ("", INTERFACES[packet.network])):
            return f"{device} {packet}: came out at {seen or 'no device'}, not at {wanted or 'no device'}"
    return ""


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=examples(25),
    deadline=None,
    derandomize=examples(1) == 1,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_kernel_does_with_packets_what_the_reference_says(host: tuple[str, Host], seed: int) -> None:
    data = {**LAYOUT, "policies": RuleMaker(LAYOUT, seed).policies()}
    assert not disagreement(host, data), smallest(data, lambda fewer: disagreement(host, fewer))


@pytest.mark.parametrize("host", ["exit"], indirect=True)
def test_an_exit_node_leads_its_users_to_the_internet_and_to_no_private_address(host: tuple[str, Host]) -> None:
    rule = {"name": "out", "from": "*", "to": "internet", "allow": ["any"]}
    host[1].load(table(compile_mesh(sound({**LAYOUT, "policies": [rule]})[1]), "exit"))

    def led(user: str, destination: str) -> bool:
        source = NODES[user]["address"]["corp"][":" in destination]
        return host[1].passes("wg0", source, destination, "udp", 443) == "lan0"

    assert [led("n5", to) for to in INTERNET_HOSTS] == [True, True]
    assert [led(user, to) for user in ("n4", "n6") for to in INTERNET_HOSTS] == [False] * 4, "they use none, or another"
    assert [to for to in PRIVATE if led("n5", to)] == []
