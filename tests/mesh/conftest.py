"""One lab for all tests of this folder: two anchors, a gateway with a LAN, three hosts behind NATs, a stock client."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from meshlab import MeshLab

INVENTORY = """
version: 1
defaults: {ssh: {user: root}, relay: routed}
networks:
  corp: {cidr: [10.42.0.0/16, "fd42:42::/48"]}
groups:
  homes: {}
nodes:
  fra1:   {roles: [anchor], endpoint: "203.0.113.10:51820", region: eu}
  nyc1:   {roles: [anchor], endpoint: "198.51.100.10:51820", region: us}
  office: {roles: [gateway], routes: [192.168.10.0/24], region: eu, lab: {nat: easy}}
  home1:  {groups: [homes], region: eu, lab: {nat: easy}}
  home2:  {groups: [homes], region: us, lab: {nat: symmetric}}
  phone:  {client: true, peers: [office], lab: {nat: easy}}
policies:
  - {name: homes-talk, from: [homes], to: [homes], allow: [any]}
  - {name: homes-to-office, from: [homes], to: [office, 192.168.10.0/24], allow: [any]}
  - {name: phone-to-office, from: [phone], to: [office, 192.168.10.0/24], allow: [any]}
  - {name: anchors, from: ["role:anchor"], to: ["*"], allow: [icmp]}
"""


@pytest.fixture(scope="session")
def raw_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshLab]:
    """The lab as `lab up` leaves it: Debian hosts that know nothing of WireGuard yet."""
    folder: Path = tmp_path_factory.mktemp("mesh")
    path = folder / "inventory.yml"
    document = yaml.safe_load(INVENTORY)
    mesh = MeshLab(f"mesh{os.getpid()}", path, document, copy.deepcopy(document))
    mesh.write()
    done = mesh.run("lab", "up", str(path), "--name", mesh.name)
    try:
        assert done.code == 0, done.err
        yield mesh
    finally:
        mesh.run("lab", "down", "--name", mesh.name)


@pytest.fixture(scope="session")
def applied_mesh(raw_mesh: MeshLab) -> MeshLab:
    """The lab after a first apply, from nothing."""
    nodes = raw_mesh.apply()
    assert {node["status"] for node in nodes.values()} == {"changed"}, nodes
    return raw_mesh


@pytest.fixture
def mesh(applied_mesh: MeshLab) -> Iterator[MeshLab]:
    """The applied lab; whatever a test did to the inventory or the hosts is put right afterwards."""
    yield applied_mesh
    applied_mesh.reset()
    applied_mesh.apply("--allow-destructive")
    left = applied_mesh.plan()
    assert left["changes"] == [], "a test left something that apply could not put right"
