"""The whole circle on a real kernel with a real wireguard-go: facts, diff, steps, the shipped applier, facts again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from meshdocs import document, edited, key, peer, psk, wg_quick_conf, wireguard
from wgspace import Space, space

from meshctl.core.change import Change
from meshctl.model.resources import File, Nftables, NodeDoc, Sysctl, WireGuard

pytestmark = pytest.mark.lab

WEB = peer("web2", 2, "192.0.2.2:51820", 25)
DB = peer("db1", 3)


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Space]:
    with space(tmp_path) as host:
        yield host


@pytest.fixture(name="doc")
def _doc(host: Space) -> NodeDoc:
    doc = document(wireguard(DB, WEB))
    host.apply(doc)
    return doc


def shown(changes: tuple[Change, ...]) -> list[tuple[str, str, str]]:
    return [(c.kind, c.action, c.name) for c in changes]


def live(changes: tuple[Change, ...]) -> list[tuple[str, str, str]]:
    """Without the config file, which follows every change of the document."""
    return [c for c in shown(changes) if c[0] != "file"]


def index_of(host: Space) -> str:
    """The interface's number, which changes when it is made anew."""
    return host.sh("ip -o link show dev wgt0").split(":")[0]


def private_key(host: Space) -> str:
    return host.sh("cat /etc/wireguard/wgt0.key").strip()


def test_an_empty_host_gets_everything_and_the_second_diff_is_empty(host: Space) -> None:
    doc = document(wireguard(DB, WEB))
    assert shown(host.apply(doc)) == [
        ("key", "create", "wgt0"),
        ("sysctl", "update", "net.ipv4.conf.all.src_valid_mark"),
        ("file", "create", "/etc/wireguard/wgt0.conf"),
        ("table", "create", "inet meshctl"),
        ("interface", "create", "wgt0"),
    ]
    assert host.diff(doc) == ()


def test_neither_the_facts_nor_the_steps_hold_the_private_key(host: Space, doc: NodeDoc) -> None:
    text = host.facts_text(doc)
    assert private_key(host) not in text
    assert host.sh("sha256sum < /etc/wireguard/wgt0.key").split()[0] not in text
    assert host.facts(doc).interfaces["wgt0"].public_key == host.facts(doc).key_files["/etc/wireguard/wgt0.key"]


