"""An apply in two rounds. Hunted: a path that somebody goes by and that is gone before its successor is there, one that
both ends do not have after the first round, and anything left to do after the second."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from memoryhost import obey
from meshdocs import key, psk, wireguard
from test_ops_property import EMPTY, applied, documents

from meshctl.core.diff import diff
from meshctl.core.diff.between import first_round, left_behind, prepared
from meshctl.model.facts import HostFacts, InterfaceFacts
from meshctl.model.resources import File, Nftables, NodeDoc, Package, Peer, WireGuard
from meshctl.ops import steps_for

LAN = "192.168.1.0/24"


def doc(*peers: Peer, text: str = "", **fields: object) -> NodeDoc:
    want = replace(wireguard(*peers), **fields)  # type: ignore[arg-type]
    conf = File("/etc/wireguard/wgt0.conf", content=repr(want).encode())
    table = Nftables("inet", "meshctl", f"table inet meshctl {{ # {text}\n}}\n")
    return NodeDoc("web1", (Package(("nftables",)), conf, table, want))


def peer(name: str, *allowed: str) -> Peer:
    return Peer(name, key(name), allowed)


def allowed(facts: HostFacts) -> dict[str, set[str]]:
    """Public key -> prefixes, live."""
    live = facts.interfaces.get("wgt0")
    return {k.text: set(p.allowed_ips) for k, p in live.peers.items()} if live else {}


def after_first(want: NodeDoc, facts: HostFacts, *, carries: bool = False) -> HostFacts:
    between, changes = first_round(want, facts, carries=carries)
    return obey(facts, steps_for(between, facts, changes), between)


@given(documents(), documents())
def test_two_rounds_leave_nothing_to_do_and_take_nothing_that_stays(old: NodeDoc, new: NodeDoc) -> None:
    facts = before = applied(old, EMPTY)
    wanted = {p.public_key.text: set(p.allowed_ips) for w in new.interfaces() for p in w.peers if p.public_key}
    stays = {k: prefixes & wanted[k] for k, prefixes in allowed(before).items() if k in wanted}
    between, changes = first_round(new, facts, carries=False)
    for step in steps_for(between, facts, changes):
        facts = obey(facts, (step,), between)
        assert all(stays[k] <= allowed(facts).get(k, set()) for k in stays)
    assert first_round(new, facts, carries=False)[1] == ()
    assert wanted.keys() <= allowed(facts).keys()
    if new.interfaces() and before.interfaces:
        was, now = before.interfaces["wgt0"], facts.interfaces["wgt0"]
        assert set(was.addresses) <= set(now.addresses)
        assert set(was.routes) <= set(now.routes)
    for step in steps_for(new, facts, diff(new, facts)):
        facts = obey(facts, (step,), new)
        assert all(stays[k] <= allowed(facts).get(k, set()) for k in stays)
    assert diff(new, facts) == ()
    assert allowed(facts) == wanted


@given(documents())
def test_a_host_that_loses_nothing_has_one_round(want: NodeDoc) -> None:
    assert prepared(want, EMPTY) == want
    assert first_round(want, EMPTY, carries=False)[1] == diff(want, EMPTY)


def test_a_peer_that_goes_and_its_way_stay_for_the_first_round() -> None:
    facts = applied(doc(peer("b", "10.42.0.2/32"), peer("c", "10.42.0.3/32"), text="old"), EMPTY)
    want = doc(peer("b", "10.42.0.2/32"), peer("d", "10.42.0.4/32"), text="new")
    between, changes = first_round(want, facts, carries=False)
    assert {(c.kind, c.action, c.name) for c in changes} == {
        ("table", "update", "inet meshctl"), ("peer", "create", "wgt0 d"),
    }  # fmt: skip
    facts = obey(facts, steps_for(between, facts, changes), between)
    assert allowed(facts).keys() == {key(name).text for name in "bcd"}
    assert {(c.kind, c.action) for c in diff(want, facts)} == {("file", "update"), ("peer", "delete")}


@pytest.mark.parametrize("booted", [False, True])
def test_what_a_boot_between_the_rounds_brings_back_of_a_peer_that_stays_is_still_to_do(booted: bool) -> None:
    b, c = peer("b", "10.42.0.2/32"), peer("c", "10.42.0.3/32")
    old = replace(b, endpoint="203.0.113.1:51820", keepalive_s=20)
    facts = before = applied(doc(old, c), replace(EMPTY, boot_id="first"))
    want = doc(replace(b, endpoint="203.0.113.9:51999", keepalive_s=25))
    facts = after_first(want, facts)
    assert first_round(want, facts, carries=False)[1] == ()
    if booted:  # by the file that is still the old one
        facts = replace(facts, interfaces=before.interfaces, boot_id="second")
    due = {"peer": {"endpoint", "keepalive_s"}} if booted else {}
    changes = diff(want, facts)
    assert {c.kind: set(c.after) for c in changes if c.action == "update" and c.kind == "peer" and c.after} == due
    facts = obey(facts, steps_for(want, facts, changes), want)
    found = facts.interfaces["wgt0"].peers[key("b")]
    assert (found.endpoint, found.keepalive_s) == ("203.0.113.9:51999", 25)
    assert diff(want, replace(facts, boot_id="third")) == (), "its file is the new one now"


def test_a_prefix_goes_to_its_new_owner_in_the_second_round_and_its_old_one_carries_it_until_then() -> None:
    b, c = peer("b", "10.42.0.2/32", LAN), peer("c", "10.42.0.3/32")
    facts = applied(doc(b, text="old"), EMPTY)
    want = doc(replace(b, allowed_ips=("10.42.0.2/32",)), replace(c, allowed_ips=("10.42.0.3/32", LAN)), text="new")
    assert left_behind(want, facts) == {key("b")}
    first = after_first(want, facts)
    assert LAN in allowed(first)[key("b").text]
    assert allowed(first)[key("c").text] == {"10.42.0.3/32"}
    assert LAN in allowed(applied(want, first))[key("c").text]
    assert "table" not in {c.kind for c in first_round(want, facts, carries=True)[1]}


def test_the_new_key_of_a_node_has_its_address_at_once_for_nobody_has_the_old_one() -> None:
    facts = applied(doc(peer("b", "10.42.0.2/32")), EMPTY)
    want = doc(Peer("b", key("new b"), ("10.42.0.2/32",)))
    assert left_behind(want, facts) == set()
    assert allowed(after_first(want, facts)) == {key("new b").text: {"10.42.0.2/32"}}


def test_the_default_route_turns_in_the_second_round() -> None:
    b, c = peer("b", "10.42.0.2/32"), peer("c", "10.42.0.3/32")
    live = InterfaceFacts("wgt0", key("own"), 51901, 0, {})
    facts = applied(doc(b), replace(EMPTY, interfaces={}))
    want = doc(replace(b, allowed_ips=("10.42.0.2/32", "0.0.0.0/0")), c, default_route=True, fwmark=51901)
    first = prepared(want, facts).interfaces()[0]
    assert (first.default_route, first.fwmark) == (False, live.fwmark)
    assert first.peers == (b, c)
    records = {"wgt0": replace(facts.ledger.interfaces["wgt0"], routes=("default",))}
    live = facts.interfaces["wgt0"]
    peers = {**live.peers, key("b"): replace(live.peers[key("b")], allowed_ips=("10.42.0.2/32", "0.0.0.0/0"))}
    facts = replace(
        facts, interfaces={"wgt0": replace(live, peers=peers, fwmark=51901)},
        ledger=replace(facts.ledger, interfaces=records),
    )  # fmt: skip
    other = doc(b, replace(c, allowed_ips=("10.42.0.3/32", "0.0.0.0/0")), default_route=True, fwmark=51901)
    assert [p.allowed_ips for p in prepared(other, facts).interfaces()[0].peers] == [
        ("0.0.0.0/0", "10.42.0.2/32"), ("10.42.0.3/32",),
    ]  # fmt: skip
    none: WireGuard = prepared(doc(b, c), facts).interfaces()[0]
    assert (none.default_route, none.fwmark) == (True, 51901)


def test_a_pre_shared_key_of_a_peer_that_goes_is_the_one_that_it_has() -> None:
    facts = applied(doc(peer("b", "10.42.0.2/32")), EMPTY)
    assert tuple(prepared(doc(), facts).interfaces()[0].psks) == (psk("b"),)
