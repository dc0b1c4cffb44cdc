"""Endpoints that are DNS names: a dead one holds up nothing else, and the next plan asks for it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from meshdocs import document, edited, peer, wireguard
from wgspace import Space, space

from meshctl.core.endpoints import is_named, set_apart
from meshctl.core.wgconf import StanzaCache
from meshctl.model.keys import SecretRow

WEB = peer("web2", 2, "192.0.2.2:51820", 25)
DEAD = peer("fra1", 3, "fra1.invalid:51820")
# The namespace has a network of its own: without /etc/hosts no name resolves in it.
RESOLVES = "echo '192.0.2.3 fra1.invalid' >> /etc/hosts"


@pytest.mark.parametrize(
    ("endpoint", "named"),
    [(None, False), ("192.0.2.1:51820", False), ("[2001:db8::1]:51820", False), ("fra1:51820", True),
     ("fra1.example.net:51820", True), ("3com.example:1", True)],
)  # fmt: skip
def test_a_name_is_told_from_an_address(endpoint: str | None, named: bool) -> None:
    assert is_named(endpoint) is named


def test_an_exit_nodes_name_stays_in_the_file_because_later_no_name_server_is_reached() -> None:
    assert set_apart(DEAD)
    assert not set_apart(replace(DEAD, allowed_ips=("0.0.0.0/0",)))


def test_the_config_leaves_names_to_commands_of_their_own() -> None:
    cache, peers = StanzaCache(names_apart=True), (WEB, DEAD, replace(DEAD, public_key=None))
    text = cache.text(peers, SecretRow((None,) * 3))
    assert "Endpoint = 192.0.2.2:51820" in text
    assert "invalid" not in text
    assert cache.apart(peers) == [DEAD]


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Space]:
    with space(tmp_path) as host:
        yield host


@pytest.mark.lab
def test_a_dead_name_leaves_the_other_peers_and_fields_applied_and_is_set_when_it_resolves(host: Space) -> None:
    host.apply(document(wireguard(replace(WEB, endpoint=None))))
    doc = edited(document(wireguard(DEAD, WEB)), mtu=1380)
    host.apply(doc)
    endpoints = host.sh("wg show wgt0 endpoints")
    assert f"{WEB.public_key}\t192.0.2.2:51820" in endpoints
    assert f"{DEAD.public_key}\t(none)" in endpoints
    due = [c for c in host.diff(doc) if c.kind != "file"]
    assert [(c.name, c.before, c.after) for c in due] == [
        ("wgt0 fra1", {"endpoint": None}, {"endpoint": "fra1.invalid:51820"})
    ]
    host.sh(RESOLVES)
    host.apply(doc)
    assert f"{DEAD.public_key}\t192.0.2.3:51820" in host.sh("wg show wgt0 endpoints")
    assert host.diff(doc) == ()


@pytest.mark.lab
def test_a_new_name_that_does_not_resolve_leaves_the_old_endpoint_and_stays_to_do(host: Space) -> None:
    doc = document(wireguard(replace(DEAD, endpoint="192.0.2.9:51820")))
    host.apply(doc)
    renamed = document(wireguard(DEAD))
    for _ in range(2):
        host.apply(renamed)
        assert f"{DEAD.public_key}\t192.0.2.9:51820" in host.sh("wg show wgt0 endpoints")
        assert [c.after for c in host.diff(renamed)] == [{"endpoint": "fra1.invalid:51820"}]