def test_foreign_interfaces_keep_their_pre_shared_keys_to_themselves(host: Space, doc: NodeDoc) -> None:
    secret = psk("theirs").reveal()
    host.sh("wireguard-go wgt9 2>/dev/null")
    host.sh(f"wg set wgt9 peer {key('x')} preshared-key /dev/stdin", stdin=secret)
    assert secret not in host.facts_text(doc)
    assert psk("web2").reveal() in host.facts_text(doc)
    assert host.facts(doc).interfaces["wgt9"].peers[key("x")].psk is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mtu": 1380}, [("mtu", "update", "wgt0")]),
        ({"listen_port": 51902}, [("listen-port", "update", "wgt0")]),
        ({"fwmark": 77}, [("interface", "update", "wgt0")]),
        ({"addresses": ("10.42.0.9/16", "fd42::1/48")},
         [("address", "create", "wgt0 10.42.0.9/16"), ("address", "delete", "wgt0 10.42.0.1/16")]),
        ({"addresses": ("10.42.0.1/16", "fd42::9/48")},
         [("address", "create", "wgt0 fd42::9/48"), ("address", "delete", "wgt0 fd42::1/48")]),
        ({"routes": ("192.168.10.0/24",)}, [("route", "create", "wgt0 192.168.10.0/24")]),
        ({"routes": ("fd77::/64",)}, [("route", "create", "wgt0 fd77::/64")]),
        ({"psks": (psk("db1"), psk("new"))}, [("peer", "update", "wgt0 web2")]),
        ({"psks": (None, psk("web2"))}, [("peer", "update", "wgt0 db1")]),
        ({"peers": (DB, replace(WEB, endpoint="192.0.2.3:51820"))}, [("peer", "update", "wgt0 web2")]),
        ({"peers": (DB, replace(WEB, keepalive_s=0))}, [("peer", "update", "wgt0 web2")]),
        ({"peers": (replace(DB, allowed_ips=("10.42.0.3/32",)), WEB)}, [("peer", "update", "wgt0 db1")]),
        ({"peers": (WEB,), "psks": (psk("web2"),)}, [("peer", "delete", f"wgt0 {key('db1')}")]),
        ({"peers": (DB, peer("new", 4), WEB), "psks": (psk("db1"), psk("new"), psk("web2"))},
         [("peer", "create", "wgt0 new")]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_one_changed_field_is_exactly_that_change(
    host: Space, doc: NodeDoc, fields: dict[str, object], expected: list[tuple[str, str, str]]
) -> None:
    index = index_of(host)
    changed = edited(doc, **fields)
    assert live(host.apply(changed)) == expected
    assert host.diff(changed) == ()
    assert index_of(host) == index, "the interface was not made anew"
    host.apply(doc)
    assert host.diff(doc) == ()


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (f"wg set wgt0 peer {WEB.public_key} remove", "peer"),
        (f"wg set wgt0 peer {WEB.public_key} allowed-ips 10.42.77.0/24", "peer"),
        (f"wg set wgt0 peer {WEB.public_key} preshared-key /dev/null", "peer"),
        ("wg set wgt0 listen-port 40000", "listen-port"),
        ("wg set wgt0 private-key /dev/null", "key"),
        ("wg set wgt0 fwmark 5", "interface"),
        ("ip link set wgt0 down", "interface"),
        ("ip link set wgt0 mtu 1300", "mtu"),
        ("ip -4 addr flush dev wgt0", "address"),
        ("ip -6 addr del fd42::1/48 dev wgt0", "address"),
        ("chmod 644 /etc/wireguard/wgt0.key", "key"),
        ("chmod 644 /etc/wireguard/wgt0.conf", "file"),
        ("rm /etc/wireguard/wgt0.conf", "file"),
        ("ip link del dev wgt0", "interface"),
        ("nft flush chain inet meshctl input", "table"),
        ("nft delete table inet meshctl", "table"),
        ("echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark", "sysctl"),
    ],
)
def test_drift_made_by_hand_is_seen_and_repaired(host: Space, doc: NodeDoc, command: str, kind: str) -> None:
    host.sh(command)
    assert {c.kind for c in host.apply(doc)} == {kind} | ({"address"} if "down" in command else set())
    assert host.diff(doc) == ()


def test_endpoint_and_keepalive_belong_to_the_agent(host: Space, doc: NodeDoc) -> None:
    host.sh(f"wg set wgt0 peer {WEB.public_key} endpoint 198.51.100.7:9 persistent-keepalive 7")
    assert host.diff(doc) == ()
    host.apply(edited(doc, mtu=1380, psks=(psk("db1"), psk("new"))))
    assert "198.51.100.7:9" in host.sh("wg show wgt0 endpoints")
    assert "\t7" in host.sh("wg show wgt0 persistent-keepalive")


def test_an_interface_that_wg_quick_made_is_adopted_without_being_touched(host: Space) -> None:
    want = wireguard(DB, WEB)
    text = wg_quick_conf(want).replace(f"PostUp = wg set %i private-key {want.key_file}", "PrivateKey = @")
    text += f"[Peer]\nPublicKey = {key('stranger')}\nAllowedIPs = 172.31.0.9/32\n"
    host.sh("mkdir -p /etc/wireguard; umask 77; read -r key; cat > /etc/wireguard/wgt0.conf", stdin="x\n")
    host.sh('cat > /tmp/c; sed "s#@#$(wg genkey)#" /tmp/c > /etc/wireguard/wgt0.conf; rm /tmp/c', stdin=text)
    host.sh("wg-quick up wgt0 2>/dev/null")
    look = "wg show wgt0 dump | sort; ip -o addr show dev wgt0"  # the addresses carry the interface's index
    before = host.sh(look)
    doc = document(want)
    changes = host.apply(doc)
    assert ("interface", "update", "wgt0") in shown(changes)
    assert ("interface", "create", "wgt0") not in shown(changes)
    assert not [c for c in changes if c.kind in ("peer", "address", "route", "mtu", "listen-port")]
    assert host.sh(look) == before
    assert host.diff(doc) == ()
    assert not [c for c in host.apply(edited(doc, peers=(DB,), psks=(psk("db1"),))) if c.name.endswith("stranger")]
    assert str(WEB.public_key) not in host.sh("wg show wgt0 peers")
    assert str(key("stranger")) in host.sh("wg show wgt0 peers")


