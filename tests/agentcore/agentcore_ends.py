"""Two nodes in the middle of something, and what each end has done until then."""

from __future__ import annotations

from itertools import pairwise

from agentcore_pair import IPS, Host, PairWorld
from agentcore_values import key

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address
from meshctl.core.agent.history import Decision
from meshctl.core.agent.network import Network
from meshctl.core.agent.path import Trigger
from meshctl.core.agent.peer import PeerPath
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.wire import stun

DIRECT, RELAYED = ("direct", "direct"), ("relayed", "relayed")


def direct(**settings: float) -> PairWorld:
    """Two nodes whose path is direct."""
    world = PairWorld(**settings)  # type: ignore[arg-type]
    world.until(lambda: world.states() == DIRECT, 10.0)
    return world


def relayed(*, hubs: int = 1) -> PairWorld:
    """Two that have no direct path, and talk."""
    world = PairWorld(hubs=hubs)
    world.apart("a", "b")
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.talk(1.0)
    return world


def history(host: Host, since: float = 0.0) -> list[Decision]:
    """What it has decided of the other node."""
    assert host.core is not None
    return [d for d in host.core.history(key("ab".replace(host.name, ""))) if d.at >= since]


def triggers(host: Host, since: float = 0.0) -> list[Trigger]:
    """What that was for."""
    return [d.trigger for d in history(host, since)]


def endpoints(host: Host, since: float = 0.0) -> list[Address]:
    """Where it had WireGuard send to the other node."""
    other = key("ab".replace(host.name, ""))
    found = [a for _, a in host.done(ev.SetEndpoint, since) if isinstance(a, ev.SetEndpoint)]
    return [a.address for a in found if a.peer == other]


def network_of(host: Host) -> Network:
    """Its one network itself, for what nobody is shown."""
    assert host.core is not None
    [network] = host.core._networks.values()
    return network


def path_of(host: Host) -> PeerPath:
    """And its end of the one path there."""
    [path] = network_of(host).paths.values()
    return path


def checks(host: Host, since: float) -> list[stun.Message]:
    """Of the other node's addresses."""
    ip = IPS["ab".replace(host.name, "")]
    sent = [a for _, a in host.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe) and a.remote.ip == ip]
    found = [stun.decode(probe.data).message for probe in sent]
    return [message for message in found if message.message_class is stun.Class.REQUEST]


def binds(host: Host, since: float) -> list[ev.SendProbe]:
    """To relays."""
    sent = [a for _, a in host.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)]
    return [probe for probe in sent if probe.remote.port in RELAY_PORTS]


def silences(host: Host, since: float) -> float:
    """The longest time without a word of the other node."""
    times = [since, *(at for at, _ in host.heard if at >= since), host.world.now]
    return max(later - earlier for earlier, later in pairwise(times))
