"""Whose keys are rotated, who must hear of it, and what is said of old ones; the rotation itself is tests/mesh's."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshctl.deploy import keys
from meshctl.deploy.host import Host
from meshctl.deploy.rotate import chosen, clients_of
from meshctl.errors import UsageError
from meshctl.inventory import Inventory, read
from meshctl.model.facts import HostFacts
from meshctl.model.keys import PublicKey
from meshctl.model.resources import NodeDoc, WireGuard

TEXT = """\
version: 1
defaults: {keys: {rotate_every: 90d}}
networks: {corp: {cidr: 10.42.0.0/16}}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}
  web1: {endpoint: "203.0.113.2:51820", keys: {rotate_every: 2w}}
  web2: {}
  phone: {client: true, peers: [hub]}
policies: [{name: p, from: phone, to: hub, allow: [any]}, {name: w, from: web1, to: web2, allow: [any]}]
"""
DAY_S = 86400


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    path = tmp_path / "inventory.yml"
    path.write_text(TEXT)
    found = read(path)
    names = ("hub", "web1", "web2", "phone")
    return found.with_keys({(n, "corp"): PublicKey(c * 42 + "A=") for n, c in zip(names, "ABCD", strict=True)})


def test_without_names_what_is_pending_is_gone_on_with_or_all_begin(inventory: Inventory) -> None:
    assert chosen(inventory.mesh, ()) == ("hub", "web1", "web2")
    pending = inventory.with_next_keys({("web2", "corp"): PublicKey("E" * 42 + "A=")})
    assert chosen(pending.mesh, ()) == ("web2",)
    assert chosen(pending.mesh, ("web1", "hub")) == ("hub", "web1")


def test_what_is_pending_is_gone_on_with_and_nothing_begun_where_so_wanted(inventory: Inventory) -> None:
    assert chosen(inventory.mesh, (), begun=True) == ()
    pending = inventory.with_next_keys({("web2", "corp"): PublicKey("E" * 42 + "A=")})
    assert chosen(pending.mesh, (), begun=True) == ("web2",)
    assert chosen(pending.mesh, ("web1", "web2"), begun=True) == ("web2",)


@pytest.mark.parametrize(("name", "words"), [("phone", "is a stock client"), ("web9", "is not in the inventory")])
def test_only_nodes_that_are_contacted_are_rotated(inventory: Inventory, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        chosen(inventory.mesh, (name,))


def test_clients_are_named_that_have_the_key_of_a_node_in_their_configs(inventory: Inventory) -> None:
    assert clients_of(inventory, ["hub", "web1"]) == ("phone",)
    assert clients_of(inventory, ["web1", "web2"]) == ()


def test_a_key_is_overdue_when_it_is_older_than_its_node_wants(inventory: Inventory) -> None:
    def host(name: str, age_days: int) -> Host:
        file = "/etc/wireguard/wg0.key"
        wireguard = WireGuard("wg0", "corp", "wg-quick", (), 51820, 1420, file, None, (), ())
        found = Host(name, NodeDoc(name, (wireguard,)), lambda: pytest.fail("nobody is contacted"))
        found.facts = HostFacts(name, key_times={file: 1_000 * DAY_S - age_days * DAY_S})
        return found

    hosts = [host("hub", 89), host("web1", 15), host("web2", 91)]
    assert keys.overdue(hosts, inventory.mesh, 1_000 * DAY_S) == (
        "keys older than `rotate_every`: web1 (15 days), web2 (91 days); `meshctl keys rotate web1 web2`",
    )
    assert keys.overdue(hosts[:1], inventory.mesh, 1_000 * DAY_S) == ()
