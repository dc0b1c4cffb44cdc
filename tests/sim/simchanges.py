"""The single things that can be done to a world, for `simfaults`: each begins or ends a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from simconfig import public_key
from simnat import Behaviour
from simnet import Cable
from simnode import Node
from simspec import Fault

from meshctl.core.agent.events import Override
from meshctl.core.reachability import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT

if TYPE_CHECKING:
    from simworld import World

Change = Callable[["World", Fault], None]
# A new address is known to the agent so soon: netlink tells it at once.
NOTICED_S = 0.05
# What a site's NAT may become.
NATS = {
    "easy": Behaviour(),
    "open": Behaviour(filtering=INDEPENDENT),
    "restricted": Behaviour(filtering=ADDRESS),
    "hard": Behaviour(ADDRESS_AND_PORT, ADDRESS_AND_PORT, "random"),
    "blocked": Behaviour(blocked=True),
}


def _node(world: World, fault: Fault) -> Node:
    return world.nodes[fault.target]


def rebind(world: World, fault: Fault) -> None:
    """The NAT forgets its mappings."""
    world.sites[fault.target].router.nat.forget()


def router_off(world: World, fault: Fault) -> None:
    """The router is off."""
    world.sites[fault.target].cable.up = False
    world.sites[fault.target].reboot()


def router_on(world: World, fault: Fault) -> None:
    """It is back, and has forgotten all."""
    site = world.sites[fault.target]
    site.cable.up = True
    if fault.value == "renumbered":
        site.renumber()


def renumber(world: World, fault: Fault) -> None:
    """The site has another outer address."""
    world.sites[fault.target].renumber()


def become(world: World, fault: Fault) -> None:
    """The NAT is of another kind."""
    site = world.sites[fault.target]
    expiry_s = site.spec.nat.expiry_s
    behaviour = site.spec.nat if fault.value == "" else replace(NATS[fault.value], expiry_s=expiry_s)
    site.router.nat.behaviour = behaviour
    site.router.nat.forget()


def become_again(world: World, fault: Fault) -> None:
    """UDP passes again."""
    if fault.value == "blocked":
        become(world, replace(fault, value=""))


def roam(world: World, fault: Fault) -> None:
    """The host moves to another place."""
    node = _node(world, fault)
    node.disconnect()
    node.connect(fault.value)
    world.clock.after(NOTICED_S, node.tell_addresses)


def unplug(world: World, fault: Fault) -> None:
    """The host has no address."""
    node = _node(world, fault)
    node.disconnect()
    world.clock.after(NOTICED_S, node.tell_addresses)


def plug(world: World, fault: Fault) -> None:
    """It has them again."""
    node = _node(world, fault)
    node.connect(node.place)
    world.clock.after(NOTICED_S, node.tell_addresses)


def host_off(world: World, fault: Fault) -> None:
    """The host is off."""
    node = _node(world, fault)
    node.kill_agent()
    node.kernel.up = False


def host_on(world: World, fault: Fault) -> None:
    """It starts again, without its keys; unless the end of another fault has started it."""
    node = _node(world, fault)
    if node.kernel.up and node.core is not None:
        return
    node.kernel.up = True
    node.kernel.restart()
    node.boot()
    node.start_agent(_state(node, fault))


def _state(node: Node, fault: Fault) -> bytes:
    """What the agent finds: what it saved, nothing, or what a bad disk made of it."""
    damaged = node.saved[: len(node.saved) // 2] + b"\xff\x00{"
    return {"": node.saved, "lost": b"", "damaged": damaged}[fault.value]


def agent_dies(world: World, fault: Fault) -> None:
    """The agent is killed."""
    _node(world, fault).kill_agent()


def agent_back(world: World, fault: Fault) -> None:
    """It starts again."""
    node = _node(world, fault)
    node.start_agent(_state(node, fault))


def all_anchors(change: Change) -> Change:
    """The same with every anchor."""
    def each(world: World, fault: Fault) -> None:
        for anchor in world.spec.anchors:
            change(world, replace(fault, target=anchor.name))

    return each


def _cables(world: World, target: str) -> list[Cable]:
    return [world.sites[target].cable] if target in world.sites else list(world.nodes[target].cables)


def set_cable(name: str, value: object) -> Change:
    """Another value of the target's cables."""
    def change(world: World, fault: Fault) -> None:
        for cable in _cables(world, fault.target):
            setattr(cable, name, value)

    return change


