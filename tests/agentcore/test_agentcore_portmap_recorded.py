"""A port mapping with what Debian's miniupnpd was recorded to say (tests/wire/fixtures). Hunted: a request that does
not fit the answers of a real router."""

from __future__ import annotations

import random
from pathlib import Path

from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.events import HttpReply, HttpRequest, MappingDatagram
from meshctl.core.agent.portmap import PortMapper
from meshctl.core.wire.httpmessage import decode_response

ROUTERS = Path(__file__).parents[1] / "wire" / "fixtures" / "routers"
ROUTER, OWN = "192.168.77.1", "192.168.77.5"


def recorded(request: HttpRequest) -> HttpReply:
    """What the router said to such a request."""
    if request.method == "GET":
        assert request.url == "http://192.168.77.1:46867/rootDesc.xml"
        return HttpReply(request.request_id, 200, (ROUTERS / "debian-miniupnpd.xml").read_bytes())
    assert request.url == "http://192.168.77.1:46867/ctl/IPConn"
    action = dict(request.headers)["SOAPAction"].rpartition("#")[2].strip('"')
    response = decode_response((ROUTERS / f"debian-miniupnpd.{action}.http").read_bytes())
    return HttpReply(request.request_id, response.status, response.body)


def test_miniupnpd_maps_a_port_and_deletes_it() -> None:
    mapper = PortMapper(random.Random(1))  # noqa: S311 - a simulation
    mapper.set_network([LocalAddress(OWN, 24, "eth0")], [ROUTER], [51820], 0.0)
    mapper.poll(0.0)
    mapper.poll(3.0)
    reply = (ROUTERS / "debian-miniupnpd.ssdp").read_bytes()
    mapper.receive(MappingDatagram(Address(ROUTER, 1900), reply), 3.1)
    asked = []
    while requests := [a for a in mapper.actions() if isinstance(a, HttpRequest)]:
        for request in requests:
            asked.append(dict(request.headers).get("SOAPAction", "").rpartition("#")[2].strip('"'))
            mapper.reply(recorded(request), 3.2)
    assert asked == ["", "GetExternalIPAddress", "AddAnyPortMapping", "GetSpecificPortMappingEntry"]
    (mapped,) = mapper.mapped()
    assert (mapped.external, mapped.held.internal) == (Address("11.0.0.1", 51820), Address(OWN, 51820))
    assert not mapped.held.permanent
    mapper.release()
    (deletion,) = [a for a in mapper.actions() if isinstance(a, HttpRequest)]
    assert b"<NewExternalPort>51820<" in deletion.body
    assert recorded(deletion).status == 200
