"""A node's links to all anchors of one network: watched together, asked by STUN where WireGuard keeps its mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from meshctl.core.agent.address import Address, is_private
from meshctl.core.agent.anchorlink import AnchorLink
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import PeerStatus, SetEndpoint, SetKeepalive
from meshctl.core.agent.gatherer import Gatherer
from meshctl.core.agent.interfacecontext import GATHER, InterfaceContext
from meshctl.core.agent.silence import Place
from meshctl.core.agent.stunclient import Seen, Server, anchor_server
from meshctl.model.keys import PublicKey


class Change(NamedTuple):
    """What became of the links: those that came up, and whether any came, went, or is nearer or farther now."""

    came: tuple[PeerConfig, ...] = ()
    any: bool = False


class AnchorLinks:
    """The links are `context.anchors`, by the anchors' ids: other parts look there for anchors that are up."""

    def __init__(self, context: InterfaceContext, gatherer: Gatherer) -> None:
        self._context, self._gatherer = context, gatherer
        self._links = context.anchors

    def configure(self, anchors: Mapping[bytes, PeerConfig]) -> None:
        """These are the anchors. Links to those that stay go on, whatever else is said of them: how far one is does not
        change with whom it may reach."""
        for key in [k for k in self._links if k not in anchors]:
            del self._links[key]
        for key, peer in sorted(anchors.items()):
            self._links.setdefault(key, AnchorLink(peer)).peer = peer

    def set_endpoints(self, addresses: Callable[[PeerConfig], tuple[Address, ...]]) -> list[Server]:
        """Where they are, as far as that is resolved; and so where this node can ask how it is seen."""
        for link in self._links.values():
            link.set_endpoints(addresses(link.peer))
        return [self._server(link, address) for link in self._links.values() for address in link.endpoints]

    @property
    def names(self) -> list[str]:
        """Anchors by which messages can go: those whose links are up, or all that WireGuard has, when none is."""
        links = [link for link in self._links.values() if not link.missing]
        return [link.peer.name for link in [link for link in links if link.up] or links]

    def sample(self, statuses: Mapping[PublicKey, PeerStatus], now: float) -> Change:
        """One reading of WireGuard's counters."""
        families, came, any_other = self._families, [], False
        for key, link in self._links.items():
            status = statuses.get(link.peer.public_key)
            was_up, due = link.up, link.due
            if status is None:
                link.miss()
            else:
                link.sample(status, now, families)
                self._keep_alive(link, status)
            if link.due != due:
                self._context.touch(key)
            if link.up is not was_up:
                any_other = True
                came += [link.peer] if link.up else []
        return Change(tuple(came), any_other)

    def poll(self, key: bytes, now: float) -> bool:
        """Ask one that is in doubt, if it is time. Whether it was asked."""
        link = self._links.get(key)
        if link is None:
            return False
        addresses = link.ask(now, self._context.dice.random, self._families)
        for address in addresses:
            self._gatherer.ask_again(self._server(link, address), now)
        return bool(addresses)

    def hurry(self, now: float) -> None:
        """The network is another one, or time has passed: who was dead may not be, and who was not may be.

        WireGuard is told once more where each is. wireguard-go goes on sending from the address that the host had, for
        15 s, until it begins a handshake; who is given an endpoint chooses a source anew.
        """
        for key, link in self._links.items():
            link.hurry(now, self._families)
            endpoint = link.endpoint
            if endpoint is not None and endpoint.family in self._families:
                self._context.act(SetEndpoint(link.peer.public_key, endpoint))
            self._context.touch(key)

    def measure(self, key: bytes, now: float) -> None:
        """An anchor's tunnel has come up, or its agent has a new session with this one. If nothing is known of how far
        it is, it was not there yet when it was asked."""
        link = self._links.get(key)
        if link is not None and link.rtt_s is None:
            for address in link.endpoints:
                self._gatherer.ask_anew(self._server(link, address), now)
            self._context.touch(GATHER)

    def answered(self, seen: Seen, now: float) -> Change:
        """A server has answered; it may be an anchor."""
        return self._judge(seen.server, partial(AnchorLink.answered, server=seen.server, rtt_s=seen.rtt_s, now=now))

    def silent(self, server: Address, now: float) -> Change:
        """A server has not answered; it may be an anchor."""
        return self._judge(server, partial(AnchorLink.silent, server=server, now=now))

    def place_for_silence(self, taken: frozenset[int]) -> Place | None:
        """Where to try how long the NAT keeps mappings: towards the nearest anchor that answers, from the address that
        leads there, if a NAT is in front of that."""
        links = [link for link in self._links.values() if link.up and link.rtt_s is not None]
        for link in sorted(links, key=lambda link: (link.distance_s, link.peer.name))[:1]:
            for address in link.endpoints:
                base = self._context.own.base(address.family)
                if base is not None and is_private(base.ip):
                    return Place(link.peer.public_key, self._server(link, address), base.ip, taken)
        return None

    @property
    def _families(self) -> set[int]:
        """Of which this node has an address."""
        return {base.family for base in self._context.own.bases()}

    def _server(self, link: AnchorLink, address: Address) -> Server:
        session = self._context.my_session(link.peer.id)
        return anchor_server(address, self._context.config.id, session, link.peer.pair_key)

    def _keep_alive(self, link: AnchorLink, status: PeerStatus) -> None:
        """A keepalive shorter than the NAT's patience, where it is known. Anchors have one of each other, too, while
        they have nothing to say: WireGuard makes no handshakes then, and a link without them is not seen to be up."""
        interval_s = self._context.lifetime.keepalive_s
        if link.up and status.keepalive_s != interval_s:
            self._context.act(SetKeepalive(link.peer.public_key, interval_s))

    def _judge(self, server: Address, judge: Callable[[AnchorLink], Address | None]) -> Change:
        """An anchor has answered at an address, or has not."""
        before = self._seen()
        for key, link in self._links.items():
            if server not in link.endpoints:
                continue
            better = judge(link)
            if better is not None:
                self._context.act(SetEndpoint(link.peer.public_key, better))
            self._context.touch(key)
        return self._change(before)

    def _seen(self) -> dict[bytes, tuple[bool, float]]:
        """Which links are up, and how far the anchors are."""
        return {key: (link.up, link.distance_s) for key, link in self._links.items()}

    def _change(self, before: Mapping[bytes, tuple[bool, float]]) -> Change:
        """What is another than it was."""
        came = tuple(link.peer for key, link in self._links.items() if link.up and not before[key][0])
        return Change(came, self._seen() != before)
