"""What goes wrong in a world: each kind of fault, how it begins and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from simconfig import public_key
from simnat import Behaviour
from simnode import Node
from simspec import Fault

from meshctl.core.agent.events import Override
from meshctl.core.reachability import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT

if TYPE_CHECKING:
    from simworld import World

Change = Callable[["World", Fault], None]
# A new address is known to the agent so soon: netlink tells it at once.
NOTICED_S = 0.05
# WireGuard's KEEPALIVE_TIMEOUT and REKEY_TIMEOUT: nothing comes back, so there is a new handshake.
_KEYS_S = 16.0
# Names that nobody has a reason to doubt are resolved again after five minutes (`resolver.ALIVE_S`), others after one.
_NAMES_S = 70.0
# What a site's NAT may become.
NATS = {
    "easy": Behaviour(),
    "open": Behaviour(filtering=INDEPENDENT),
    "restricted": Behaviour(filtering=ADDRESS),
    "hard": Behaviour(ADDRESS_AND_PORT, ADDRESS_AND_PORT, "random"),
    "blocked": Behaviour(blocked=True),
}


class Kind(NamedTuple):
    """`target`: node, agent (one that runs the core and is no anchor), anchor, site, or nothing. `longest_s`: 0 for
    what happens at once. `keys_s`: WireGuard may need so long to notice that the other end has no keys any more."""

    target: str
    longest_s: float
    begin: Change
    end: Change | None = None
    keys_s: float = 0.0


def _node(world: World, fault: Fault) -> Node:
    return world.nodes[fault.target]


def _rebind(world: World, fault: Fault) -> None:
    world.sites[fault.target].router.nat.forget()


def _router_off(world: World, fault: Fault) -> None:
    world.sites[fault.target].cable.up = False
    world.sites[fault.target].reboot()


def _router_on(world: World, fault: Fault) -> None:
    site = world.sites[fault.target]
    site.cable.up = True
    if fault.value == "renumbered":
        site.renumber()


def _renumber(world: World, fault: Fault) -> None:
    world.sites[fault.target].renumber()


def _become(world: World, fault: Fault) -> None:
    site = world.sites[fault.target]
    expiry_s = site.spec.nat.expiry_s
    behaviour = site.spec.nat if fault.value == "" else replace(NATS[fault.value], expiry_s=expiry_s)
    site.router.nat.behaviour = behaviour
    site.router.nat.forget()


def _become_again(world: World, fault: Fault) -> None:
    if fault.value == "blocked":
        _become(world, replace(fault, value=""))


def _roam(world: World, fault: Fault) -> None:
    node = _node(world, fault)
    node.disconnect()
    node.connect(fault.value)
    world.clock.after(NOTICED_S, node.tell_addresses)


def _unplug(world: World, fault: Fault) -> None:
    node = _node(world, fault)
    node.disconnect()
    world.clock.after(NOTICED_S, node.tell_addresses)


def _plug(world: World, fault: Fault) -> None:
    node = _node(world, fault)
    node.connect(node.place)
    world.clock.after(NOTICED_S, node.tell_addresses)


def _host_off(world: World, fault: Fault) -> None:
    node = _node(world, fault)
    node.kill_agent()
    node.kernel.up = False


def _host_on(world: World, fault: Fault) -> None:
    node = _node(world, fault)
    node.kernel.up = True
    node.kernel.restart()
    node.boot()
    node.start_agent(_state(node, fault))


def _state(node: Node, fault: Fault) -> bytes:
    """What the agent finds: what it saved, nothing, or what a bad disk made of it."""
    damaged = node.saved[: len(node.saved) // 2] + b"\xff\x00{"
    return {"": node.saved, "lost": b"", "damaged": damaged}[fault.value]


def _agent_dies(world: World, fault: Fault) -> None:
    _node(world, fault).kill_agent()


def _agent_back(world: World, fault: Fault) -> None:
    node = _node(world, fault)
    node.start_agent(_state(node, fault))


def _all_anchors(change: Change) -> Change:
    def each(world: World, fault: Fault) -> None:
        for anchor in world.spec.anchors:
            change(world, replace(fault, target=anchor.name))

    return each


def _cables(world: World, target: str) -> list[object]:
    return [world.sites[target].cable] if target in world.sites else list(world.nodes[target].cables)


def _set(name: str, value: object) -> Change:
    def change(world: World, fault: Fault) -> None:
        for cable in _cables(world, fault.target):
            setattr(cable, name, value)

    return change


def _lossy(world: World, fault: Fault) -> None:
    for cable in _cables(world, fault.target):
        cable.loss = 0.3  # type: ignore[attr-defined]


def _lossless(world: World, fault: Fault) -> None:
    for cable in _cables(world, fault.target):
        cable.loss = world.spec.link.loss if fault.target in world.sites else 0.0  # type: ignore[attr-defined]


def _step_clock(world: World, fault: Fault) -> None:
    _node(world, fault).step_clock(float(fault.value))


def _sleep(world: World, fault: Fault) -> None:
    _node(world, fault).kernel.up = False


def _wake(world: World, fault: Fault) -> None:
    node = _node(world, fault)
    node.kernel.up = True
    node.step_clock(0.0)
    node.tell_addresses()  # a driver asks for them: what happened meanwhile it has not heard


def _slow(world: World, fault: Fault) -> None:
    _node(world, fault).slow_s = float(fault.value)


def _quick(world: World, fault: Fault) -> None:
    _node(world, fault).slow_s = 0.0


def _clone(world: World, fault: Fault) -> None:
    world.add_double(fault.target, fault.value)


def _unclone(world: World, fault: Fault) -> None:
    world.remove_double(fault.target)


def _override(world: World, fault: Fault) -> None:
    _say(world, fault, fault.value.partition(" ")[2])


def _no_override(world: World, fault: Fault) -> None:
    _say(world, fault, "")


def _say(world: World, fault: Fault, mode: str) -> None:
    _node(world, fault).give(Override(public_key(fault.value.partition(" ")[0]), mode))


def _mute_dns(world: World, fault: Fault) -> None:
    world.dns_fails.add(fault.target)


def _mend_dns(world: World, fault: Fault) -> None:
    world.dns_fails.discard(fault.target)


def _move(world: World, fault: Fault) -> None:
    """An anchor has another address, which its name tells; the machine is another one."""
    world.nodes[fault.target].kill_agent()
    world.nodes[fault.target].disconnect()
    world.nodes[fault.target].kernel.restart()
    world.move_anchor(fault.target)


def _moved(world: World, fault: Fault) -> None:
    node = _node(world, fault)
    node.connect(node.place)
    node.boot()
    node.start_agent(b"")


KINDS: dict[str, Kind] = {
    "rebind": Kind("site", 0, _rebind),
    "router reboot": Kind("site", 8, _router_off, _router_on),
    "renumber": Kind("site", 0, _renumber),
    "nat becomes": Kind("site", 10, _become, _become_again),
    "roam": Kind("node", 0, _roam),
    "unplug": Kind("node", 10, _unplug, _plug),
    "host off": Kind("node", 10, _host_off, _host_on, _KEYS_S),
    "anchor off": Kind("anchor", 12, _host_off, _host_on, _KEYS_S),
    "anchors off": Kind("", 10, _all_anchors(_host_off), _all_anchors(_host_on), _KEYS_S),
    "anchor's agent dies": Kind("anchor", 10, _agent_dies, _agent_back),
    "agent dies": Kind("agent", 10, _agent_dies, _agent_back),
    "partition": Kind("end", 10, _set("side", 1), _set("side", 0)),
    "mute": Kind("end", 8, _set("loss_out", 1.0), _set("loss_out", 0.0)),
    "deaf": Kind("end", 8, _set("loss_in", 1.0), _set("loss_in", 0.0)),
    "lossy": Kind("end", 10, _lossy, _lossless),
    "clock": Kind("agent", 0, _step_clock),
    "sleep": Kind("agent", 12, _sleep, _wake),
    "slow": Kind("agent", 10, _slow, _quick),
    "double": Kind("agent", 10, _clone, _unclone, _KEYS_S),
    "name server fails": Kind("name", 12, _mute_dns, _mend_dns),
    "anchor moves": Kind("name", 3, _move, _moved, _NAMES_S),
    "override": Kind("agent", 10, _override, _no_override),
}


def schedule(world: World) -> None:
    """Let all faults of the world happen."""
    for fault in world.spec.faults:
        world.clock.at(fault.at, lambda fault=fault: _begin(world, fault))


def _begin(world: World, fault: Fault) -> None:
    kind = KINDS[fault.kind]
    world.trace.add(world.clock.now, "FAULT", str(fault))
    kind.begin(world, fault)
    if kind.end is not None:
        world.clock.after(fault.lasts_s, lambda: _end(world, fault))


def _end(world: World, fault: Fault) -> None:
    end = KINDS[fault.kind].end
    world.trace.add(world.clock.now, "FAULT", f"over: {fault}")
    if end is not None:
        end(world, fault)
