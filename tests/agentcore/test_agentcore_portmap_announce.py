"""Routers that announce themselves by SSDP. Hunted: a mapping that a restarted router has lost and that is believed for
an hour, and a neighbour that makes every host ask without end."""

from __future__ import annotations

import pytest
from agentcore_portmap_gateway import GATEWAY, OUTSIDE, OWN, PORT, Host, Router
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import HttpRequest, MappingDatagram
from meshctl.core.agent.portmap_announce import GOODBYE_S, MAX_ROUTERS, Announcements
from meshctl.core.agent.portmap_values import SOONEST_S

PCP, NATPMP, UPNP = (frozenset({name}) for name in ("pcp", "nat-pmp", "upnp"))
SPEAKS = pytest.mark.parametrize("speaks", [PCP, NATPMP, UPNP], ids=lambda s: "".join(s))
IGD = "InternetGatewayDevice:1"


def announce(host: Host, notice: str, boot: str = "", device: str = IGD) -> None:
    """The router says it to everybody."""
    for datagram in host.router.announce(notice, boot, device):
        host.give(datagram)
    host.run(0)


def restarted(speaks: frozenset[str]) -> Host:
    """A host whose router has just restarted and lost everything; the host does not know."""
    host = Host(Router(speaks))
    host.run(100)
    announce(host, "alive", "7")
    host.run(100)
    host.router.table, host.router.booted_at = {}, host.now
    return host


@SPEAKS
def test_a_router_that_is_back_with_another_boot_number_is_asked_at_once(speaks: frozenset[str]) -> None:
    host = restarted(speaks)
    announce(host, "alive", "8")
    host.run(5)
    assert [to[:2] for to in host.router.table.values()] == [(OWN, PORT)]
    assert [m.external for m in host.mapper.mapped()] == [Address(OUTSIDE, PORT)]


@SPEAKS
def test_a_router_that_says_goodbye_is_asked_when_it_is_back_whether_it_has_boot_numbers_or_not(
    speaks: frozenset[str],
) -> None:
    host = restarted(speaks)
    announce(host, "byebye")
    host.run(GOODBYE_S - 5)
    assert host.router.table == {}
    announce(host, "alive")
    host.run(5)
    assert host.router.table


@SPEAKS
def test_a_router_that_says_goodbye_and_nothing_more_is_asked_after_a_while(speaks: frozenset[str]) -> None:
    host = restarted(speaks)
    announce(host, "byebye", "7")
    host.run(GOODBYE_S + 5)
    assert host.router.table
    assert host.mapper.mapped()


def test_a_router_that_is_gone_for_minutes_is_asked_when_it_is_back_and_not_after_a_quarter_of_an_hour() -> None:
    host = restarted(PCP)
    announce(host, "byebye", "7")
    host.router.speaks = frozenset()
    host.run(200)
    assert host.mapper.mapped() == ()
    host.router.speaks = PCP
    announce(host, "alive", "8")
    host.run(5)
    assert host.mapper.mapped()


@SPEAKS
def test_a_router_that_says_again_and_again_that_it_is_there_is_not_asked_for_it(speaks: frozenset[str]) -> None:
    host = restarted(speaks)
    before = len(host.sent)
    for _ in range(30):
        announce(host, "alive", "7")
        host.run(60)
    assert len(host.sent) - before == 0


def test_a_first_announcement_and_an_update_are_no_restart() -> None:
    host = Host(Router(PCP))
    host.run(100)
    before = len(host.sent)
    announce(host, "alive", "7")
    announce(host, "update", "8")
    announce(host, "alive", "8")
    host.run(60)
    assert len(host.sent) == before


def test_another_device_in_the_same_box_has_a_boot_number_of_its_own() -> None:
    host = restarted(PCP)
    before = len(host.sent)
    for boot in ("8", "9"):
        announce(host, "alive", boot, "MediaServer:1")
        announce(host, "byebye", boot, "MediaServer:1")
        host.run(60)
    assert len(host.sent) == before


@pytest.mark.parametrize(("device", "boot", "asked"), [(IGD, "5", None), (IGD, "6", 2.0), ("MediaServer:1", "6", None)])
def test_the_answer_to_a_search_tells_the_boot_number_too(device: str, boot: str, asked: float | None) -> None:
    announcements = Announcements()
    lines = ["HTTP/1.1 200 OK", f"ST: urn:x:device:{device}", "LOCATION: http://192.168.1.1/", "01-NLS: 5", "", ""]
    assert announcements.hear("\r\n".join(lines).encode(), GATEWAY, 0.0) is None
    (alive,) = Router(PCP).announce("alive", boot)
    assert announcements.hear(alive.data, GATEWAY, 2.0) == asked


def test_one_restart_after_another_is_asked_for_half_a_minute_after_the_first_and_a_later_one_at_once() -> None:
    announcements = Announcements()
    heard = [
        announcements.hear(Router(PCP).announce("alive", boot)[0].data, GATEWAY, now)
        for now, boot in [(1.0, "1"), (2.0, "2"), (3.0, "3"), (1000.0, "4")]
    ]
    assert heard == [None, 2.0, 2.0 + SOONEST_S, 1000.0]


def test_what_a_neighbour_says_in_its_own_name_counts_for_nothing() -> None:
    host = restarted(PCP)
    before = len(host.sent)
    for notice in ("alive", "byebye", "alive"):
        (said,) = host.router.announce(notice, notice)
        host.give(MappingDatagram(Address("192.168.1.66", 1900), said.data))
    host.run(60)
    assert len(host.sent) == before


def test_a_restart_a_second_costs_a_question_in_half_a_minute() -> None:
    host = restarted(PCP)
    before = len(host.sent)
    for boot in range(600):
        announce(host, "alive", str(boot))
        announce(host, "byebye", str(boot))
        host.run(1)
        assert host.mapper.mapped()
    assert len(host.sent) - before <= 2 * (600 / SOONEST_S + 1)


def test_routers_without_end_are_not_remembered_without_end() -> None:
    announcements = Announcements()
    for n in range(1000):
        for datagram in Router(PCP).announce("alive", "1"):
            announcements.hear(datagram.data, f"2001:db8::{n:x}", 0.0)
    again = [
        announcements.hear(Router(PCP).announce("alive", "2")[0].data, f"2001:db8::{n:x}", 0.0) for n in range(1000)
    ]
    assert len([when for when in again if when is not None]) == MAX_ROUTERS


HEADS = [b"", b"NOTIFY * HTTP/1.1\r\n", b"NOTIFY * HTTP/1.1\r\nNTS: ssdp:byebye\r\n"]


@settings(max_examples=examples(50))
@given(st.binary(max_size=300), st.sampled_from(HEADS))
def test_any_announcement_is_taken(rest: bytes, head: bytes) -> None:
    assert Announcements().hear(head + rest, GATEWAY, 0.0) in (None, GOODBYE_S)


def test_no_announcement_makes_it_fetch_anything() -> None:
    host = Host(Router(frozenset()))
    host.run(3)
    raw = f"NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nNT: {IGD}\r\nLOCATION: http://{GATEWAY}/x\r\n\r\n".encode()
    host.give(MappingDatagram(Address(GATEWAY, 1900), raw))
    host.run(60)
    assert not [s for s in host.sent if isinstance(s, HttpRequest)]
