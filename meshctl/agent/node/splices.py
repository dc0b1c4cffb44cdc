"""Splices: WireGuard's packets for one peer leave from another port than WireGuard's, and come back to that.

The rules rewrite a port and keep no state of their own. They stand outside conntrack's view on both ways, so that the
host's own firewall, and conntrack, see an ordinary connection of WireGuard's port: outward they come after conntrack
(-200), inward before it. STUN on the same ports is the agent's and stays as it is.

Ports of a splice are bound by sockets that take nothing: so no other program gets them, and the kernel does not answer
what comes to them (guesses of the other side, STUN that only the raw socket reads) with an ICMP error.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress

from meshctl.agent.node import bpf
from meshctl.agent.node.ruletable import Element, Kind, RuleTable
from meshctl.agent.node.tablehandler import TableHandler
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, InstallSplice, OpenPorts, RemoveSplice
from meshctl.model.keys import PublicKey
from meshctl.model.places import SPLICES_TABLE

_RETURN = 0x06  # BPF_RET of linux/bpf_common.h: take so many bytes of a packet

_KINDS = {
    f"{way}_v{family}": Kind((f"ipv{family}_addr", "inet_service", "inet_service"), ("inet_service",))
    for way in ("out", "in")
    for family in (4, 6)
}
_CHAINS = """\
chain output {
	type filter hook output priority 300; policy accept;
	meta l4proto != udp accept
	@th,96,32 0x2112a442 accept
	udp sport set ip daddr . udp sport . udp dport map @out_v4
	udp sport set ip6 daddr . udp sport . udp dport map @out_v6
}
chain prerouting {
	type filter hook prerouting priority -300; policy accept;
	meta l4proto != udp accept
	fib daddr type != local accept
	@th,96,32 0x2112a442 accept
	udp dport set ip saddr . udp sport . udp dport map @in_v4
	udp dport set ip6 saddr . udp sport . udp dport map @in_v6
}"""


class Splices(TableHandler):
    """Those of all interfaces of this node. `now` is when the agent starts."""

    actions: tuple[type[Action], ...] = (OpenPorts, InstallSplice, RemoveSplice)

    def __init__(self, document: AgentDocument, now: float) -> None:
        super().__init__(RuleTable(SPLICES_TABLE, _KINDS, _CHAINS, now))
        self._installed: dict[InstallSplice, tuple[Element, ...]] = {}
        self._bound: dict[PublicKey, dict[int, socket.socket]] = {}
        self.configure(document, now)

    def configure(self, document: AgentDocument, now: float) -> None:  # noqa: ARG002 - as Handler has it
        """See Handler."""
        self._port_of = {p.public_key: n.listen_port for n in document.config.networks for p in n.peers}

    def do(self, action: Action) -> None:
        """See Handler. Raises ValueError for a peer that no interface has."""
        if isinstance(action, OpenPorts):
            self._bind(action.peer, action.ports)
        elif isinstance(action, InstallSplice):
            elements = self._elements(action)
            self._installed[action] = elements
            self._table.change(add=elements)
        elif isinstance(action, RemoveSplice):
            installed = InstallSplice(action.peer, action.remote, action.local_port)
            self._table.change(remove=self._installed.pop(installed, ()))

    def close(self) -> None:
        """See Handler. Splices go on: so do their tunnels."""
        super().close()
        for sockets in self._bound.values():
            _close(sockets.values())

    # Inside

    def _elements(self, splice: InstallSplice) -> tuple[Element, ...]:
        own = self._port_of.get(splice.peer)
        if own is None:
            raise ValueError(f"a splice for {splice.peer.text}, which is no peer")
        ip, port = splice.remote
        family = splice.remote.family
        return (
            Element(f"out_v{family}", (ip, own, port), (splice.local_port,)),
            Element(f"in_v{family}", (ip, port, splice.local_port), (own,)),
        )

    def _bind(self, peer: PublicKey, ports: tuple[int, ...]) -> None:
        before = self._bound.pop(peer, {})
        _close(sock for port, sock in before.items() if port not in ports)
        bound = {port: sock for port, sock in before.items() if port in ports}
        for port in ports:
            if port not in bound:
                # Another program has it: it then sees STUN that it drops, and a splice takes nothing of its own.
                with suppress(OSError):
                    bound[port] = deaf_socket(port)
        if bound:
            self._bound[peer] = bound


def deaf_socket(port: int) -> socket.socket:
    """A UDP socket that has the port in both families, and takes nothing that comes. Raises OSError."""
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError:  # a kernel without IPv6
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        bpf.attach(sock, [(_RETURN, 0, 0, 0)])
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()