def lossy(world: World, fault: Fault) -> None:
    """A third of all packets is lost."""
    for cable in _cables(world, fault.target):
        cable.loss = 0.3


def lossless(world: World, fault: Fault) -> None:
    """As before."""
    for cable in _cables(world, fault.target):
        cable.loss = world.spec.link.loss if fault.target in world.sites else 0.0


def step_clock(world: World, fault: Fault) -> None:
    """The clock jumps."""
    _node(world, fault).step_clock(float(fault.value))


def set_wall_clock(world: World, fault: Fault) -> None:
    """The wall clock is set, by which WireGuard tells how old handshakes are."""
    _node(world, fault).wall_set.append((world.clock.now, float(fault.value)))


def sleep(world: World, fault: Fault) -> None:
    """The host is suspended."""
    _node(world, fault).kernel.up = False


def wake(world: World, fault: Fault) -> None:
    """It wakes."""
    node = _node(world, fault)
    node.kernel.up = True
    node.step_clock(0.0)
    node.tell_addresses()  # a driver asks for them: what happened meanwhile it has not heard


def slow(world: World, fault: Fault) -> None:
    """Events are late."""
    _node(world, fault).slow_s = float(fault.value)


def quick(world: World, fault: Fault) -> None:
    """They are not any more."""
    _node(world, fault).slow_s = 0.0


def clone(world: World, fault: Fault) -> None:
    """Another host has the same keys."""
    world.add_double(fault.target, fault.value)


def unclone(world: World, fault: Fault) -> None:
    """It goes."""
    world.remove_double(fault.target)


def override(world: World, fault: Fault) -> None:
    """An operator wants something."""
    _say(world, fault, fault.value.partition(" ")[2])


def no_override(world: World, fault: Fault) -> None:
    """He does not any more; while the host sleeps he cannot say so."""
    if not _node(world, fault).kernel.up:
        world.clock.after(NOTICED_S, lambda: no_override(world, fault))
        return
    _say(world, fault, "")


def _say(world: World, fault: Fault, mode: str) -> None:
    _node(world, fault).give(Override(public_key(fault.value.partition(" ")[0]), mode))


def leave(world: World, fault: Fault) -> None:
    """A node is taken out of the inventory, or an anchor is none any more."""
    if fault.value == "demoted":
        world.inventory.demote(fault.target)
    else:
        world.inventory.leave(fault.target)


def come_back(world: World, fault: Fault) -> None:
    """It is there again."""
    world.inventory.come_back(fault.target)


def end_pair(world: World, fault: Fault) -> None:
    """No policy permits a pair any more."""
    world.inventory.end(fault.target, fault.value)


def permit_pair(world: World, fault: Fault) -> None:
    """One does again."""
    world.inventory.permit(fault.target, fault.value)


def mute_dns(world: World, fault: Fault) -> None:
    """The name does not resolve."""
    world.dns_fails.add(fault.target)


def mend_dns(world: World, fault: Fault) -> None:
    """It does again."""
    world.dns_fails.discard(fault.target)


def move(world: World, fault: Fault) -> None:
    """An anchor has another address, which its name tells; the machine is another one."""
    world.nodes[fault.target].kill_agent()
    world.nodes[fault.target].disconnect()
    world.nodes[fault.target].kernel.restart()
    world.move_anchor(fault.target)


def moved(world: World, fault: Fault) -> None:
    """It is back elsewhere."""
    node = _node(world, fault)
    node.kill_agent()  # another fault's end may have begun one on a machine without addresses
    node.connect(node.place)
    node.boot()
    node.start_agent(b"")
