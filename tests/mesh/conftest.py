"""The labs of this folder. `mesh`: two anchors, a gateway with a LAN, three hosts behind NATs, a stock client.
`small`: four hosts without agents, for what goes wrong and for the ways in; one is reached by a jump host and the mesh
alone. `agents`: an anchor, two hosts behind easy NATs and two behind symmetric ones, for what apply and agents do
together; the anchor and one host of each kind run Debian 11."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
SMALL = """
version: 1
defaults: {ssh: {user: root}, agent: false}
networks:
  corp: {cidr: [10.42.0.0/16], policy: open}
  dmz:  {cidr: [10.43.0.0/16], policy: open, interface: wg1, listen_port: 51821}
nodes:
  fra1:  {roles: [anchor], endpoint: "fra1.example.net:51820", networks: [corp]}
  nyc1:  {roles: [anchor], endpoint: "198.51.100.10:51820", networks: [corp]}
  web1:  {networks: [corp, dmz], endpoint: {corp: "203.0.113.20:51820", dmz: "203.0.113.20:51821"}}
  home1: {networks: [corp], address: 10.42.0.50, ssh: {host: 10.42.0.50, jump: nyc1}, lab: {nat: easy}}
  home2: {client: true, networks: [dmz], lab: {nat: none}}
"""
AGENTS = """
version: 1
defaults: {ssh: {user: root}}
networks:
  corp: {cidr: [10.42.0.0/16, "fd42:42::/48"], policy: open}
nodes:
  hub:   {roles: [anchor], endpoint: "203.0.113.10:51820", lab: {debian: bullseye}}
  alice: {lab: {nat: easy, debian: bullseye}}
  bob:   {lab: {nat: easy}}
  sym1:  {lab: {nat: symmetric, debian: bullseye}}
  sym2:  {lab: {nat: symmetric}}
"""


@contextmanager
def running(folder: Path, name: str, inventory: str, *options: str) -> Iterator[MeshLab]:
    """A lab of this inventory, as `lab up` leaves it: Debian hosts that know nothing of WireGuard yet."""
    document = yaml.safe_load(inventory)
    mesh = MeshLab(f"{name}{os.getpid()}", folder / "inventory.yml", document, copy.deepcopy(document))
    mesh.write()
    done = mesh.run("lab", "up", str(mesh.path), "--name", mesh.name, *options)
    try:
        assert done.code == 0, done.err
        yield mesh
    finally:
        mesh.run("lab", "down", "--name", mesh.name)


@pytest.fixture(scope="session")
def raw_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshLab]:
    """The lab before the first apply."""
    with running(tmp_path_factory.mktemp("mesh"), "mesh", INVENTORY) as mesh:
        yield mesh


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
    put_right(applied_mesh)


@pytest.fixture(scope="session")
def applied_small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshLab]:
    """The small lab after a first apply; `home1` is reached by nyc1 and the mesh from then on."""
    with running(tmp_path_factory.mktemp("small"), "small", SMALL, "--ssh-over-mesh") as mesh:
        nodes = mesh.apply()
        assert {node["status"] for node in nodes.values()} == {"changed"}, nodes
        yield mesh


@pytest.fixture
def small(applied_small: MeshLab) -> Iterator[MeshLab]:
    """As `mesh`, of the small lab."""
    yield applied_small
    put_right(applied_small)


@pytest.fixture(scope="module")
def applied_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshLab]:
    """The lab of agents after a first apply."""
    with running(tmp_path_factory.mktemp("agents"), "agents", AGENTS) as mesh:
        nodes = mesh.apply()
        assert {node["status"] for node in nodes.values()} == {"changed"}, nodes
        yield mesh


@pytest.fixture
def agents(applied_agents: MeshLab) -> Iterator[MeshLab]:
    """As `mesh`, of the lab of agents."""
    yield applied_agents
    put_right(applied_agents)


def put_right(mesh: MeshLab) -> None:
    """The inventory as it was, and the hosts as it says; a test that left more than apply can mend has failed."""
    mesh.reset()
    mesh.apply("--allow-destructive")
    left = mesh.plan()
    assert left["changes"] == [], "a test left something that apply could not put right"
