"""Namespaces, NATs and WireGuards of a stage: as data, which can be sent to another machine, and the building of them.

Runs in a virtual machine too, whose Python has the standard library alone, and of meshctl what this module imports.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.lab import nat, network, wiring
from meshctl.lab.blueprint import Blueprint
from meshctl.lab.names import INTERNET, state_dir
from meshctl.lab.shell import in_netns, ip_batch

# Which WireGuard: wireguard-go, or the one of the kernel that runs.
GO, KERNEL = "wireguard-go", "kernel"


@dataclass(frozen=True)
class Tunnel:
    """A WireGuard interface of a node: what `wg setconf` reads, and mesh addresses with prefix length."""

    node: str
    interface: str
    config: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """All of a stage that is there before an agent runs. Tunnels are in the order in which they come up."""

    blueprint: Blueprint
    tunnels: tuple[Tunnel, ...]


def build(name: str, scene: Scene, wireguard: str) -> None:
    """Make the scene from namespaces of the lab NAME. Raises LabError when something cannot be made."""
    plan = scene.blueprint
    network.create_namespaces(name, [INTERNET, *plan.elements()])
    network.prepare_routers(name, plan.routers)
    slow = wiring.impaired(plan.links)
    network.connect(name, plan.links, slow)
    if slow:
        state_dir(name).mkdir(parents=True, exist_ok=True)
        wiring.lay(name, slow, ())
    for link in slow:
        network.await_up(name, link.child, link.device)
        network.await_up(name, link.parent, link.parent_device)
    for router in plan.routers:
        nat.apply(name, router, router.nat)
    for tunnel in scene.tunnels:
        _raise(name, tunnel, wireguard)


def _raise(name: str, tunnel: Tunnel, wireguard: str) -> None:
    device = tunnel.interface
    words = ["wireguard-go", device] if wireguard == GO else ["ip", "link", "add", device, "type", "wireguard"]
    in_netns(name, tunnel.node, words)
    in_netns(name, tunnel.node, ["wg", "setconf", device, "/dev/stdin"], stdin=tunnel.config)
    lines = [f"addr add {address} dev {device}" for address in tunnel.addresses]
    ip_batch([*lines, f"link set {device} up mtu 1420"], lab=name, element=tunnel.node)
