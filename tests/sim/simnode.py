"""One host of a world: its kernel, where it stands, and the agent on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from simattack import Misuse
from simconfig import (
    KEEPALIVE_S,
    PORT,
    agent_config,
    anchor_places,
    links,
    mesh_ip,
    public_ips,
    public_key,
    wg_key,
    wg_secret,
)
from simdriver import Driver, raised
from simgateway import Gateway
from simkernel import Kernel
from simnet import Cable, Segment
from simsite import access_cable
from simspec import INTERNET, NodeSpec, WorldSpec

from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.config import AgentConfig, PeerConfig
from meshctl.core.agent.events import Action, ClockStepped, Event, LocalAddresses, PeerStatus, Reconfigured
from meshctl.core.agent.history import Decision
from meshctl.core.agentcore import AgentCore, PathStatus
from meshctl.model.keys import PublicKey

if TYPE_CHECKING:
    from simwg import Peer
    from simworld import World

# An address that many hosts have, and that leads nowhere: of a bridge for containers.
SECOND_IP = "172.17.0.1"
# Those of networks inside a host that is a router, which sort before most others and lead nowhere.
_OTHER_IPS = tuple(f"10.0.{number}.1" for number in range(1, 100))
_LAN_CABLE_S = 0.001
_DOUBLES = 100
# An agent whose host is off or asleep starts when it runs again: that is seen so soon.
_STARTS_AGAIN_S = 0.05


class Core(Protocol):
    """What a driver runs: the core, or what misuses it."""

    def handle(self, event: Event, now: float) -> None: ...
    def poll_action(self) -> Action | None: ...
    def poll_timeout(self) -> tuple[float, str] | None: ...
    def paths(self) -> tuple[PathStatus, ...]: ...
    def history(self, peer: PublicKey) -> tuple[Decision, ...]: ...


class Meeting(NamedTuple):
    """When WireGuard was given a peer, and when the first handshake with it was since then."""

    added_at: float
    met_at: float = inf


class Node:
    """A host that is called `name` in the trace; a duplicate has the keys of `spec.name`, and another name."""

    make_core: Callable[[AgentConfig, random.Random, float, bytes], Core] = AgentCore

    def __init__(self, world: World, spec: NodeSpec, name: str = "") -> None:
        self.world, self.spec, self.name = world, spec, name or spec.name
        self.dice = world.dice(f"node {self.name}")
        self.kernel = Kernel(
            world.clock, PORT, wg_key(spec.name), world.dice(f"wg {self.name}"), self._inner, userspace=spec.userspace
        )
        self.offset = self.slow_s = 0.0
        self.saved = b""
        self.driver: Driver | None = None
        self.place = spec.site
        self.gateway: Gateway | None = None
        self.cables: list[Cable] = []
        # Addresses are made of it: a node's own, and another one for its double.
        self._number = spec.number + (0 if self.name == spec.name else _DOUBLES)
        self._starts = 0
        self._peers: dict[bytes, PeerConfig] = {}  # all that it ever has
        self.written = world.spec  # what the inventory said when it was last deployed to
        self.runs = agent_config(world.spec, spec.name)  # what its agent has read
        self.meetings: dict[str, list[Meeting]] = {}  # by peer
        self.wall_set: list[tuple[float, float]] = []  # when the wall clock was set, and by how many seconds

    @property
    def numbered(self) -> NodeSpec:
        """The spec with the number that this host's addresses are made of."""
        return replace(self.spec, number=self._number)

    def move(self) -> None:
        """Its addresses will be others when it is connected again."""
        self._number += _DOUBLES

    @property
    def now(self) -> float:
        """What its clock shows."""
        return self.world.clock.now + self.offset

    @property
    def core(self) -> Core | None:
        """Of the agent, while it runs."""
        return self.driver.core if self.driver is not None and self.driver.alive else None

    def say(self, words: str) -> None:
        """A line for the trace."""
        self.world.trace.add(self.world.clock.now, self.name, words)

    def peer_name(self, key: PublicKey) -> str:
        """Of one of its peers."""
        found = self._peers.get(key.raw()[:16])
        return found.name if found else "a stranger"

    def peers(self) -> list[str]:
        """The names of its peers, in order."""
        return sorted(p.name for p in self._peers.values())

    def history(self, peer: str) -> tuple[Decision, ...]:
        """What its agent decided about a peer."""
        return self.core.history(public_key(peer)) if self.core is not None else ()

    def path(self, peer: str) -> PathStatus | None:
        """What its agent says of the path to a peer; None when it does not run, or knows no such peer."""
        paths = self.core.paths() if self.core is not None else ()
        return next((p for p in paths if p.peer == peer), None)

    # Life

    def boot(self) -> None:
        """WireGuard as the files have it."""
        self._peers = {
            wg_key(p.name): p for i in agent_config(self.world.spec, self.spec.name).networks for p in i.peers
        }  # fmt: skip
        for peer in links(self.written, self.spec.name):
            self._add(peer)

    def deploy(self, spec: WorldSpec) -> None:
        """The inventory says this: WireGuard's peers, then the agent's document. What stays is left alone."""
        if spec == self.written:
            return
        self.written = spec
        wanted = {wg_key(peer.name): peer for peer in links(spec, self.spec.name)}
        there = {peer.key for peer in self.kernel.wg.peers()}
        for key in sorted(there - wanted.keys()):
            self.kernel.wg.remove(key)
        for key in sorted(wanted.keys() - there):
            self._add(wanted[key])
        self.say(f"has {', '.join(peer.name for peer in wanted.values()) or 'nobody'} for peers")
        self.give(Reconfigured(agent_config(spec, self.spec.name)))

    def _add(self, peer: NodeSpec) -> None:
        """A peer of WireGuard's."""
        is_known = peer.kind == "anchor" or peer.is_fixed
        places = anchor_places(self.world.nodes[peer.name].numbered) if is_known else ()
        usable = [p for p in places if self.kernel.source_for(p)]
        if not self.written.named_anchors:  # an address is set though nothing leads there; a name does not resolve then
            usable += places
        key = wg_key(peer.name)
        self.meetings.setdefault(peer.name, []).append(Meeting(self.world.clock.now))
        self.kernel.wg.add(key, wg_secret(self.spec.name, peer.name), [mesh_ip(peer)], next(iter(usable), None))
        if usable and self.spec.kind != "anchor":
            self.kernel.wg.set_keepalive(key, KEEPALIVE_S)

    def start_agent(self, state: bytes | None = None) -> None:
        """Start it with that state, or with what it saved last."""
        if not self.spec.has_agent or self.core is not None:
            return
        if not self.kernel.up:
            self.world.clock.after(_STARTS_AGAIN_S, lambda: self.start_agent(state))
            return
        self._starts += 1
        self.world.watch.starts[self.spec.name] += 1
        dice = self.world.dice(f"core {self.name} {self._starts}")
        config = self.runs = agent_config(self.written, self.spec.name)
        self.say("agent starts")
        try:
            core = type(self).make_core(config, dice, self.now, self.saved if state is None else state)
        except Exception as error:
            self.world.found("raised", self.name, f"at its start: {raised(error)}")
            return
        if self.spec.kind == "malicious":
            core = Misuse(core, config, self.world, dice)
        self.driver = self.kernel.listener = Driver(self, core)
        self.tell_addresses()

    def kill_agent(self) -> None:
        """As by SIGKILL."""
        if self.driver is not None:
            self.say("agent dies")
            self.driver.kill()
        self.driver = self.kernel.listener = None

    def give(self, event: Event) -> None:
        """An event for the agent, if it runs."""
        if self.driver is not None:
            self.driver.give(event)

    def step_clock(self, seconds: float) -> None:
        """The clock jumps forward, as after a suspend; the agent is told."""
        self.offset += seconds
        self.kernel.wg.slept(seconds)
        self.give(ClockStepped())

    # Places

    def connect(self, place: str) -> None:
        """Take addresses at a site, or on the internet."""
        self.place, self.gateway = place, None
        if place == INTERNET:
            cable = access_cable(self.world.spec.link)
            cable.delay_s += self.spec.far_s
            self.cables = [cable]
            for ip in public_ips(self.numbered):
                self.kernel.join(self.world.internet, ip, cable)
            return
        site = self.world.sites[place]
        cable = Cable(delay_s=_LAN_CABLE_S)
        self.cables = [cable]
        self.gateway = site.gateway
        for ip in site.host_ips(self._number, v4=self.spec.v4, v6=self.spec.v6):
            self.kernel.join(site.inside, ip, cable)
        if self.spec.second and site.gateway.ip != SECOND_IP:
            self.kernel.join(self.world.nowhere, SECOND_IP, Cable())
        inside = Segment(self.world.clock, self.dice)  # of this host alone
        inside.leads_on = False
        for ip in _OTHER_IPS[: self.spec.others]:
            self.kernel.join(inside, ip, Cable())

    def disconnect(self) -> None:
        """Give all addresses up."""
        for ip in self.kernel.addresses:
            self.kernel.leave(ip)
        self.gateway = None

    def tell_addresses(self) -> None:
        """What the kernel tells the agent of its addresses."""
        found = tuple(
            LocalAddress(ip, 64 if ":" in ip else 24, "docker0" if ip == SECOND_IP else "eth0")
            for ip in self.kernel.addresses
        )
        self.give(LocalAddresses(found, (self.gateway.ip,) if self.gateway and not self.spec.gateless else ()))

    # The tunnel

    def statuses(self) -> tuple[PeerStatus, ...]:
        """What `wg show` says."""
        found, userspace = [], self.spec.userspace
        for p in self.kernel.wg.peers():
            peer = self._peers[p.key]
            meetings = self.meetings[peer.name]
            if p.handshake_at is not None and meetings[-1].met_at == inf:
                meetings[-1] = meetings[-1]._replace(met_at=p.handshake_at)
            found.append(PeerStatus(
                peer.public_key, Address._make(p.endpoint) if p.endpoint else None, self._age_s(p.handshake_at),
                p.rx_bytes, p.tx_bytes, int(p.keepalive_s), userspace,
            ))  # fmt: skip
        return tuple(found)

    def tunnel(self, peer: str) -> Peer | None:
        """WireGuard's side of that peer, if it is one."""
        return next((p for p in self.kernel.wg.peers() if self._peers[p.key].name == peer), None)

    def _age_s(self, handshake_at: float | None) -> float | None:
        """As `wg` shows it: by the wall clock, which may have been set since then."""
        if handshake_at is None:
            return None
        age_s = self.world.clock.now - handshake_at
        return age_s + sum(by for at, by in self.wall_set if at > handshake_at) if self.wall_set else age_s

    def _inner(self, source: str, data: bytes) -> None:
        if data[:1] == b"S":
            self.world.heard_signal(self, source, data[1:])
        elif data[:1] == b"P":
            self.kernel.wg.send(source, b"R" + data[1:])
        elif data[:1] == b"R":
            self.world.flows[int.from_bytes(data[1:3], "big")].answered(self.world.clock.now)
