"""Rules of the diff that the properties do not state: refusals, order, handlers, what a plan shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshctl.core.diff import diff
from meshctl.core.diff.guard import destructive_mesh, destructive_node, peers_after
from meshctl.errors import RemoteError
from meshctl.model.facts import FileFacts, HostFacts, InterfaceFacts, PeerFacts, UnitFacts
from meshctl.model.keys import PublicKey, Secret
from meshctl.model.ledger import InterfaceRecord, Ledger, PeerRecord, TableRecord
from meshctl.model.resources import File, Handler, Nftables, NodeDoc, Peer, Service, WireGuard

A, B, C = (PublicKey(letter * 42 + "A=") for letter in "ABC")
PSK = Secret("D" * 42 + "A=")


def wireguard(*peers: Peer, public_key: PublicKey | None = None) -> WireGuard:
    return WireGuard(
        "wg0", "corp", "wg-quick", ("10.0.0.1/24",), 51820, 1420, "/etc/wireguard/wg0.key", public_key,
        peers, tuple(PSK for _ in peers),
    )


def host(*peers: PeerFacts, live: PublicKey | None = A, file: PublicKey | None = A, owned: bool = True) -> HostFacts:
    record = InterfaceRecord(True, "wg-quick", {p.public_key.text: PeerRecord() for p in peers}, ("10.0.0.1/24",))
    found = {p.public_key: p for p in peers}
    return HostFacts(
        "web1", has_wg=True, init="systemd",
        files={"/etc/wireguard/wg0.key": FileFacts("file", "0600", "root", "root")},
        key_files={"/etc/wireguard/wg0.key": file},
        interfaces={"wg0": InterfaceFacts("wg0", live, 51820, 0, found, ("10.0.0.1/24",), (), 1420, True)},
        ledger=Ledger(interfaces={"wg0": record}) if owned else Ledger(),
    )


def doc(*resources: object) -> NodeDoc:
    return NodeDoc("web1", resources)  # type: ignore[arg-type]


def test_another_key_than_the_pinned_one_is_refused_with_the_remedy() -> None:
    with pytest.raises(RemoteError) as caught:
        diff(doc(wireguard(public_key=B)), host())
    assert caught.value.kind == "key-mismatch"
    assert str(A) in str(caught.value)
    assert str(B) in str(caught.value)
    assert "meshctl lock --rekey web1" in str(caught.value)


def test_a_lost_key_is_refused_unless_the_live_interface_still_has_it() -> None:
    lost = replace(host(), key_files={})
    assert [c.after for c in diff(doc(wireguard(public_key=A)), lost)] == [{"public_key": A.text, "adopted": True}]
    with pytest.raises(RemoteError, match=r"has lost /etc/wireguard/wg0\.key"):
        diff(doc(wireguard(public_key=A)), replace(lost, interfaces={}))


def test_the_key_of_an_interface_that_has_another_name_now_is_taken_along() -> None:
    renamed = replace(wireguard(public_key=A), interface="mesh0", key_file="/etc/wireguard/mesh0.key")
    with pytest.raises(RemoteError, match="on the host wg0 has it") as caught:
        diff(doc(renamed), host())
    remedy = "on web1, cp -p /etc/wireguard/wg0.key /etc/wireguard/mesh0.key"
    assert caught.value.hint == f"if mesh0 takes the place of wg0: {remedy}"


def test_a_live_interface_with_another_key_gets_the_files() -> None:
    (change,) = diff(doc(wireguard(public_key=A)), host(live=B))
    assert (change.kind, change.before, change.after) == ("key", {"public_key": B.text}, {"public_key": A.text})


def test_a_peer_without_a_key_is_known_after_apply() -> None:
    (change,) = diff(doc(wireguard(Peer("new", None, ("10.0.0.9/32",)))), host())
    assert change.after is not None
    assert change.after["public_key"] == "(known after apply)"


def test_who_gains_a_prefix_comes_before_who_loses_it_and_removals_come_last() -> None:
    live = host(
        PeerFacts(A, PSK, None, ("10.0.0.2/32", "10.0.0.4/32")),
        PeerFacts(B, PSK, None, ("10.0.0.3/32",)),
        PeerFacts(C, PSK, None, ("10.0.0.5/32",)),
    )
    want = wireguard(Peer("a", A, ("10.0.0.2/32",)), Peer("b", B, ("10.0.0.3/32", "10.0.0.4/32", "10.0.0.5/32")))
    assert [c.name for c in diff(doc(want), live)] == ["wg0 b", "wg0 a", f"wg0 {C}"]


def test_a_plan_shows_pre_shared_keys_by_fingerprint_alone() -> None:
    live = host(PeerFacts(B, Secret("E" * 42 + "A="), None, ("10.0.0.2/32",)))
    (change,) = diff(doc(wireguard(Peer("b", B, ("10.0.0.2/32",)))), live)
    assert change.before != change.after
    assert change.after == {"psk": f"(sensitive {PSK.fingerprint()})"}
    assert PSK.reveal() not in str(change.to_json())


def test_an_endpoint_is_set_when_there_is_none_or_the_repository_changed_it_and_never_else() -> None:
    want = wireguard(Peer("b", B, ("10.0.0.2/32",), "192.0.2.1:1"))

    def due(live_endpoint: str | None, record: PeerRecord | None) -> bool:
        live = host(PeerFacts(B, PSK, live_endpoint, ("10.0.0.2/32",)))
        peers = {B.text: record} if record else {}
        interface = replace(live.ledger.interfaces["wg0"], peers=peers)
        changes = diff(doc(want), replace(live, ledger=Ledger(interfaces={"wg0": interface})))
        return any("endpoint" in (c.after or {}) for c in changes)

    assert due(None, PeerRecord("192.0.2.1:1"))
    assert due("198.51.100.1:9", PeerRecord("192.0.2.7:7"))
    assert not due("198.51.100.1:9", PeerRecord("192.0.2.1:1"))
    assert not due("198.51.100.1:9", None)


def test_a_unit_is_started_when_its_interface_is_missing_and_left_when_it_lives() -> None:
    unit = Service("wg-quick@wg0", "started", satisfied_by_interface="wg0")
    assert diff(doc(wireguard(), unit), host()) == ()
    gone = replace(host(), interfaces={}, units={"wg-quick@wg0": UnitFacts("loaded", "active", "enabled")})
    assert [c.kind for c in diff(doc(wireguard(), unit), gone)] == ["interface", "unit"]


def test_a_handler_runs_once_after_everything_and_not_for_a_unit_that_was_just_started() -> None:
    files = (File("/etc/a", content=b"a", notify=("r",)), File("/etc/b", content=b"b", notify=("r",)))
    document = NodeDoc("web1", files, (Handler("r", "thing", "restarted"), Handler("other", "x", "reloaded")))
    assert [c.name for c in diff(document, HostFacts("web1"))] == ["/etc/a", "/etc/b", "r"]
    started = replace(document, resources=(*files, Service("thing", "started")))
    assert [c.name for c in diff(started, HostFacts("web1"))] == ["/etc/a", "/etc/b", "thing"]


def test_an_interface_that_was_adopted_loses_our_peers_and_stays() -> None:
    live = host(PeerFacts(B, PSK, None, ("10.0.0.2/32",)), PeerFacts(C, None, None, ()))
    record = InterfaceRecord(False, "wg-quick", {B.text: PeerRecord()})
    changes = diff(doc(), replace(live, ledger=Ledger(interfaces={"wg0": record})))
    assert [(c.kind, c.action, c.name) for c in changes] == [
        ("peer", "delete", f"wg0 {B}"), ("interface", "update", "wg0"),
    ]


def test_losing_all_peers_a_third_of_the_nodes_or_an_anchor_needs_a_yes() -> None:
    live = host(PeerFacts(B, PSK, None, ()))
    assert destructive_node(doc(wireguard()), live) == ("web1 loses its only peer",)
    assert destructive_node(doc(wireguard(Peer("b", B, ()))), live) == ()
    assert peers_after(doc(wireguard(Peer("b", B, ())))) == 1
    nodes = [f"n{i}" for i in range(10)]
    assert destructive_mesh(nodes, nodes[:7], ["n0"], ["n0"]) == ()
    assert len(destructive_mesh(nodes, nodes[:6], ["n0"], ["n0"])) == 1
    assert destructive_mesh(nodes, nodes[1:], ["n0"], []) == ("n0 is removed while others use its endpoint",)


def test_a_handler_that_an_earlier_run_did_not_come_to_is_run() -> None:
    handlers = (Handler("reload", "thing", "reloaded"), Handler("other", "thing", "restarted"))
    due = diff(NodeDoc("web1", (), handlers), HostFacts("web1", ledger=Ledger(handlers=("reload", "gone"))))
    assert [(c.kind, c.action, c.name) for c in due] == [("handler", "run", "reload")]


def test_an_old_ledger_without_handlers_is_read() -> None:
    text = Ledger(handlers=("x",)).to_json()
    assert Ledger.from_json(text).handlers == ("x",)
    assert Ledger.from_json(text.replace('"handlers":["x"],', "")) == Ledger()


def test_the_ledger_keeps_what_is_to_be_run_when_a_unit_goes_and_an_old_one_has_nothing_of_it() -> None:
    text = Ledger(cleanups={"unit": ("unit", "cleanup")}).to_json()
    assert Ledger.from_json(text).cleanups == {"unit": ("unit", "cleanup")}
    assert Ledger.from_json(text.replace('"cleanups":{"unit":["unit","cleanup"]},', "")) == Ledger()


def test_a_link_to_a_zipapp_that_is_gone_is_made_anew() -> None:
    path = "/opt/meshctl/meshctl-agent-0123456789abcdef.pyz"
    link = doc(File("/opt/meshctl/meshctl-agent.pyz", "link", target=path))
    facts = HostFacts("web1", files={"/opt/meshctl/meshctl-agent.pyz": FileFacts("link", target=path)})
    assert [c.before for c in diff(link, facts)] == [{"target": None}]
    assert diff(link, replace(facts, agents=frozenset({"0123456789abcdef"}))) == ()


def test_a_table_that_a_service_makes_is_taken_note_of_once_and_goes_with_its_role() -> None:
    wanted = doc(Nftables("inet", "theirs", None))
    assert [(c.action, c.name, c.after) for c in diff(wanted, HostFacts("web1"))] == [
        ("update", "inet theirs", {"managed": True})
    ]
    known = HostFacts("web1", tables={"inet theirs": "a1"}, ledger=Ledger(tables={"inet theirs": TableRecord("", "")}))
    assert diff(wanted, known) == ()
    assert [(c.action, c.name) for c in diff(doc(), known)] == [("delete", "inet theirs")]
