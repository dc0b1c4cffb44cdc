"""What named routers send when they are searched for, described and asked: each with the quirk that it is here for.

Debian's miniupnpd was recorded, the others are written from what is publicly known of them (see fixtures/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from wire_fixtures import FIXTURES

from meshctl.core.wire import igd, soap, ssdp
from meshctl.core.wire.httpmessage import HttpResponse, decode_response
from meshctl.core.wire.specialranges import Reach, reach
from meshctl.core.wire.upnperrors import Fault, Remedy

ROUTERS = FIXTURES / "routers"
IP = "urn:schemas-upnp-org:service:WANIPConnection:1"
IP_2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
PPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"


@dataclass(frozen=True)
class Router:
    """What is to be read from a router's reply and description; controls as `type URL` of the first place of each."""

    address: str
    model: str
    mapping: tuple[str, ...]
    firewall: tuple[str, ...] = ()


EXPECTED = {
    # Recorded: IGD:2, the port of its HTTP server is another after each start.
    "debian-miniupnpd": Router(
        "192.168.77.1", "Debian router", (f"{IP_2} http://192.168.77.1:46867/ctl/IPConn",),
        ("http://192.168.77.1:46867/ctl/IP6FCtl",),
    ),
    # IGD:2 with the IPv6 firewall's control; all of the XML in one line.
    "openwrt-miniupnpd": Router(
        "192.168.1.1", "OpenWRT router", (f"{IP_2} http://192.168.1.1:5000/ctl/IPConn",),
        ("http://192.168.1.1:5000/ctl/IP6FCtl",),
    ),
    # Replies to a search for the service; refuses everything until a person allows the host.
    "avm-fritzbox-7490": Router(
        "192.168.178.1", "FRITZ!Box 7490", (f"{IP_2} http://192.168.178.1:49000/igd2upnp/control/WANIPConn1",),
        ("http://192.168.178.1:49000/igd2upnp/control/WANIPv6Firewall1",),
    ),
    # Another port after each restart; the router itself behind carrier-grade NAT.
    "asus-rt-ac68u": Router("192.168.50.1", "RT-AC68U", (f"{IP} http://192.168.50.1:40313/ctl/IPConn",)),
    # Reply cut off before its end, and for another target; tags that do not match; empty URLBase; bytes of no encoding.
    "tplink-archer-c9": Router("192.168.0.1", "Archer C9", (f"{IP} http://192.168.0.1:1900/ipc",)),
    # A part of the path that is new after each restart; says that it has no connection while it has one.
    "tplink-archer-ax1500": Router(
        "192.168.0.1", "Archer AX1500", (f"{IP} http://192.168.0.1:1900/oppcl/ctl/IPConn",),
    ),
    # Bare ampersands; line ends around types; announces a PPP service that it does not have; 501 for a port in use.
    "netgear-wnr2000v5": Router("192.168.2.1", "WNR2000v5", (f"{IP} http://192.168.2.1:5555/Public_UPNP_C3",)),
    # Absolute control URLs with nothing but a query; the PPP service listed before the one in use.
    "dlink-dsl-x1852e": Router(
        "192.168.20.1", "DSL-X1852E",
        (f"{IP} http://192.168.20.1:5556/ctrl?5", f"{PPP} http://192.168.20.1:5556/ctrl?6"),
    ),
    # Small letters and bare line feeds; a URLBase with the wrong port; a control URL without a slash.
    "dlink-dir-615": Router("192.168.0.1", "DIR-615", (f"{IP} http://192.168.0.1:80/WANIPConnection",)),
    # PPP alone; a secret in the path; no space behind the colons.
    "technicolor-tg588v": Router(
        "10.0.0.138", "MediaAccess TG",
        (f"{PPP} http://10.0.0.138:8000/wn59mtddxhi/IGD/upnp/control/igd/wanpppcInternet",),
    ),
    # The reply ends without an empty line.
    "technicolor-homeware": Router(
        "192.168.1.1", "TG789vac", (f"{IP_2} http://192.168.1.1:5000/ctl/IPConn",),
        ("http://192.168.1.1:5000/ctl/IP6FCtl",),
    ),
    # Envelopes without an XML declaration, a negative uptime.
    "huawei-hg8245": Router(
        "192.168.1.1", "Home Gateway",
        (
            f"{IP} http://192.168.1.1:49652/upnp/control/WANIPConn1",
            f"{PPP} http://192.168.1.1:49652/upnp/control/WANPPPConn1",
        ),
    ),
    # A colon in the control URL's path; line ends around types; permanent leases only.
    "zyxel-vmg1312": Router(
        "192.168.1.1", "VMG1312-B10B", (f"{PPP} http://192.168.1.1:5431/uuid:0000/WANPPPConnection:1",),
    ),
    # No namespace; absolute control URLs with a port that URLBase leaves out; HTML for an error.
    "linksys-wrt120n": Router("192.168.1.1", "WRT120N", (f"{IP} http://192.168.1.1:80/upnp/control?WANIPConnection",)),
    # The router itself behind another router.
    "pfsense-miniupnpd": Router("192.168.1.1", "FreeBSD router", (f"{IP} http://192.168.1.1:2189/ctl/IPConn",)),
    # Two connections, of which one is down; CRLF in the XML; chunks; URLBase after the device.
    "mikrotik-routeros": Router(
        "192.168.88.1", "Router OS",
        (
            f"{IP} http://192.168.88.1:2828/upnp/control/yomkmsnooi/wanipconn-1",
            f"{IP} http://192.168.88.1:2828/upnp/control/xstnsgeuyh/wanipconn-7",
        ),
    ),
    # No ST; a fault that comes with status 200.
    "ubiquiti-edgerouter": Router("192.168.3.1", "EdgeRouter", (f"{IP_2} http://192.168.3.1:40779/ctl/IPConn",)),
    # No XML declaration; indented types; the service in the query.
    "ddwrt-netgear-r8000": Router(
        "192.168.1.1", "Netgear R8000", (f"{IP} http://192.168.1.1:1780/control?WANIPConnection",),
    ),
    # An empty SERVER; an empty address while the line is down.
    "sagemcom-fast3890": Router(
        "192.168.0.1", "F@ST3890V3", (f"{IP} http://192.168.0.1:49153/69692b70/upnp/control/WANIPConn1",),
    ),
    # Names of before UPnP's were settled; plain text for an error, without a length.
    "draytek-vigor-2900": Router(
        "192.168.1.1", "Vigor2900VG",
        ("urn:dslforum-org:service:WANIPConnection:1 http://192.168.1.1:80/upnp/control/WANIPConnection",),
    ),
}


