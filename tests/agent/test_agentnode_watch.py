"""What happens to the host: rtnetlink's bytes as they were once seen, and changes in a real network namespace."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from agentnode_space import Space, document, space
from hypothesis import given
from hypothesis import strategies as st

from meshctl.agent.node import libc, netlink, rtnetlink
from meshctl.agent.node.handler import Handler
from meshctl.agent.node.rtnetlink import Gateway, Held
from meshctl.agent.node.watch import SETTLE_S, ClockWatch, DocumentWatch, NetworkWatch
from meshctl.core.agent.address import LocalAddress
from meshctl.core.agent.events import ClockStepped, Event, LocalAddresses

# Of a host with eth0 (device 3), wlan0 without carrier (5), wg0 (7) and their other ends; Linux 6.18.
NETLINK = Path(__file__).parent / "netlink"
DONE = 3


def bodies(name: str) -> list[bytes]:
    """The messages of a recorded dump."""
    data = bytes.fromhex((NETLINK / f"{name}.hex").read_text())
    return [body for kind, body in netlink.messages(data) if kind != DONE]


def ready(handler: Handler, timeout_s: float = 5.0) -> bool:
    """Whether one of its sockets can be read."""
    return bool(select.select([sock for sock, _ in handler.sockets()], [], [], timeout_s)[0])


def read(handler: Handler, now: float) -> list[Event]:
    """What its sockets say."""
    return [event for _, receive in handler.sockets() for event in receive(now)]


def test_links_are_read_with_their_state() -> None:
    links = {link.name: link for link in rtnetlink.parse_links(bodies("links"))}
    assert {name for name, link in links.items() if link.up} == {"lo", "eth0", "p0", "wg0", "p2"}
    assert links["lo"].loopback
    assert not links["eth0"].loopback


def test_addresses_are_read_without_those_that_must_not_be_used() -> None:
    links = {link.device: link.name for link in rtnetlink.parse_links(bodies("links"))}
    held = [(links[h.device], *h[1:]) for h in rtnetlink.parse_addresses(bodies("addresses"))]
    assert ("eth0", "192.168.1.5", 24) in held
    assert ("eth0", "10.9.9.1", 32) in held, "the own address of a point-to-point link, not the other end's"
    assert ("eth0", "2001:db8::5", 64) in held
    assert "2001:db8::6" not in [ip for _, ip, _ in held], "deprecated"


def test_default_routes_are_read_with_all_their_next_hops() -> None:
    eth0 = next(link.device for link in rtnetlink.parse_links(bodies("links")) if link.name == "eth0")
    found = set(rtnetlink.parse_gateways(bodies("routes")))
    ips = ("192.168.1.1", "192.168.1.2", "192.168.1.3", "fe80::1", "fe80::9")
    assert found == {Gateway(eth0, ip) for ip in ips}, "neither another table's nor a route to somewhere"


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_without_an_error(data: bytes) -> None:
    found = [body for _, body in netlink.messages(data)]
    for parse in (rtnetlink.parse_links, rtnetlink.parse_addresses, rtnetlink.parse_gateways):
        list(parse([*found, data]))


@given(st.data())
def test_a_recorded_message_that_is_cut_or_changed_is_read_without_an_error(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["links", "addresses", "routes"]))
    body = bytearray(data.draw(st.sampled_from(bodies(name))))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    for parse in (rtnetlink.parse_links, rtnetlink.parse_addresses, rtnetlink.parse_gateways):
        for found in parse([cut]):
            assert not isinstance(found, (Held, Gateway)) or found.ip


@pytest.fixture(name="place")
def _place() -> Iterator[Space]:
    with space() as made:
        made.run("ip", "-batch", "-", text="""\
            link add eth0 type veth peer name far0
            link set far0 up
            link add wg0 type veth peer name far1
            link set far1 up
            link set wg0 up
            addr add 10.42.0.1/16 dev wg0
            """)  # fmt: skip
        yield made


@pytest.mark.lab
def test_addresses_and_gateways_are_told_at_first_and_when_they_change(place: Space) -> None:
    told: list[str] = []
    place.run("ip", "addr", "add", "192.168.1.5/24", "dev", "eth0")
    watch = place.inside(lambda: NetworkWatch(document(), 10.0, lambda: told.append("changed")))
    try:
        assert watch.due() == 10.0
        (first,) = place.inside(lambda: watch.poll(10.0))
        assert isinstance(first, LocalAddresses)
        assert {a.interface for a in first.addresses} <= {"lo"}, "neither the tunnel's nor a link's that is down"
        assert first.gateways == ()
        place.run("ip", "link", "set", "eth0", "up")
        place.run("ip", "route", "add", "default", "via", "192.168.1.1")
        assert ready(watch)
        assert read(watch, 20.0) == []
        assert watch.due() == 20.0 + SETTLE_S
        assert place.inside(lambda: watch.poll(20.0)) == [], "more may come"
        (second,) = place.inside(lambda: watch.poll(20.0 + SETTLE_S))
        assert isinstance(second, LocalAddresses)
        assert LocalAddress("192.168.1.5", 24, "eth0") in second.addresses
        assert second.gateways == ("192.168.1.1",)
        assert told == ["changed", "changed"]
    finally:
        watch.close()


@pytest.mark.lab
def test_a_change_that_leads_to_nothing_new_is_no_event(place: Space) -> None:
    watch = place.inside(lambda: NetworkWatch(document(), 0.0, lambda: None))
    try:
        assert place.inside(lambda: watch.poll(0.0)) != []
        place.run("ip", "addr", "add", "10.42.7.7/32", "dev", "wg0")
        assert ready(watch)
        read(watch, 1.0)
        assert place.inside(lambda: watch.poll(1.0 + SETTLE_S)) == []
        assert watch.due() is None
    finally:
        watch.close()


@pytest.mark.lab
def test_routes_to_somewhere_are_not_looked_at(place: Space) -> None:
    place.run("ip", "link", "set", "eth0", "up")
    watch = place.inside(lambda: NetworkWatch(document(), 0.0, lambda: None))
    try:
        place.inside(lambda: watch.poll(0.0))
        while ready(watch, 0.1):
            read(watch, 1.0)
        place.inside(lambda: watch.poll(2.0))
        place.run("ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
        assert ready(watch)
        read(watch, 3.0)
        assert watch.due() is None
    finally:
        watch.close()


def test_a_host_that_slept_has_its_clock_stepped() -> None:
    ahead = [100.0]
    watch = ClockWatch(lambda: ahead[0])
    try:
        ahead[0] += 0.001
        assert watch.poll(0.0) == []
        ahead[0] += 3600
        assert watch.poll(0.0) == [ClockStepped()]
        assert watch.poll(0.0) == []
    finally:
        watch.close()


def test_a_clock_that_nobody_sets_says_nothing() -> None:
    watch = ClockWatch()
    try:
        assert len(list(watch.sockets())) == 1
        assert not ready(watch, 0.1)
        assert watch.poll(0.0) == []
    finally:
        watch.close()


def test_a_clock_watch_goes_off_once_it_is_no_longer_in_the_future() -> None:
    descriptor = libc.clock_watch()
    try:
        libc.arm_clock_watch(descriptor, 1 - libc._FAR_S)
        assert select.select([descriptor], [], [], 5)[0], "armed with what the kernel takes for the time that it is"
    finally:
        os.close(descriptor)


def test_a_document_that_is_written_or_put_in_place_is_noticed_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text("{}")
    watch = DocumentWatch(path, lambda: [ClockStepped()])
    try:
        (tmp_path / "other.json").write_text("{}")
        assert ready(watch)
        assert read(watch, 0.0) == []
        path.write_text("{ }")
        assert ready(watch)
        assert read(watch, 0.0) == [ClockStepped()]
        (tmp_path / "new").write_text("[]")
        (tmp_path / "new").replace(path)
        assert ready(watch)
        assert read(watch, 0.0) == [ClockStepped()]
        assert not ready(watch, 0.0)
    finally:
        watch.close()
