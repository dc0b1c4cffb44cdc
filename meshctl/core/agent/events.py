"""What goes into the agent's core and what comes out of it: frozen values, one class each.

A peer is named by its public key (a node has another one in each network). Addresses are canonical, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from meshctl.core.agent.address import Address, LocalAddress, NamedEndpoint
from meshctl.core.agent.config import AgentConfig
from meshctl.model.keys import PublicKey


class PeerStatus(NamedTuple):
    """What WireGuard shows of one peer. `handshake_age_s` is None before the first handshake. `userspace`: it is not
    the kernel's, which drops packets for a peer without an endpoint; another one tries a handshake for them."""

    public_key: PublicKey
    endpoint: Address | None
    handshake_age_s: float | None
    rx_bytes: int
    tx_bytes: int
    keepalive_s: int  # 0: off
    userspace: bool = False


# Events: what happened.


class Event:
    """Root of everything that `handle` takes."""


@dataclass(frozen=True)
class Wake(Event):
    """The time that `poll_timeout` named has come."""


@dataclass(frozen=True)
class LocalAddresses(Event):
    """All addresses of this host at the moment, and the default gateways' (which map ports, and show
    the way out)."""

    addresses: tuple[LocalAddress, ...]
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True)
class Datagram(Event):
    """A STUN message that came to a WireGuard port (`local.port` says which network's), or to a port of a splice."""

    local: Address
    remote: Address
    data: bytes


@dataclass(frozen=True)
class RelayDatagram(Event):
    """On an anchor: a STUN message that came to a relay port."""

    port: int
    remote: Address
    data: bytes


@dataclass(frozen=True)
class RelayFailed(Event):
    """On an anchor: what `InstallRelay` wanted at this port cannot be done."""

    port: int


@dataclass(frozen=True)
class Signal(Event):
    """A signalling message; WireGuard vouches for `from_mesh_ip`, the last hop's mesh address."""

    from_mesh_ip: str
    data: bytes


@dataclass(frozen=True)
class WgStatus(Event):
    """All peers of all of this node's WireGuard interfaces."""

    peers: tuple[PeerStatus, ...]


@dataclass(frozen=True)
class Resolved(Event):
    """The answer to `Resolve`; no addresses: the name did not resolve. `ttl_s`: how long the answer counts, None where
    nobody says, as in /etc/hosts."""

    name: NamedEndpoint
    addresses: tuple[Address, ...]
    ttl_s: float | None = None


@dataclass(frozen=True)
class MappingDatagram(Event):
    """A datagram from a gateway's PCP or NAT-PMP port, or an answer to an SSDP search."""

    gateway: Address
    data: bytes


@dataclass(frozen=True)
class HttpReply(Event):
    """The answer to the `HttpRequest` of that id; status 0: none came."""

    request_id: int
    status: int
    body: bytes


@dataclass(frozen=True)
class Override(Event):
    """An operator's word on one pair: "" (none), "relay", "direct" or "prefer-relay"."""

    peer: PublicKey
    mode: str


@dataclass(frozen=True)
class Reconfigured(Event):
    """The configuration is another one."""

    config: AgentConfig


@dataclass(frozen=True)
class ClockStepped(Event):
    """The host slept, or `now` jumped for another reason: whatever was timed over the gap says nothing."""


@dataclass(frozen=True)
class Rebind(Event):
    """An operator wants everything found out anew, as in another network."""


# Actions: what to do.


class Action:
    """Root of everything that `poll_action` gives."""


@dataclass(frozen=True)
class SendProbe(Action):
    """Send raw from `local` (WireGuard's port, a splice's, or a relay port: then with `ip` "", the kernel chooses)."""

    local: Address
    remote: Address
    data: bytes


@dataclass(frozen=True)
class SendSignal(Action):
    """Send to the signalling port of that mesh address."""

    mesh_ip: str
    data: bytes


@dataclass(frozen=True)
class SetEndpoint(Action):
    """Give WireGuard's peer this endpoint."""

    peer: PublicKey
    address: Address


@dataclass(frozen=True)
class SetKeepalive(Action):
    """Give WireGuard's peer this persistent keepalive; 0: off."""

    peer: PublicKey
    interval_s: int


@dataclass(frozen=True)
class PollWg(Action):
    """Answer with `WgStatus`."""


@dataclass(frozen=True)
class Resolve(Action):
    """Answer with `Resolved`."""

    name: NamedEndpoint


@dataclass(frozen=True)
class SendMapping(Action):
    """Send to a gateway's PCP or NAT-PMP port, or to the SSDP group, from the own address `source` ("": any)."""

    gateway: Address
    data: bytes
    source: str = ""


@dataclass(frozen=True)
class HttpRequest(Action):
    """Answer with `HttpReply`. Only to a host on this host's own network, from the own address `source` ("": any)."""

    request_id: int
    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    source: str = ""


@dataclass(frozen=True)
class InstallRelay(Action):
    """On an anchor: forward between `a` and `b` over this port, and nothing else over it. They may be of two families:
    the kernel cannot do that, and the driver has to."""

    port: int
    a: Address
    b: Address


@dataclass(frozen=True)
class RemoveRelay(Action):
    """Undo that `InstallRelay`."""

    port: int
    a: Address
    b: Address


@dataclass(frozen=True)
class OpenPorts(Action):
    """Let STUN messages in that come to these local ports (raw: nothing is bound); () closes them."""

    peer: PublicKey
    ports: tuple[int, ...]


@dataclass(frozen=True)
class InstallSplice(Action):
    """Make WireGuard's packets for `remote` leave from `local_port`, and what comes to that reach WireGuard's port."""

    peer: PublicKey
    remote: Address
    local_port: int


@dataclass(frozen=True)
class RemoveSplice(Action):
    """Undo that `InstallSplice`."""

    peer: PublicKey
    remote: Address
    local_port: int


@dataclass(frozen=True)
class SaveState(Action):
    """Write this whole, atomically, in place of what was saved before."""

    data: bytes
