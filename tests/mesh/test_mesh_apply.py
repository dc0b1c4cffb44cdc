"""From nothing to a working mesh, and what a second apply and a changed line do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from meshlab import MeshLab, changes_of

pytestmark = pytest.mark.lab

# Everything that an apply could touch, with its modification time.
MTIMES = "find /etc /opt/meshctl /usr/local -xdev -newermt 2000-01-01 -printf '%p %T@\\n' | sort"
KERNEL = "wg show wg0 allowed-ips | sort; wg show wg0 endpoints | sort; ip -o addr; ip route; nft -s list ruleset"


def test_from_nothing_to_a_working_mesh(applied_mesh: MeshLab) -> None:
    mesh = applied_mesh
    assert mesh.reaches("home1", mesh.address("home2")), "two hosts behind NATs reach each other by the routed relay"
    assert mesh.reaches("home1", mesh.address("home2", 6)), "and by IPv6 inside the mesh"
    assert mesh.reaches("home2", mesh.address("office"))
    assert mesh.reaches("home2", "192.168.10.10"), "the device on the LAN behind the gateway"
    assert mesh.reaches("fra1", mesh.address("nyc1")), "two public hosts reach each other directly"


def test_what_no_policy_names_is_denied(mesh: MeshLab) -> None:
    assert mesh.is_denied("office", mesh.address("home1"))
    assert mesh.is_denied("home1", mesh.address("fra1")), "the link to an anchor opens nothing by itself"


def test_unpermitted_nodes_are_not_even_peers(mesh: MeshLab) -> None:
    keys = {node: mesh.sh(node, "wg show wg0 public-key").strip() for node in ("fra1", "home1", "home2", "office")}
    home1_peers = mesh.sh("home1", "wg show wg0 peers").split()
    assert keys["fra1"] in home1_peers
    assert keys["home2"] not in home1_peers, "a routed pair is not a direct peer"


def test_a_second_apply_changes_nothing(mesh: MeshLab) -> None:
    before = {n: (mesh.sh(n, MTIMES), mesh.sh(n, KERNEL), mesh.handshakes(n)) for n in ("fra1", "office", "home1")}
    with mesh.lossless(("home1", "home2"), ("home2", "office")):
        nodes = mesh.apply()
    assert {node["status"] for node in nodes.values()} == {"unchanged"}
    for node, (mtimes, kernel, handshakes) in before.items():
        assert mesh.sh(node, MTIMES) == mtimes
        assert mesh.sh(node, KERNEL) == kernel
        # A rekey may come by itself; a reset would show as a peer that has no handshake.
        assert all(when >= handshakes[key] for key, when in mesh.handshakes(node).items())


def set_in(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """An edit that sets one value of the inventory, by its path."""

    def edit(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document.setdefault(key, {})
        document[path[-1]] = value

    return edit


def a_second_lan(document: dict[str, Any]) -> None:
    """The office gets another LAN, which the homes may use."""
    document["nodes"]["office"]["routes"].append("192.168.11.0/24")
    document["policies"][1]["to"].append("192.168.11.0/24")


def kinds(changes: list[tuple[str, str, str]]) -> set[str]:
    """The kinds of the changes, without the files that say the same for the next boot."""
    return {kind for kind, _, _ in changes} - {"file"}


@pytest.mark.parametrize(
    ("edit", "node", "expected"),
    [
        (set_in("nodes", "office", "mtu", value=1380), "office", {"mtu"}),
        (set_in("nodes", "office", "listen_port", value=51999), "office", {"listen-port"}),
        (set_in("nodes", "office", "address", value=["10.42.99.9", "fd42:42::99:9"]), "office", {"address", "table"}),
        (a_second_lan, "home1", {"route", "peer"}),
        (set_in("nodes", "office", "psk", value=False), "fra1", {"peer"}),
    ],
    ids=["mtu", "listen-port", "address", "route", "psk"],
)  # fmt: skip
def test_a_changed_line_changes_just_that_and_no_other_tunnel_loses_a_packet(
    mesh: MeshLab, edit: Callable[[dict[str, Any]], None], node: str, expected: set[str]
) -> None:
    mesh.edit(edit)
    with mesh.lossless(("home1", "home2"), ("fra1", "nyc1"), ("nyc1", "home2")):
        changed = changes_of(mesh.apply())
    assert kinds(changed[node]) == expected
    assert mesh.plan()["changes"] == []
    assert mesh.reaches("home1", mesh.address("office")), "and the changed tunnel works"


def test_a_new_policy_adds_its_peer_and_nothing_else(mesh: MeshLab) -> None:
    assert mesh.is_denied("office", mesh.address("nyc1"))
    mesh.edit(lambda d: d["policies"].append({"name": "extra", "from": ["office"], "to": ["nyc1"], "allow": ["any"]}))
    with mesh.lossless(("home1", "home2"), ("fra1", "nyc1")):
        changed = changes_of(mesh.apply())
    assert set(changed) <= {"office", "nyc1"}
    assert mesh.reaches("office", mesh.address("nyc1"))


def test_a_node_that_leaves_the_inventory_loses_its_access_everywhere(mesh: MeshLab) -> None:
    address, key = mesh.address("home2"), mesh.sh("home2", "wg show wg0 public-key").strip()
    mesh.edit(lambda d: d["nodes"].pop("home2"))
    with mesh.lossless(("home1", "office"), ("fra1", "nyc1")):
        mesh.apply()
    for node in ("fra1", "nyc1", "office", "home1"):
        assert key not in mesh.sh(node, "wg show all peers; cat /etc/wireguard/*.conf")
    assert mesh.is_denied("home2", mesh.address("office"))
    assert mesh.is_denied("fra1", address)


def test_an_anchor_in_use_is_not_removed_without_a_confirmation(mesh: MeshLab) -> None:
    assert mesh.reaches("nyc1", mesh.address("home1")), "somebody has used it"
    mesh.edit(lambda d: d["nodes"].pop("nyc1"))
    state = "wg show wg0 allowed-ips | sort; cat /etc/wireguard/wg0.conf"
    before = {n: mesh.sh(n, state) for n in ("fra1", "home1")}
    refused = mesh.on_lab("apply")
    assert refused.code == 1
    assert "refused, nothing was applied: nyc1 is removed while others use its endpoint" in refused.err
    assert {n: mesh.sh(n, state) for n in before} == before


def test_the_stock_client_works_as_rendered(mesh: MeshLab) -> None:
    shown = mesh.run("client", "show", "phone", "-i", str(mesh.path), "--lab", mesh.name, "--conf", "--rekey")
    assert shown.code == 0, shown.err
    mesh.apply()
    mesh.sh("phone", f"umask 077; cat > /etc/wireguard/wg0.conf <<'EOF'\n{shown.out}\nEOF\nwg-quick up wg0 2>&1")
    try:
        assert mesh.reaches("phone", mesh.address("office"))
        assert mesh.reaches("phone", "192.168.10.10")
        assert mesh.is_denied("phone", mesh.address("home1"))
    finally:
        mesh.sh("phone", "wg-quick down wg0 2>&1")
