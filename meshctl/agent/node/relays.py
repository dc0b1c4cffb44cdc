"""Relays of an anchor: the kernel forwards a pair's packets between its two ends, and nothing else, over its port.

Each packet is known by where it comes from and the port that it comes to: so two pairs of one end do not get mixed up,
and strangers' packets are nobody's. NAT does the work: one entry of conntrack serves both directions. STUN to these
ports is the agent's, and is kept from conntrack, which would forward it with the rest.

Where the kernel cannot do it (ends of two families, no nftables, no netlink of conntrack's, a family in which this host
does not forward), `relayforward` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from meshctl.agent.node import rtnetlink
from meshctl.agent.node.nfnetlink import Nfnetlink
from meshctl.agent.node.relayforward import Forwarder
from meshctl.agent.node.ruletable import AGAIN_S, Element, Kind, RuleTable
from meshctl.agent.node.tablehandler import TableHandler
from meshctl.core.agent.address import Address
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event, InstallRelay, RelayFailed, RemoveRelay
from meshctl.core.agent.relayserver import PORTS
from meshctl.model.places import RELAYS_TABLE

# A table that was refused (no nft, or one that cannot do this) is not tried for so long: each time is a process.
REFUSED_S = 60.0
_FORWARDING = {4: Path("/proc/sys/net/ipv4/ip_forward"), 6: Path("/proc/sys/net/ipv6/conf/all/forwarding")}


class RelayCount(NamedTuple):
    """What has come from one end of a relay's pair since the relay was installed. `kernel`: that is who forwards."""

    port: int
    source: Address
    packets: int
    bytes: int
    kernel: bool