def decoded(name: str) -> tuple[ssdp.Reply, igd.Device]:
    reply = ssdp.decode_reply((ROUTERS / f"{name}.ssdp").read_bytes(), EXPECTED[name].address)
    return reply, igd.decode_description((ROUTERS / f"{name}.xml").read_bytes(), reply.location)


def answer(name: str) -> HttpResponse:
    return decode_response((ROUTERS / f"{name}.http").read_bytes())


@pytest.mark.parametrize("name", EXPECTED)
def test_a_router_is_found_and_its_services_with_it(name: str) -> None:
    _reply, device = decoded(name)
    expected = EXPECTED[name]
    assert tuple(f"{service.service_type} {service.controls[0]}" for service in device.mapping) == expected.mapping
    assert tuple(str(service.controls[0]) for service in device.firewall) == expected.firewall
    assert device.model == expected.model
    assert device.name
    assert device.manufacturer


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("openwrt-miniupnpd", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"), ("avm-fritzbox-7490", IP_2),
        ("ubiquiti-edgerouter", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"),
        ("tplink-archer-c9", "upnp:rootdevice"), ("netgear-wnr2000v5", PPP),
        ("linksys-wrt120n", "urn:schemas-upnp-org:device:InternetGatewayDevice:1"),
    ],
)
def test_a_reply_says_what_it_is_for(name: str, target: str) -> None:
    assert decoded(name)[0].target == target


def test_where_the_base_url_may_be_wrong_both_places_are_to_be_tried() -> None:
    (service,) = decoded("dlink-dir-615")[1].mapping
    assert [str(url) for url in service.controls] == [
        "http://192.168.0.1:80/WANIPConnection", "http://192.168.0.1:65530/WANIPConnection",
    ]
    assert [len(service.controls) for service in decoded("zyxel-vmg1312")[1].mapping] == [1]


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [
        ("debian-miniupnpd", "11.0.0.1", Reach.GLOBAL),
        ("openwrt-miniupnpd", "203.0.113.7", Reach.GLOBAL), ("tplink-archer-c9", "203.0.113.9", Reach.GLOBAL),
        ("huawei-hg8245", "203.0.113.11", Reach.GLOBAL), ("asus-rt-ac68u", "100.64.12.7", Reach.INNER),
        ("pfsense-miniupnpd", "10.9.8.7", Reach.INNER), ("netgear-wnr2000v5", "0.0.0.0", Reach.NONE),  # noqa: S104
        ("tplink-archer-ax1500", "0.0.0.0", Reach.NONE),  # noqa: S104 - as the router says it
    ],
)
def test_the_address_outside_tells_whether_the_router_is_behind_another(
    name: str, address: str, expected: Reach
) -> None:
    outside = soap.decode_external_address(answer(f"{name}.GetExternalIPAddress"))
    assert outside == address
    assert reach(address) == expected


def test_a_router_without_a_line_has_no_address() -> None:
    assert soap.decode_external_address(answer("sagemcom-fast3890.GetExternalIPAddress")) is None


