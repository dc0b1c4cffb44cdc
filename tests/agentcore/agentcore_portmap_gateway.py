"""A router that maps ports by PCP, NAT-PMP and UPnP, and opens pinholes, written from the RFCs and apart from the
codecs; and a host that has a `PortMapper`, with a clock that jumps from one thing to do to the next."""

from __future__ import annotations

import random
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.events import Action, HttpReply, HttpRequest, MappingDatagram, SendMapping
from meshctl.core.agent.portmap import PortMapper

GATEWAY, OWN, OUTSIDE, PORT = "192.168.1.1", "192.168.1.10", "198.51.100.7", 51820
# Over IPv6 the router answers UPnP from its address in the subnet, which nobody has told the host.
GATEWAY_6, OWN_6, ROUTER_6 = "fe80::1", "2001:db8::10", "2001:db8::1"
FIREWALL = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
CONTROL = "urn:schemas-upnp-org:service:WANIPConnection:"
DESCRIPTION_AT = "/root.xml"


def _packed(ip: str) -> bytes:
    if ":" in ip:
        return socket.inet_pton(socket.AF_INET6, ip)
    return bytes(10) + b"\xff\xff" + socket.inet_aton(ip)


@dataclass
class Router:
    """`speaks`: of pcp, nat-pmp, upnp, pinhole. `faults` are UPnP's codes by action, used up in order. `table`:
    external port to internal (host, port, lease); `pinholes`: host and port to (number, end)."""

    speaks: frozenset[str]
    outside: str = OUTSIDE
    lifetime_s: int | None = None  # None: what was asked for
    booted_at: float = 0.0
    pcp_result: int = 0
    upnp_version: int = 1
    leads_to: str | None = None  # what its table says that every port leads to
    faults: dict[str, list[int]] = field(default_factory=dict)
    table: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    pinholes: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    seen: list[tuple[float, str]] = field(default_factory=list)

    def datagram(self, sent: SendMapping, now: float) -> list[MappingDatagram]:
        """What it answers."""
        data, epoch = sent.data, int(now - self.booted_at) + 1
        if sent.gateway.port == 1900:
            self.seen.append((now, "search"))
            if ":" in sent.gateway.ip:
                return self._found_over_ipv6(sent)
            head = f"HTTP/1.1 200 OK\r\nST: {CONTROL}1\r\nLOCATION: http://{GATEWAY}:5000{DESCRIPTION_AT}\r\n\r\n"
            return [MappingDatagram(Address(GATEWAY, 1900), head.encode())] if "upnp" in self.speaks else []
        self.seen.append((now, "pcp" if data[0] == 2 else "nat-pmp"))
        answer = self._pcp(data, sent.source, epoch) if data[0] == 2 else self._natpmp(data, sent.source, epoch)
        return [MappingDatagram(Address(sent.gateway.ip, 5351), answer)] if answer else []

    def _found_over_ipv6(self, sent: SendMapping) -> list[MappingDatagram]:
        assert sent.gateway.ip == "ff02::c"
        head = f"HTTP/1.1 200 OK\r\nST: {FIREWALL}\r\nLOCATION: http://[{ROUTER_6}]:5000{DESCRIPTION_AT}\r\n\r\n"
        return [MappingDatagram(Address(ROUTER_6, 1900), head.encode())] if "pinhole" in self.speaks else []

    def _pcp(self, data: bytes, source: str, epoch: int) -> bytes:
        if "pcp" not in self.speaks:
            return struct.pack("!BBHI", 0, 0x81, 1, epoch) if "nat-pmp" in self.speaks else b""
        asked = struct.unpack_from("!I", data, 4)[0]
        assert data[8:24] == _packed(source)
        internal, suggested = struct.unpack_from("!HH", data, 40)
        lifetime = asked if self.lifetime_s is None or not asked else self.lifetime_s
        external = OWN_6 if ":" in source else self.outside
        if not self.pcp_result:
            self._set(suggested or internal, source, internal, asked)
        head = struct.pack("!BBBBII12x", 2, 0x81, 0, self.pcp_result, lifetime, epoch)
        return head + data[24:42] + struct.pack("!H", suggested or internal) + _packed(external)

    def _natpmp(self, data: bytes, source: str, epoch: int) -> bytes:
        if "nat-pmp" not in self.speaks:
            return struct.pack("!BBxBII12x", 2, 0x81, 1, 0, epoch) if "pcp" in self.speaks else b""
        if data[1] == 0:
            return struct.pack("!BBHI", 0, 0x80, 0, epoch) + socket.inet_aton(self.outside)
        internal, external, asked = struct.unpack_from("!HHI", data, 4)
        lifetime = asked if self.lifetime_s is None or not asked else self.lifetime_s
        self._set(external or internal, source, internal, asked)
        return struct.pack("!BBHIHHI", 0, 0x81, 0, epoch, internal, external, lifetime)

    def http(self, request: HttpRequest, now: float) -> HttpReply:
        """What it answers."""
        if request.method == "GET":
            service = f"<serviceType>{CONTROL}{self.upnp_version}</serviceType><controlURL>/ctl</controlURL>"
            if "pinhole" in self.speaks:
                service += f"</service><service><serviceType>{FIREWALL}</serviceType><controlURL>/fw</controlURL>"
            body = f"<root><device><service>{service}</service></device></root>"
            return HttpReply(request.request_id, 200, body.encode())
        action = dict(request.headers)["SOAPAction"].rpartition("#")[2].strip('"')
        self.seen.append((now, action))
        if self.faults.get(action):
            return self._fault(request, self.faults[action].pop(0))
        arguments = dict(re.findall(r"<(\w+)>([^<]*)<", request.body.decode()))
        if action.endswith("Pinhole"):
            return self._pinhole(request, action, arguments, now)
        port = int(arguments.get("NewExternalPort", 0))
        inside = ""
        if action == "GetExternalIPAddress":
            inside = f"<NewExternalIPAddress>{self.outside}</NewExternalIPAddress>"
        elif action in ("AddPortMapping", "AddAnyPortMapping"):
            host = arguments["NewInternalClient"], int(arguments["NewInternalPort"])
            if port in self.table and self.table[port][:2] != host:
                return self._fault(request, 718)
            self.table[port] = (*host, int(arguments["NewLeaseDuration"]))
            inside = f"<NewReservedPort>{port}</NewReservedPort>"
        elif port not in self.table:
            return self._fault(request, 714)
        elif action == "DeletePortMapping":
            del self.table[port]
        else:
            host, internal, lease = self.table[port]
            inside = (
                f"<NewInternalClient>{self.leads_to or host}</NewInternalClient><NewInternalPort>{internal}"
                f"</NewInternalPort><NewEnabled>1</NewEnabled><NewLeaseDuration>{lease}</NewLeaseDuration>"
            )
        return HttpReply(request.request_id, 200, f"<u:{action}Response>{inside}</u:{action}Response>".encode())

    def _pinhole(self, request: HttpRequest, action: str, arguments: dict[str, str], now: float) -> HttpReply:
        if request.url != f"http://[{ROUTER_6}]:5000/fw":  # what it said of its services was tampered with
            return HttpReply(request.request_id, 404, b"")
        self.pinholes = {to: (number, end) for to, (number, end) in self.pinholes.items() if end > now}
        if action == "DeletePinhole":
            gone = [to for to, (number, _) in self.pinholes.items() if number == int(arguments["UniqueID"])]
            if not gone:
                return self._fault(request, 704)
            del self.pinholes[gone[0]]
            return HttpReply(request.request_id, 200, b"<u:DeletePinholeResponse></u:DeletePinholeResponse>")
        host, port = arguments["InternalClient"], int(arguments["InternalPort"])
        if host != request.source:
            return self._fault(request, 606)
        assert (arguments["RemoteHost"], arguments["RemotePort"], arguments["Protocol"]) == ("", "0", "17")
        free = max((number for number, _ in self.pinholes.values()), default=-1) + 1
        number = self.pinholes.get((host, port), (free, 0.0))[0]
        self.pinholes[host, port] = number, now + int(arguments["LeaseTime"])
        body = f"<u:AddPinholeResponse><UniqueID>{number}</UniqueID></u:AddPinholeResponse>"
        return HttpReply(request.request_id, 200, body.encode())

    def announce(self, notice: str, boot: str = "", device: str = "InternetGatewayDevice:1") -> list[MappingDatagram]:
        """What it says to everybody on its own."""
        lines = [
            "NOTIFY * HTTP/1.1", "HOST: 239.255.255.250:1900", f"NTS: ssdp:{notice}",
            f"NT: urn:schemas-upnp-org:device:{device}", *([f"BOOTID.UPNP.ORG: {boot}"] if boot else []), "", "",
        ]  # fmt: skip
        return [MappingDatagram(Address(GATEWAY, 49200), "\r\n".join(lines).encode())]

    def _set(self, external: int, host: str, internal: int, lifetime_s: int) -> None:
        self.table = {e: to for e, to in self.table.items() if to[:2] != (host, internal)}
        if lifetime_s:
            self.table[external] = (host, internal, lifetime_s)

    @staticmethod
    def _fault(request: HttpRequest, code: int) -> HttpReply:
        body = f"<s:Fault><UPnPError><errorCode>{code}</errorCode></UPnPError></s:Fault>"
        return HttpReply(request.request_id, 500, body.encode())


