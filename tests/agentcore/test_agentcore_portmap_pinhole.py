"""Pinholes in a router's IPv6 firewall by UPnP. Hunted: one that ends unnoticed, one that is left open, and one that is
asked for in a way that no router answers."""

from __future__ import annotations

import itertools

import pytest
from agentcore_portmap_gateway import FIREWALL, GATEWAY_6, OWN_6, PORT, ROUTER_6, Host, Router

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import HttpReply, HttpRequest, MappingDatagram, SendMapping
from meshctl.core.agent.portmap_values import LIFETIME_S, REFUSED_S, SILENT_S

PINHOLE = frozenset({"pinhole"})
OPEN = (OWN_6, PORT)
DAY = 86400.0


def host_at(router: Router, **settings: object) -> Host:
    """A host with an IPv6 address, after long enough to have asked."""
    host = Host(router, ipv6=True, **settings)  # type: ignore[arg-type]
    host.run(10)
    return host


def test_where_pcp_is_silent_upnp_opens_a_pinhole_which_never_lapses() -> None:
    host = host_at(Router(PINHOLE))
    for _ in range(24):
        (mapped,) = host.mapper.mapped()
        assert (mapped.external, mapped.held.protocol) == (Address(OWN_6, PORT), "upnp-pinhole")
        number, end = host.router.pinholes[OPEN]
        assert (number, list(host.router.pinholes)) == (0, [OPEN])
        assert end > host.now
        host.run(3600)


def test_a_pinhole_is_asked_for_over_ipv6_and_from_the_address_that_it_is_for() -> None:
    host = host_at(Router(PINHOLE))
    searches = [s for s in host.sent if isinstance(s, SendMapping) and s.gateway.port == 1900]
    assert {(s.gateway.ip, s.source) for s in searches} == {("ff02::c", OWN_6)}
    assert any(FIREWALL.encode() in s.data for s in searches)
    requests = [s for s in host.sent if isinstance(s, HttpRequest)]
    assert {r.source for r in requests} == {OWN_6}
    assert [r.url.partition("5000")[2] for r in requests] == ["/root.xml", "/fw"]


def test_upnp_is_not_asked_when_pcp_opens_the_pinhole() -> None:
    host = host_at(Router(frozenset({"pcp", "pinhole"})))
    host.run(DAY)
    (mapped,) = host.mapper.mapped()
    assert mapped.held.protocol == "pcp"
    assert {what for _, what in host.router.seen} == {"pcp"}


def test_release_closes_the_pinhole() -> None:
    host = host_at(Router(PINHOLE))
    host.leave()
    host.carry()
    assert host.router.pinholes == {}
    assert host.mapper.due() is None


def test_an_address_that_has_gone_takes_its_pinhole_along_while_the_router_can_be_asked() -> None:
    host = host_at(Router(PINHOLE))
    host.network((51999,), ipv6=True)
    host.run(10)
    assert list(host.router.pinholes) == [(OWN_6, 51999)]


def test_after_a_crash_the_pinhole_is_taken_over_and_closed_in_the_end() -> None:
    first = host_at(Router(PINHOLE))
    second = host_at(first.router, state=first.mapper.state(), now=first.now, seed=2)
    assert [m.held for m in second.mapper.mapped()] == [m.held for m in first.mapper.mapped()]
    assert len(second.router.pinholes) == 1
    second.leave()
    second.carry()
    assert second.router.pinholes == {}


def test_after_a_crash_the_pinhole_of_another_port_is_ended_though_its_number_may_be_anothers_by_now() -> None:
    first = host_at(Router(PINHOLE))
    first.router.pinholes = {(OWN_6, 22): (0, 1e9), OPEN: (1, 1e9)}
    second = host_at(first.router, state=first.mapper.state(), now=first.now, seed=2, ports=(51999,))
    second.run(2)
    lasting = [to for to, (_, end) in sorted(second.router.pinholes.items()) if end > second.now]
    assert lasting == [(OWN_6, 22), (OWN_6, 51999)]


@pytest.mark.parametrize(
    ("code", "why", "again_s"),
    [
        (702, "the firewall is off, nothing needs to be opened", REFUSED_S),
        (703, "the firewall is set not to be opened", REFUSED_S),
        (606, "the router is set not to let this host map ports", REFUSED_S),
        (701, "the firewall has no room for another pinhole", SILENT_S),
    ],
)
def test_a_router_that_refuses_is_asked_seldom_and_says_why(code: int, why: str, again_s: float) -> None:
    host = host_at(Router(PINHOLE, faults={"AddPinhole": [code] * 1000}))
    assert host.mapper.mapped() == ()
    assert why in host.mapper.why()[0][2]
    host.run(DAY)
    asked = [at for at, what in host.router.seen if what == "AddPinhole"]
    assert all(again_s <= b - a <= 1.1 * again_s + 10 for a, b in itertools.pairwise(asked))
    assert len(asked) > DAY / (1.2 * again_s)


def test_a_router_without_a_firewall_to_control_says_so() -> None:
    def without(answer: object) -> list[object]:
        if isinstance(answer, HttpReply):
            return [HttpReply(answer.request_id, answer.status, answer.body.replace(b"Firewall", b"Wall"))]
        return [answer]

    host = host_at(Router(PINHOLE), tamper=without)
    assert "the router's UPnP opens no IPv6 pinholes" in host.mapper.why()[0][2]


def test_a_firewall_that_does_not_answer_is_asked_again_later() -> None:
    host = host_at(Router(PINHOLE), tamper=lambda got: [] if b"Pinhole" in getattr(got, "body", b"") else [got])
    host.run(60)
    assert host.mapper.mapped() == ()
    assert "the router does not answer" in host.mapper.why()[0][2]
    host.tamper = None
    host.run(2000)
    assert host.mapper.mapped()


@pytest.mark.parametrize("sender", ["2001:db8:0:1::1", "2001:db8:1::1", "fe80::66", OWN_6, "192.168.1.1"])
def test_an_answer_from_outside_the_subnet_is_nobodys(sender: str) -> None:
    host = Host(Router(frozenset()), ipv6=True)
    host.run(3)
    place = f"[{sender}]" if ":" in sender else sender
    raw = f"HTTP/1.1 200 OK\r\nST: {FIREWALL}\r\nLOCATION: http://{place}:5000/root.xml\r\n\r\n".encode()
    host.give(MappingDatagram(Address(sender, 1900), raw))
    host.run(60)
    assert not [s for s in host.sent if isinstance(s, HttpRequest)]


def test_a_state_with_a_pinhole_controlled_elsewhere_is_nothing() -> None:
    first = host_at(Router(PINHOLE))
    for elsewhere in (b"2001:db8:0:1::1", b"2001:db8:ffff::1"):
        state = first.mapper.state().replace(ROUTER_6.encode(), elsewhere)
        second = Host(Router(frozenset()), state, ports=(51999,), ipv6=True)
        assert not [s for s in second.sent if isinstance(s, HttpRequest)]


def test_the_lease_is_what_is_asked_for() -> None:
    host = host_at(Router(PINHOLE))
    assert host.router.pinholes[OPEN][1] <= host.now + LIFETIME_S
    assert {m.held.gateway for m in host.mapper.mapped()} == {GATEWAY_6}
