"""What a client of relays wants done, and what has become of it."""

from __future__ import annotations

from typing import NamedTuple, Union

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import RelayAsk, RelayRefresh, RelayRelease
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import SendProbe


class Say(NamedTuple):
    """A message for an anchor."""

    anchor: PeerConfig
    body: RelayAsk | RelayRefresh | RelayRelease


class Ready(NamedTuple):
    """Both ends are bound there: `peer` can be reached at `relay`. The best of those that are ready."""

    peer: PeerConfig
    relay: Address


class Lost(NamedTuple):
    """No relay to `peer` is ready any more."""

    peer: PeerConfig


Output = Union[Say, SendProbe, Ready, Lost]