class Relays(TableHandler):
    """All relays of this node. `now` is when the agent starts; `rate_bytes_s` is what may pass of a pair each way, 0
    for as much as there is."""

    actions: tuple[type[Action], ...] = (InstallRelay, RemoveRelay)

    def __init__(self, now: float, rate_bytes_s: int = 0) -> None:
        super().__init__(RuleTable(RELAYS_TABLE, _kinds(rate_bytes_s), _chains(rate_bytes_s > 0), now, self._forget))
        self._rate = self._wanted_rate = rate_bytes_s  # the first is the one in the kernel's rules
        self._rate_at: float | None = None  # when the second is to be there, too
        self._netlink = Nfnetlink()
        self._forwarder = Forwarder(rate_bytes_s)
        self._conntrack_forgets = False  # as far as was seen
        self._installed: dict[int, InstallRelay] = {}
        self._untold: Exception | None = None  # that `poll` is to raise
        self._refused = False  # a relay, by the kernel: it is asked for none until `_again_at`, which `poll` sets
        self._again_at: float | None = None
        self._failed: list[int] = []  # ports of relays that are nobody's, of which the core has not heard

    def configure(self, document: AgentDocument, now: float) -> None:
        """See Handler. Another limit holds at once, for those that are relayed too; one that the kernel's rules refuse
        is put into them later, and raises OSError or RuntimeError."""
        self._wanted_rate = document.relay_limit
        self._forwarder.set_rate(self._wanted_rate)
        self._limit(now)

    def do(self, action: Action) -> None:
        """See Handler."""
        if isinstance(action, InstallRelay):
            before = self._installed.get(action.port)
            if before is not None and before != action:
                try:
                    self._remove(before)
                except (OSError, RuntimeError) as error:  # the new ends are not to wait for that
                    self._untold = error
            self._install(action)
        elif isinstance(action, RemoveRelay):
            installed = InstallRelay(action.port, action.a, action.b)
            if self._installed.get(action.port) in (installed, None):
                self._remove(installed)

    def poll(self, now: float) -> list[Event]:
        """See Handler. Raises OSError or RuntimeError when the kernel's rules refused a relay (the agent forwards it
        itself, until they do not) or the removal of what an end that has moved had before."""
        if self._refused and self._again_at is None:
            self._again_at = now + REFUSED_S
        untold, self._untold = self._untold, None
        if untold is not None:
            raise untold
        if self._again_at is not None and now >= self._again_at:
            self._refused, self._again_at = False, None
            for relay in list(self._installed.values()):
                self._install(relay)
        if self._rate_at is not None and now >= self._rate_at:
            self._limit(now)
        failed, self._failed = self._failed, []
        return [*super().poll(now), *map(RelayFailed, failed)]

    def due(self) -> float | None:
        """See Handler."""
        at_once = 0.0 if self._failed else None
        times = at_once, self._again_at, self._rate_at, super().due()
        return min((at for at in times if at is not None), default=None)

    def counters(self) -> Iterator[RelayCount]:
        """What each end of each relay has sent, for status and metrics."""
        for family in (4, 6):
            for (ip, port, relay), packets, size in self._table.counters(f"counted_v{family}"):
                yield RelayCount(int(relay), Address(str(ip), int(port)), packets, size, kernel=True)
        for relay, source, packets, size in self._forwarder.counters():
            yield RelayCount(relay, source, packets, size, kernel=False)

    def close(self) -> None:
        """See Handler. What the kernel forwards goes on, so that an anchor's agent can be restarted unnoticed."""
        super().close()
        self._netlink.close()
        self._forwarder.close()

    # Inside

    def _limit(self, now: float) -> None:
        """Have the kernel's rules keep to the rate that is wanted."""
        if self._wanted_rate != self._rate:
            self._rate_at = now + AGAIN_S  # should it fail
            rate = self._wanted_rate
            relays = [relay for relay in self._installed.values() if not self._forwarder.forwards(relay.port)]
            elements = [element for relay in relays for element in _elements(relay, rate)]
            self._table.replace(_kinds(rate), _chains(rate > 0), elements)
            self._rate = rate
        self._rate_at = None

    def _install(self, relay: InstallRelay) -> None:
        self._installed[relay.port] = relay
        if self._by_kernel(relay):
            self._forwarder.remove(relay.port)  # that had it while the kernel could not
        else:
            try:
                self._forwarder.add(relay.port, relay.a, relay.b)
            except (OSError, RuntimeError):
                self._installed.pop(relay.port)
                self._failed.append(relay.port)
                raise

    def _by_kernel(self, relay: InstallRelay) -> bool:
        """Have the kernel forward; whether it does. Without nftables or conntrack's netlink, or with one that cannot do
        this, it does not."""
        if self._refused or relay.a.family != relay.b.family or not _forwards(relay.a.family):
            return False
        elements = _elements(relay, self._rate)
        try:
            self._check_conntrack(relay.a.ip)
            changed = self._table.change(add=elements)
        except (OSError, RuntimeError) as error:
            self._untold, self._refused = error, True
            return False
        if changed:
            self._forget(elements)
        return True

    def _remove(self, relay: InstallRelay) -> None:
        self._installed.pop(relay.port, None)
        self._forwarder.remove(relay.port)
        elements = _elements(relay, self._rate) if relay.a.family == relay.b.family else []
        if self._table.change(remove=elements):
            self._forget(elements)

    def _check_conntrack(self, ip: str) -> None:
        """Raises RuntimeError where conntrack cannot be told: what it decides for a pair before it is relayed, or while
        it is, would hold for as long as the pair talks."""
        if not self._conntrack_forgets:
            try:
                self._netlink.forget_connection((ip, 0), (ip, 0))  # nobody's
            except OSError as error:
                hint = "the agent relays by itself; modprobe nf_conntrack_netlink, if the kernel has it"
                raise RuntimeError(f"conntrack cannot be told to forget: {error.strerror} ({hint})") from error
            self._conntrack_forgets = True

    def _forget(self, elements: Iterable[Element]) -> None:
        """Conntrack decides once for a connection: what it decided before these changed must not hold on.

        After the change: a connection that begins before it would else get in between.
        """
        ends = sorted({(str(ip), int(port), int(relay)) for ip, port, relay in (e.key for e in elements)})
        if not ends:
            return
        held = rtnetlink.parse_addresses(rtnetlink.dump(rtnetlink.RTM_GETADDR))
        for own in sorted({h.ip for h in held}):
            for ip, port, relay in ends:
                if (":" in own) == (":" in ip):
                    self._netlink.forget_connection((ip, port), (own, relay))


