"""What happens to the host: rtnetlink's bytes as they were once seen, and changes in a real network namespace."""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from agentnode_space import Space, document, space
from hypothesis import given
from hypothesis import strategies as st

from meshctl.agent.node import libc, netlink, rtnetlink
from meshctl.agent.node.handler import Handler
from meshctl.agent.node.rtnetlink import Gateway, Held
from meshctl.agent.node.watch import (
    CHANGED_AGAIN_S,
    LOOK_S,
    SETTLE_S,
    ClockWatch,
    DocumentWatch,
    NetworkWatch,
    host_addresses,
)
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
    watch = place.inside(lambda: NetworkWatch(document(), 10.0, lambda: not told.append("changed")))
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
    watch = place.inside(lambda: NetworkWatch(document(), 0.0, lambda: True))
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
    watch = place.inside(lambda: NetworkWatch(document(), 0.0, lambda: True))
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


@pytest.mark.lab
def test_who_could_not_do_all_that_a_change_wants_is_called_again(place: Space) -> None:
    well = [False, False, True]
    watch = place.inside(lambda: NetworkWatch(document(), 0.0, lambda: well.pop(0)))
    try:
        (first,) = place.inside(lambda: watch.poll(0.0))
        assert isinstance(first, LocalAddresses), "whatever that was"
        assert watch.due() == CHANGED_AGAIN_S
        place.run("ip", "addr", "add", "10.42.7.7/32", "dev", "wg0")
        assert ready(watch)
        read(watch, 1.0)
        assert watch.due() == 1.0 + SETTLE_S, "a change is looked at at once all the same"
        place.inside(lambda: watch.poll(2.0))
        assert watch.due() == 2.0 + CHANGED_AGAIN_S
        place.inside(lambda: watch.poll(2.0 + CHANGED_AGAIN_S))
        assert (watch.due(), well) == (None, [])
    finally:
        watch.close()


@pytest.mark.lab
def test_of_a_full_table_the_default_routes_alone_are_kept(place: Space) -> None:
    """With as much memory as the dump comes in."""
    place.run("ip", "link", "set", "eth0", "up")
    place.run("ip", "addr", "add", "192.168.1.5/24", "dev", "eth0")
    place.run("ip", "route", "add", "default", "via", "192.168.1.1")
    routes = "".join(f"route add 10.{n >> 8}.{n & 255}.0/24 dev eth0\n" for n in range(20_000))
    place.run("ip", "-batch", "-", text=routes)
    tracemalloc.start()
    try:
        found = place.inside(lambda: host_addresses(frozenset()))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.gateways == ("192.168.1.1",)
    assert most < 500_000, "all bodies are 60 bytes each, and an object more"


def test_a_dump_during_which_something_changed_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = [([b"half"], True), ([b"whole"], False), ([b"another"], False)]
    monkeypatch.setattr(rtnetlink, "_replies", lambda *_: dumps.pop(0))
    assert rtnetlink.dump(rtnetlink.RTM_GETADDR) == [b"whole"]
    dumps = [([bytes([n])], True) for n in range(9)]
    assert rtnetlink.dump(rtnetlink.RTM_GETADDR) == [bytes([rtnetlink._ATTEMPTS - 1])], "as good as any"


def test_the_kernel_says_when_a_dump_is_of_two_moments() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        for part in (netlink.message(20, 0x10, b"address"), netlink.message(DONE, 0, bytes(4))):
            there.send(part)
        assert rtnetlink._replies(here, lambda _: True) == ([b"address"], True)


@pytest.fixture(name="watched")
def _watched(tmp_path: Path) -> Iterator[tuple[Path, DocumentWatch]]:
    """A document, and what watches it from time 0 on."""
    path = tmp_path / "meshctl" / "agent.json"
    path.parent.mkdir()
    path.write_text("{}")
    watch = DocumentWatch(path, lambda: [ClockStepped()], 0.0)
    yield path, watch
    watch.close()


def test_a_document_that_is_written_or_put_in_place_is_noticed_and_others_are_not(
    watched: tuple[Path, DocumentWatch],
) -> None:
    path, watch = watched
    (path.parent / "other.json").write_text("{}")
    assert ready(watch)
    assert read(watch, 0.0) == []
    path.write_text("{ }")
    assert ready(watch)
    assert read(watch, 0.0) == [ClockStepped()]
    (path.parent / "new").write_text("[]")
    (path.parent / "new").replace(path)
    assert ready(watch)
    assert read(watch, 0.0) == [ClockStepped()]
    assert not ready(watch, 0.0)
    assert watch.poll(LOOK_S) == []


def test_a_document_in_a_folder_that_was_made_anew_is_noticed_and_the_next_one_at_once(
    watched: tuple[Path, DocumentWatch],
) -> None:
    path, watch = watched
    shutil.rmtree(path.parent)
    assert watch.poll(LOOK_S) == [], "it may come again"
    path.parent.mkdir()
    path.write_text("{ }")
    assert watch.poll(2 * LOOK_S) == [ClockStepped()]
    read(watch, 2 * LOOK_S)
    path.write_text("{  }")
    assert ready(watch)
    assert read(watch, 2 * LOOK_S) == [ClockStepped()]


def test_a_document_is_noticed_where_inotify_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This user has as many instances of it as may be."""

    def refuse() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(libc, "file_watch", refuse)
    path = tmp_path / "agent.json"
    path.write_text("{}")
    watch = DocumentWatch(path, lambda: [ClockStepped()], 0.0)
    assert list(watch.sockets()) == []
    path.write_text("{ }")
    assert watch.due() == LOOK_S
    assert watch.poll(LOOK_S) == [ClockStepped()]
    watch.close()
