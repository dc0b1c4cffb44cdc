"""The agent's decisions, all of them, as one object without clock, sockets or files.

Events go in with the time (`handle`), actions come out (`poll_action`), and it says when it wants to be woken and why
(`poll_timeout`). The service on a node is a small loop around it, and so is the simulator.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from meshctl.core.agent import events
from meshctl.core.agent.address import Address, NamedEndpoint
from meshctl.core.agent.config import AgentConfig, Endpoint, PeerConfig
from meshctl.core.agent.events import Action, Event
from meshctl.core.agent.history import Decision
from meshctl.core.agent.liveness import IDLE_SAMPLE_S, SAMPLE_S
from meshctl.core.agent.network import Network
from meshctl.core.agent.nodecontext import NodeContext
from meshctl.core.agent.path import State
from meshctl.core.agent.portmap import PortMapper
from meshctl.core.agent.portmap_values import Mapped
from meshctl.core.agent.resolver import Resolver
from meshctl.core.agent.splice import undone
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.state import Kept, KeptPath, KeptRelay, dump, load
from meshctl.core.agent.status import (
    Candidates,
    NetworkView,
    PathStatus,
    path_states,
    path_statuses,
    peer_candidates,
    view,
)
from meshctl.core.agent.timers import Timers
from meshctl.model.keys import PublicKey

# So long after a start or a change of the network handshakes are awaited.
QUICK_S = 10.0


class _Chore:
    """What the core itself has a timer for, and why; a network's has its name, whatever that is."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


_SAMPLE, _PORTS, _NAMES = _Chore("WireGuard's counters"), _Chore("a port mapping"), _Chore("a name to resolve")