def test_what_the_document_no_longer_names_goes_and_the_rest_stays(host: Space, doc: NodeDoc) -> None:
    host.sh("nft add table inet theirs; echo hello > /etc/wireguard/theirs")
    extra = (
        File("/etc/meshtest", state="directory", mode="0755"),
        File("/etc/meshtest/a file", content=b"x"),
        File("/etc/meshtest/link", state="link", target="a file"),
        Sysctl("net.ipv4.ip_forward", "1"),
        Nftables("ip", "meshtest", "table ip meshtest {\n}\n"),
        Nftables("ip", "meshtest_runtime", None),
    )
    more = replace(doc, resources=(*doc.resources, *extra))
    host.apply(more)
    assert host.diff(more) == ()
    host.sh("nft add table ip meshtest_runtime")
    assert host.diff(more) == (), "what a service does with its own table is none of apply's business"
    host.apply(doc)
    assert host.diff(doc) == ()
    assert host.sh("cat /proc/sys/net/ipv4/ip_forward; ls -d /etc/meshtest || true; nft list tables") == (
        "0\ntable inet meshctl\ntable inet theirs\n"
    )
    host.apply(NodeDoc("web1", ()))
    assert host.sh("wg show interfaces; nft list tables; ls /etc/wireguard") == "table inet theirs\ntheirs\nwgt0.key\n"


def test_a_clients_default_route_comes_and_goes_without_a_bounce(host: Space, doc: NodeDoc) -> None:
    want = doc.interfaces()[0]
    everything = replace(DB, allowed_ips=("0.0.0.0/0", "::/0"))
    by_exit = edited(doc, peers=(everything, WEB), default_route=True, fwmark=51820)
    assert ("route", "update", "wgt0 default") in live(host.apply(by_exit))
    assert host.diff(by_exit) == ()
    assert "dev wgt0" in host.sh("ip route get 198.51.100.1")
    assert "dev wgt0" not in host.sh("ip -4 route get 198.51.100.1 mark 51820 || true")
    host.sh("ip -6 rule del not fwmark 51820 table 51820")
    assert live(host.apply(by_exit)) == [("route", "update", "wgt0 default")]
    assert host.diff(by_exit) == ()
    host.apply(edited(doc, peers=want.peers))
    assert host.diff(doc) == ()
    assert "51820" not in host.sh("ip rule; ip -6 rule; wg show wgt0 fwmark; ip route show table all")


def test_the_default_route_that_wg_quick_made_is_the_one_that_is_wanted(host: Space) -> None:
    everything = replace(DB, allowed_ips=("0.0.0.0/0", "::/0"))
    doc = document(replace(wireguard(everything, WEB), default_route=True, fwmark=51820))
    assert ("interface", "create", "wgt0") in shown(host.apply(doc))
    assert host.diff(doc) == ()


def test_a_prefix_that_moves_to_another_peer_ends_up_there_in_one_pass(host: Space, doc: NodeDoc) -> None:
    moved = ("10.42.0.2/32", "10.42.0.3/32", "fd42::3/128")
    changed = edited(doc, peers=(replace(DB, allowed_ips=moved), replace(WEB, allowed_ips=("fd42::2/128",))))
    assert live(host.apply(changed)) == [("peer", "update", "wgt0 db1"), ("peer", "update", "wgt0 web2")]
    assert host.diff(changed) == ()


def test_odd_names_survive_the_way_from_the_document_to_the_facts(host: Space) -> None:
    names = [f"/etc/odd/{name}" for name in ("a b", "new\nline", "quo'te\"s", "back\\slash", "é", "*")]
    files = [File(name, content=name.encode()) for name in names]
    doc = NodeDoc("web1", (File("/etc/odd", state="directory", mode="0755"), *files))
    host.apply(doc)
    assert set(host.facts(doc).files) >= set(names)
    assert host.diff(doc) == ()


def test_a_thousand_peers_take_one_command_and_are_then_as_wanted(host: Space) -> None:
    peers = tuple(
        replace(peer(f"n{i:04}", 1), allowed_ips=(f"10.42.{i // 200}.{i % 200 + 2}/32",)) for i in range(1000)
    )
    start = document(wireguard(peers[0]))
    host.apply(start)
    doc: NodeDoc = document(wireguard(*peers))
    assert len([c for c in host.apply(doc) if c.kind == "peer"]) == 999
    assert host.diff(doc) == ()
    want: WireGuard = doc.interfaces()[0]
    assert len(host.facts(doc).interfaces["wgt0"].peers) == len(want.peers)
