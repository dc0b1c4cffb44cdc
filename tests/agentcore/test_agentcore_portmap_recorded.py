"""A port mapping with what Debian's miniupnpd was recorded to say (tests/wire/fixtures). Hunted: a request that does
not fit the answers of a real router."""

from __future__ import annotations

import random
from pathlib import Path

from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.events import HttpReply, HttpRequest, MappingDatagram
from meshctl.core.agent.portmap import PortMapper
from meshctl.core.agent.portmap_announce import GOODBYE_S, Announcements
from meshctl.core.wire.httpmessage import decode_response

ROUTERS = Path(__file__).parents[1] / "wire" / "fixtures" / "routers"
ROUTER, OWN = "192.168.77.1", "192.168.77.5"
ROUTER_6, OWN_6 = "2001:db8:77::1", "2001:db8:77::5"


def recorded(request: HttpRequest) -> HttpReply:
    """What the router said to such a request."""
    host = f"[{ROUTER_6}]" if ":" in request.source else ROUTER
    if request.method == "GET":
        assert request.url == f"http://{host}:46867/rootDesc.xml"
        return HttpReply(request.request_id, 200, (ROUTERS / "debian-miniupnpd.xml").read_bytes())
    assert request.url == f"http://{host}:46867/ctl/{'IP6FCtl' if ':' in host else 'IPConn'}"
    action = dict(request.headers)["SOAPAction"].rpartition("#")[2].strip('"')
    response = decode_response((ROUTERS / f"debian-miniupnpd.{action}.http").read_bytes())
    return HttpReply(request.request_id, response.status, response.body)


def converse(mapper: PortMapper, now: float) -> list[str]:
    """Answer until it asks no more; the actions that it asked for, "" for the description."""
    asked = []
    while requests := [a for a in mapper.actions() if isinstance(a, HttpRequest)]:
        for request in requests:
            asked.append(dict(request.headers).get("SOAPAction", "").rpartition("#")[2].strip('"'))
            mapper.reply(recorded(request), now)
    return asked


def test_miniupnpd_maps_a_port_and_deletes_it() -> None:
    mapper = PortMapper(random.Random(1))  # noqa: S311 - a simulation
    mapper.set_network([LocalAddress(OWN, 24, "eth0")], [ROUTER], [51820], 0.0)
    mapper.poll(0.0)
    mapper.poll(3.0)
    reply = (ROUTERS / "debian-miniupnpd.ssdp").read_bytes()
    mapper.receive(MappingDatagram(Address(ROUTER, 1900), reply), 3.1)
    asked = converse(mapper, 3.2)
    assert asked == ["", "GetExternalIPAddress", "AddAnyPortMapping", "GetSpecificPortMappingEntry"]
    (mapped,) = mapper.mapped()
    assert (mapped.external, mapped.held.internal) == (Address("11.0.0.1", 51820), Address(OWN, 51820))
    assert not mapped.held.permanent
    mapper.set_network([LocalAddress(OWN, 24, "eth0")], [ROUTER], [], 3.3)
    (deletion,) = [a for a in mapper.actions() if isinstance(a, HttpRequest)]
    assert b"<NewExternalPort>51820<" in deletion.body
    assert recorded(deletion).status == 200


def test_miniupnpd_opens_a_pinhole_and_closes_it() -> None:
    mapper = PortMapper(random.Random(1))  # noqa: S311 - a simulation
    mapper.set_network([LocalAddress(OWN_6, 64, "eth0")], ["fe80::1"], [51820], 0.0)
    mapper.poll(0.0)
    mapper.poll(3.0)
    reply = (ROUTERS / "debian-miniupnpd-over-ipv6.ssdp").read_bytes()
    mapper.receive(MappingDatagram(Address(ROUTER_6, 1900), reply), 3.1)
    assert converse(mapper, 3.2) == ["", "AddPinhole"]
    (mapped,) = mapper.mapped()
    assert mapped.external == mapped.held.internal == Address(OWN_6, 51820)
    mapper.set_network([LocalAddress(OWN_6, 64, "eth0")], ["fe80::1"], [], 3.3)
    (deletion,) = [a for a in mapper.actions() if isinstance(a, HttpRequest)]
    assert b"<UniqueID>1<" in deletion.body
    assert recorded(deletion).status == 200


def test_miniupnpd_that_was_restarted_is_asked_again_and_one_that_runs_on_is_not() -> None:
    announcements = Announcements()
    told = [
        announcements.hear((ROUTERS / f"debian-miniupnpd.{what}.notify").read_bytes(), ROUTER, now)
        for now, what in enumerate(["alive", "alive", "alive-restarted", "byebye"])
    ]
    assert told == [None, None, 2.0, 3.0 + GOODBYE_S]