class AgentCore:
    """One node's. `now` is monotonic, in seconds; `state` is what `SaveState` had last, b"" without one."""

    def __init__(self, config: AgentConfig, dice: random.Random, now: float, state: bytes = b"") -> None:
        self._config = config
        self._actions: deque[Action] = deque()
        slot = SpliceSlot([n.listen_port for n in config.networks])
        self._node_context = NodeContext(dice, self._actions.append, slot)
        self._resolver = Resolver([r for n in config.networks for r in n.mesh_ranges])
        self._quick_until = now + QUICK_S
        kept = load(state)
        self._ports = PortMapper(dice, kept.ports)
        self._kept = kept
        self._port_state = self._ports.state()
        self._addresses: events.LocalAddresses | None = None
        self._timers: Timers[_Chore | str] = Timers()
        self._networks = {n.network: Network(n, self._node_context, now, kept) for n in config.networks}
        self._handlers: dict[type[Event], Callable[[Any, float], None]] = {
            events.Wake: self._wake,
            events.LocalAddresses: self._local_addresses,
            events.Datagram: self._datagram,
            events.RelayDatagram: self._relay_datagram,
            events.RelayFailed: self._relay_failed,
            events.Signal: self._signal,
            events.WgStatus: self._wg_status,
            events.Resolved: self._resolved,
            events.MappingDatagram: self._mapping_datagram,
            events.HttpReply: self._http_reply,
            events.Override: self._override,
            events.Reconfigured: self._reconfigured,
            events.ClockStepped: self._clock_stepped,
            events.Rebind: self._rebind,
        }
        self._end_relays(kept.relays)
        self._end_splices(kept.paths)
        self._set_names(now)
        self._sample(now)
        self._settle(now)

    def handle(self, event: Event, now: float) -> None:
        """Take note of what happened. Nothing from the network raises."""
        self._handlers[type(event)](event, now)
        self._settle(now)

    def poll_action(self) -> Action | None:
        """What is to be done next; None when that was all."""
        return self._actions.popleft() if self._actions else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """When `Wake` is wanted at the latest, and why."""
        return self._timers.next()

    def paths(self) -> tuple[PathStatus, ...]:
        """Every peer of every network that has an agent, by network and name."""
        return tuple(status for _, network in sorted(self._networks.items()) for status in path_statuses(network))

    def states(self) -> tuple[tuple[State, float], ...]:
        """What `paths` has of states, and since when: for a small part of its time it tells whether anything is new."""
        return tuple(chain.from_iterable(path_states(network) for network in self._networks.values()))

    def history(self, peer: PublicKey) -> tuple[Decision, ...]:
        """The last decisions about a peer, the oldest first."""
        for network in self._networks.values():
            for path in network.paths.values():
                if path.peer.public_key == peer:
                    return path.history.decisions
        return ()

    @property
    def name(self) -> str:
        """This node's."""
        return self._config.name

    def views(self, now: float) -> tuple[NetworkView, ...]:
        """What else there is to see of each network, by name."""
        return tuple(view(network, now) for _, network in sorted(self._networks.items()))

    def candidates(self) -> dict[PublicKey, Candidates]:
        """Where each peer may be reached."""
        return {key: found for n in self._networks.values() for key, found in peer_candidates(n).items()}

    def mappings(self) -> tuple[tuple[Mapped, ...], tuple[tuple[str, Address, str], ...]]:
        """Port mappings that work; and gateway, address and the reason where there is none."""
        return self._ports.mapped(), self._ports.why()

    def save(self) -> None:
        """Have what must outlast a restart written, when it is another than before. Drain the actions once more."""
        networks = self._networks.values()
        if self._port_state == self._kept.ports and not any(n.unsaved for n in networks):
            return
        for network in networks:
            network.unsaved = False
        self._write()

    # Events

    def _wake(self, _event: events.Wake, now: float) -> None:
        for owner in list(self._timers.due(now)):
            if isinstance(owner, str):
                self._networks[owner].poll(now)
            elif owner is _SAMPLE:
                self._sample(now)
            elif owner is _PORTS:
                self._ports.poll(now)
                self._mapped(now)
            else:
                self._actions.extend(self._resolver.poll(now))

    def _local_addresses(self, event: events.LocalAddresses, now: float) -> None:
        self._addresses = event
        self._hurry(now)
        for network in self._networks.values():
            network.addresses(event.addresses, event.gateways, now)
        self._set_ports(event, now)
        self._resolver.network_changed(now)

    def _set_ports(self, event: events.LocalAddresses, now: float) -> None:
        listening = [n.listen_port for n in self._config.networks]
        self._ports.set_network(event.addresses, event.gateways, listening, now)
        self._ports.poll(now)
        self._mapped(now)

    def _datagram(self, event: events.Datagram, now: float) -> None:
        for network in self._networks.values():
            if network.owns_port(event.local.port):
                network.datagram(event, now)

    def _relay_datagram(self, event: events.RelayDatagram, now: float) -> None:
        for network in self._networks.values():
            network.relay_datagram(event, now)

    def _relay_failed(self, event: events.RelayFailed, now: float) -> None:
        for network in self._networks.values():
            network.relay_failed(event, now)

    def _signal(self, event: events.Signal, now: float) -> None:
        for network in self._networks.values():
            network.signal(event, now)

    def _wg_status(self, event: events.WgStatus, now: float) -> None:
        statuses = self._node_context.handshakes.correct(event.peers, now)
        for network in self._networks.values():
            network.status(statuses, now)
        if self._resolver.due() is not None:  # there are names
            dead = (e for network in self._networks.values() for peer in network.dead() for e in peer.endpoints)
            self._resolver.set_dead({e for e in dead if isinstance(e, NamedEndpoint)})
        self.save()

    def _resolved(self, event: events.Resolved, now: float) -> None:
        if self._resolver.resolved(event, now):
            self._tell_endpoints(now)

    def _mapping_datagram(self, event: events.MappingDatagram, now: float) -> None:
        self._ports.receive(event, now)
        self._mapped(now)

    def _http_reply(self, event: events.HttpReply, now: float) -> None:
        self._ports.reply(event, now)
        self._mapped(now)

    def _override(self, event: events.Override, now: float) -> None:
        for network in self._networks.values():
            network.override(event.peer, event.mode, now)

    def _reconfigured(self, event: events.Reconfigured, now: float) -> None:
        wanted = {n.network: n for n in event.config.networks}
        rekeyed = [n for name, n in self._networks.items() if name in wanted and n.has_another_key(wanted[name])]
        kept = Kept(paths=tuple(p for n in rekeyed for p in n.kept_paths()), relays=self._kept_relays())
        self._config = event.config
        self._node_context.slot.reserved = frozenset(n.listen_port for n in event.config.networks)
        for name, network in list(self._networks.items()):
            if name not in wanted or not network.replaces(wanted[name]):
                network.stop(now)
                del self._networks[name]
                self._timers.set(name, None)
        for name, config in wanted.items():
            if name in self._networks:
                self._networks[name].configure(config, now)
            else:
                self._networks[name] = Network(config, self._node_context, now, kept)
                if self._addresses is not None:
                    self._networks[name].addresses(self._addresses.addresses, self._addresses.gateways, now)
        self._end_relays(kept.relays)
        if self._addresses is not None:
            self._set_ports(self._addresses, now)
        self._resolver.set_ranges([r for n in event.config.networks for r in n.mesh_ranges])
        self._set_names(now)
        self._write()
        self._sample(now)

    def _hurry(self, now: float) -> None:
        self._quick_until = now + QUICK_S
        self._remind(_SAMPLE, now + SAMPLE_S)

    def _clock_stepped(self, _event: events.ClockStepped, now: float) -> None:
        self._hurry(now)
        self._doubt_ports(now)
        self._resolver.network_changed(now)
        for network in self._networks.values():
            network.clock_stepped(now)

    def _rebind(self, _event: events.Rebind, now: float) -> None:
        for network in self._networks.values():
            network.context.nat.forget()
        self._clock_stepped(events.ClockStepped(), now)

    # Inside

    def _remind(self, chore: _Chore, when: float | None) -> None:
        self._timers.set(chore, when, chore.reason)

    def _sample(self, now: float) -> None:
        busy = now < self._quick_until or any(network.busy(now) for network in self._networks.values())
        self._actions.append(events.PollWg())
        self._remind(_SAMPLE, now + (SAMPLE_S if busy else IDLE_SAMPLE_S))

    def _settle(self, now: float) -> None:
        for network in self._networks.values():
            if network.gatherer.has_moved(now):
                self._doubt_ports(now)
                break
        for name, network in self._networks.items():
            network.settle(now)
            when, reason = network.timers.next() or (None, "")
            self._timers.set(name, when, reason)
        self._remind(_NAMES, self._resolver.due())

    def _doubt_ports(self, now: float) -> None:
        self._ports.doubt(now)
        self._mapped(now)

    def _mapped(self, now: float) -> None:
        """After whatever concerned port mappings: what is to be sent, offered and saved."""
        self._actions.extend(self._ports.actions())
        self._remind(_PORTS, self._ports.due())
        found = [(m.external, m.held.internal, m.expires_at) for m in self._ports.mapped()]
        for network in self._networks.values():
            network.mapped(found, now)
        self._port_state = self._ports.state()
        self.save()

    def _write(self) -> None:
        paths = chain.from_iterable(n.kept_paths() for n in self._networks.values())
        kept = Kept(self._port_state, tuple(paths), self._kept_relays())
        if kept != self._kept:
            self._kept = kept
            self._actions.append(events.SaveState(dump(kept)))

    def _kept_relays(self) -> tuple[KeptRelay, ...]:
        return tuple(chain.from_iterable(n.kept_relays() for n in self._networks.values()))

    def _end_relays(self, relays: Iterable[KeptRelay]) -> None:
        """The kernel is to forward no more for networks of which this node is no anchor any more."""
        relaying = {n.network for n in self._config.networks if n.is_anchor}
        for relay in relays:
            if relay.network not in relaying:
                self._actions.append(events.RemoveRelay(relay.port, relay.a.place, relay.b.place))

    def _end_splices(self, paths: Iterable[KeptPath]) -> None:
        """Packets for who has no path any more leave from WireGuard's own port."""
        peers = {path.peer.public_key for network in self._networks.values() for path in network.paths.values()}
        for known in paths:
            if known.spliced and known.peer not in peers:
                self._actions.extend(undone(known.peer, known.pair))

    def _set_names(self, now: float) -> None:
        endpoints = [e for n in self._config.networks for p in n.peers for e in p.endpoints]
        endpoints += self._config.stun_servers
        self._resolver.set_names([e for e in endpoints if isinstance(e, NamedEndpoint)], now)
        self._tell_endpoints(now)

    def _tell_endpoints(self, now: float) -> None:
        servers = tuple(a for e in self._config.stun_servers for a in self._where(e))
        for network in self._networks.values():
            network.endpoints(self._endpoints, servers, now)

    def _endpoints(self, peer: PeerConfig) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(a for endpoint in peer.endpoints for a in self._where(endpoint)))

    def _where(self, endpoint: Endpoint) -> tuple[Address, ...]:
        return self._resolver.addresses(endpoint) if isinstance(endpoint, NamedEndpoint) else (endpoint,)