def _elements(relay: InstallRelay, rate_bytes_s: int) -> list[Element]:
    """What both ends need in the table."""
    family, found = relay.a.family, []
    sets = ("end", "counted", "limited") if rate_bytes_s else ("end", "counted")
    for one, other in ((relay.a, relay.b), (relay.b, relay.a)):
        key = (one.ip, one.port, relay.port)
        found.append(Element(f"to_ip_v{family}", key, (other.ip,)))
        found.append(Element(f"to_port_v{family}", key, (other.port,)))
        found += [Element(f"{name}_v{family}", key) for name in sets]
    return found


def _forwards(family: int) -> bool:
    """Whether this host's kernel forwards packets of that family."""
    try:
        return _FORWARDING[family].read_text().strip() != "0"
    except OSError:  # a kernel without IPv6
        return False


def _kinds(rate_bytes_s: int) -> dict[str, Kind]:
    kinds = {}
    for family in (4, 6):
        key = (f"ipv{family}_addr", "inet_service", "inet_service")
        # Two maps: nft before 1.0 has none from a concatenation to another. They are looked up once a connection.
        kinds[f"to_ip_v{family}"] = Kind(key, (f"ipv{family}_addr",))
        kinds[f"to_port_v{family}"] = Kind(key, ("inet_service",))
        kinds[f"end_v{family}"] = Kind(key)
        kinds[f"counted_v{family}"] = Kind(key, extra="counter")
        if rate_bytes_s:
            kinds[f"limited_v{family}"] = Kind(key, extra=f"limit rate over {rate_bytes_s} bytes/second burst 0 bytes")
    return kinds


def _chains(limited: bool) -> str:
    """The quiet chain: nobody has bound these ports, and the kernel would tell each end so after each of its binds."""
    limits = [f"{ip} saddr . udp sport . udp dport @limited_{v} drop" for ip, v in (("ip", "v4"), ("ip6", "v6"))]
    ports = f"{PORTS[0]}-{PORTS[-1]}"
    source = "{ip} saddr . udp sport . udp dport"
    original = "meta l4proto udp ct status dnat ct original {ip} saddr . ct original proto-src . ct original proto-dst"
    return f"""\
chain raw_in {{
	type filter hook prerouting priority -300; policy accept;
	udp dport != {ports} accept
	@th,96,32 0x2112a442 fib daddr type local notrack accept
	{"; ".join(limits) if limited else ""}
	ip saddr . udp sport . udp dport @counted_v4 accept
	ip6 saddr . udp sport . udp dport @counted_v6 accept
}}
chain raw_out {{
	type filter hook output priority -300; policy accept;
	udp sport {ports} @th,96,32 0x2112a442 notrack
}}
chain prerouting {{
	type nat hook prerouting priority -100; policy accept;
	udp dport != {ports} accept
	fib daddr type != local accept
	dnat ip to {source.format(ip="ip")} map @to_ip_v4 : {source.format(ip="ip")} map @to_port_v4
	dnat ip6 to {source.format(ip="ip6")} map @to_ip_v6 : {source.format(ip="ip6")} map @to_port_v6
}}
chain postrouting {{
	type nat hook postrouting priority 100; policy accept;
	{original.format(ip="ip")} @end_v4 snat ip to ct original ip daddr : ct original proto-dst
	{original.format(ip="ip6")} @end_v6 snat ip6 to ct original ip6 daddr : ct original proto-dst
}}
chain quiet {{
	type filter hook output priority 0; policy accept;
	icmp type destination-unreachable icmp code port-unreachable @th,240,16 {ports} drop
	icmpv6 type destination-unreachable icmpv6 code port-unreachable @th,400,16 {ports} drop
}}"""
