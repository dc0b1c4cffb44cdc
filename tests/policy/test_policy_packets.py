"""The rendered nftables judged by real packets: what the kernel does is what the reference says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from packets import PROTOCOLS, Host
from policy_strategies import INTERNET_HOSTS, inventory, node, policies
from reference import Packet, Reference
from test_policy_reference import points, read

from meshctl.core.psk import PskRing
from meshctl.model.keys import Secret
from meshctl.model.mesh import Mesh
from meshctl.model.resources import Nftables
from meshctl.policy import Compiled, compile_mesh
from meshctl.render import Renderer

pytestmark = pytest.mark.lab
SECRET = Secret("tests of the firewall need a mesh secret of some length 0123456789")
LANS = ["192.168.10.0/24", "fd99::/64"]
LAYOUT = inventory(
    {
        "hub": node(1, ("corp",), endpoint=True, roles=["anchor"]),
        "gate": node(2, ("corp",), roles=["gateway"], routes=LANS, relay="routed"),
        "exit": node(3, ("corp",), roles=["gateway"], endpoint=True, exit_node=True),
        "n4": node(4, ("corp",), groups=["inner"], tags=["red"], relay="routed"),
        "n5": node(5, ("corp",), groups=["outer"], exit_via="exit"),
        "n6": node(6, ("corp",), tags=["blue"], relay="routed", exit_via="exit"),
    }
)
BEHIND = ("192.168.10.1", "192.168.10.9", "192.168.10.200", "fd99::9", "fd99::1:0:0:1")
# Only addresses that somebody has: WireGuard itself drops what comes from any other.
EVERYWHERE = [a for n in LAYOUT["nodes"].values() for a in n["address"]["corp"]] + [*BEHIND, *INTERNET_HOSTS]


@pytest.fixture(scope="module", params=["n4", "gate", "hub", "exit"])
def host(request: pytest.FixtureRequest) -> Iterator[tuple[str, Host]]:
    name: str = request.param
    lan = "lan0" if name == "gate" else "wg0"
    own = LAYOUT["nodes"][name]["address"]["corp"]
    addresses = [f"{a}/64" if ":" in a else f"{a}/16" for a in own]
    made = Host({"wg0": addresses}, {**dict.fromkeys(LANS, lan), "0.0.0.0/0": "lan0", "::/0": "lan0"})
    yield name, made
    made.close()


def table(compiled: Compiled, name: str) -> str:
    doc = Renderer(compiled, PskRing(SECRET)).node(name)
    return next(r for r in doc.resources if isinstance(r, Nftables)).text


def expected(compiled: Compiled, reference: Reference, name: str, device: str, packet: Packet) -> str | None:
    """Where the packet should come out; None when either is right, as for pairs that this anchor need not carry."""
    source, destination = (reference.end("corp", a) for a in (packet.source, packet.destination))
    if source is None or destination is None or not reference.allowed(packet):
        return ""
    if device == "lan0":
        return "wg0" if source.node == name and source.behind else ""
    if destination.node == name:
        return "lan0" if destination.behind else "wg0"
    if destination.node == "internet":
        return "lan0" if reference.nodes[source.node].get("exit_via") == name else ""
    carried = compiled.topology.links[name][0].carried.get(source.node, ())
    return "wg0" if destination.node in carried else None


def sample(mesh: Mesh, name: str, chance: random.Random) -> Iterator[tuple[str, Packet]]:
    """(device, packet) of connections that somebody may open by way of the node."""
    own = LAYOUT["nodes"][name]["address"]["corp"]
    judged = [(p, n) for p, n in points(mesh) if p != "sctp" and (n or p != "tcp")]
    interesting = [(p if p in PROTOCOLS else "other", n) for p, n in judged]
    for source in EVERYWHERE:
        for destination in EVERYWHERE:
            behind = source in BEHIND and name == "gate"
            same_family = (":" in source) == (":" in destination)
            if not same_family or source in (destination, *own):
                continue
            if not (behind and destination in (*own, *BEHIND, *INTERNET_HOSTS)):
                yield "lan0" if behind else "wg0", Packet("corp", source, destination, *chance.choice(interesting))


@given(data=st.data())
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_kernel_does_with_packets_what_the_reference_says(host: tuple[str, Host], data: st.DataObject) -> None:
    name, namespace = host
    written: dict[str, Any] = {**LAYOUT, "policies": data.draw(policies(LAYOUT))}
    mesh = read(written)
    compiled, reference = compile_mesh(mesh), Reference(written)
    namespace.load(table(compiled, name))
    for device, packet in sample(mesh, name, random.Random(0)):  # noqa: S311
        wanted = expected(compiled, reference, name, device, packet)
        seen = namespace.passes(device, packet.source, packet.destination, packet.protocol, packet.port)
        assert seen == wanted or (wanted is None and seen in ("", "wg0")), (device, packet)