REFUSALS: list[tuple[str, Callable[[HttpResponse], object], int, Remedy]] = [
    ("avm-fritzbox-7490.AddPortMapping", soap.decode_done, 606, Remedy.NOT_HERE),
    ("tplink-archer-c9.GetStatusInfo", soap.decode_done, 401, Remedy.NOT_HERE),
    ("tplink-archer-c9.AddPortMapping", soap.decode_done, 402, Remedy.NOT_HERE),
    ("netgear-wnr2000v5.AddPortMapping", soap.decode_done, 501, Remedy.OTHER_PORT),
    ("dlink-dir-615.AddPortMapping", soap.decode_done, 718, Remedy.OTHER_PORT),
    ("pfsense-miniupnpd.AddPortMapping", soap.decode_reserved_port, 718, Remedy.OTHER_PORT),
    ("technicolor-tg588v.AddPortMapping", soap.decode_done, 728, Remedy.LATER),
    ("zyxel-vmg1312.AddPortMapping", soap.decode_done, 725, Remedy.PERMANENT),
    ("ubiquiti-edgerouter.AddPortMapping", soap.decode_port_mapping, 501, Remedy.OTHER_PORT),
    ("linksys-wrt120n.AddPortMapping", soap.decode_done, 0, Remedy.LATER),
    ("draytek-vigor-2900.AddPortMapping", soap.decode_pinhole, 0, Remedy.LATER),
    ("debian-miniupnpd.AddPortMapping-taken", soap.decode_done, 718, Remedy.OTHER_PORT),
    ("debian-miniupnpd.GetSpecificPortMappingEntry-none", soap.decode_port_mapping, 714, Remedy.GONE),
    ("openwrt-miniupnpd.DeletePortMapping", soap.decode_external_address, 714, Remedy.GONE),
]


@pytest.mark.parametrize(("name", "decode", "code", "remedy"), REFUSALS)
def test_a_refusal_says_what_to_do(
    name: str, decode: Callable[[HttpResponse], object], code: int, remedy: Remedy
) -> None:
    fault = decode(answer(name))
    assert isinstance(fault, Fault)
    assert (fault.code, fault.remedy) == (code, remedy)
    assert fault.meaning.startswith(("the router", "the port"))


def test_a_pinhole_is_opened_or_refused_by_the_rules_of_its_own_service() -> None:
    assert soap.decode_pinhole(answer("openwrt-miniupnpd.AddPinhole")) == 1
    assert soap.decode_pinhole(answer("debian-miniupnpd.AddPinhole")) == 1
    assert soap.decode_done(answer("debian-miniupnpd.DeletePinhole")) is None
    another = soap.decode_pinhole(answer("debian-miniupnpd.AddPinhole-for-another"))
    assert isinstance(another, Fault)
    assert another.code == 606
    fault = soap.decode_pinhole(answer("avm-fritzbox-7490.AddPinhole"))
    assert isinstance(fault, Fault)
    assert fault.pinhole_remedy == Remedy.NOT_HERE
    assert fault.pinhole_meaning == "the firewall is set not to be opened"


@pytest.mark.parametrize("name", ["asus-rt-ac68u", "mikrotik-routeros", "debian-miniupnpd"])
def test_a_mapping_is_granted(name: str) -> None:
    assert soap.decode_done(answer(f"{name}.AddPortMapping")) is None


def test_a_router_that_chooses_the_port_says_which() -> None:
    assert soap.decode_reserved_port(answer("openwrt-miniupnpd.AddAnyPortMapping")) == 51821
    assert soap.decode_reserved_port(answer("debian-miniupnpd.AddAnyPortMapping")) == 51820


def test_an_entry_of_the_routers_table_is_read() -> None:
    assert soap.decode_port_mapping(answer("openwrt-miniupnpd.GetSpecificPortMappingEntry")) == soap.MappedTo(
        "192.168.1.5", 51820, True, "WireGuard & co.", 7190,
    )
    assert soap.decode_port_mapping(answer("debian-miniupnpd.GetSpecificPortMappingEntry")) == soap.MappedTo(
        "192.168.77.5", 51820, True, "meshctl <&>", 600,
    )


def test_a_mapping_is_deleted() -> None:
    assert soap.decode_done(answer("debian-miniupnpd.DeletePortMapping")) is None


def test_a_router_that_is_asked_over_ipv6_gives_its_place_there() -> None:
    raw = (ROUTERS / "debian-miniupnpd-over-ipv6.ssdp").read_bytes()
    reply = ssdp.decode_reply(raw, "2001:db8:77::1")
    assert str(reply.location) == "http://[2001:db8:77::1]:46867/rootDesc.xml"
    device = igd.decode_description((ROUTERS / "debian-miniupnpd.xml").read_bytes(), reply.location)
    assert str(device.firewall[0].controls[0]) == "http://[2001:db8:77::1]:46867/ctl/IP6FCtl"


def test_every_fixture_of_a_router_is_used() -> None:
    names = {path.name.partition(".")[0] for path in ROUTERS.iterdir()}
    # The last one is another reply of a router that is among them.
    assert names == set(EXPECTED) | {"debian-miniupnpd-over-ipv6"}