class Host:
    """A mapper at a router. `tamper` may change or replace each answer."""

    def __init__(
        self, router: Router, state: bytes = b"", now: float = 0.0, seed: int = 1, ports: tuple[int, ...] = (PORT,),
        ipv6: bool = False, tamper: Callable[[object], list[object]] | None = None,
    ) -> None:  # fmt: skip
        self.router, self.now, self.tamper = router, now, tamper
        self.mapper = PortMapper(random.Random(seed), state)  # noqa: S311 - a simulation
        self.sent: list[Action] = []
        self.network(ports, ipv6=ipv6)

    def network(
        self, ports: tuple[int, ...] = (PORT,), gateways: tuple[str, ...] = (GATEWAY,), ipv6: bool = False
    ) -> None:
        """The network is this one now."""
        addresses = [LocalAddress(OWN, 24, "eth0")]
        if ipv6:
            addresses, gateways = [LocalAddress(OWN_6, 64, "eth0")], (GATEWAY_6,)
        self._context = addresses, gateways
        self.mapper.set_network(addresses, gateways, ports, self.now)
        self.carry()

    def leave(self) -> None:
        """No port is wanted any more: what is mapped is given back."""
        self.mapper.set_network(*self._context, (), self.now)

    def give(self, answer: object) -> None:
        """One event for the mapper."""
        if isinstance(answer, MappingDatagram):
            self.mapper.receive(answer, self.now)
        elif isinstance(answer, HttpReply):
            self.mapper.reply(answer, self.now)

    def carry(self) -> None:
        """Take all there is to the router, and back what it answers."""
        for _ in range(1000):
            actions = list(self.mapper.actions())
            if not actions:
                return
            self.sent += actions
            for action in actions:
                answers: list[object] = []
                if isinstance(action, SendMapping):
                    answers += self.router.datagram(action, self.now)
                elif isinstance(action, HttpRequest):
                    answers.append(self.router.http(action, self.now))
                for answer in answers:
                    for given in [answer] if self.tamper is None else self.tamper(answer):
                        self.give(given)
        raise AssertionError("a conversation without end")

    def run(self, seconds: float, most: int = 10_000) -> int:
        """Let time pass; how often the mapper woke."""
        end, wakes = self.now + seconds, 0
        while (due := self.mapper.due()) is not None and due <= end:
            self.now, wakes = max(self.now, due), wakes + 1
            assert wakes <= most, "it spins"
            self.mapper.poll(self.now)
            self.carry()
        self.now = end
        return wakes
