"""SSH into lab hosts by the door that the lab opens, and by the mesh when it is shut."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import paramiko
import pytest

from meshctl import inventory, lab
from meshctl.errors import RemoteError
from meshctl.lab import hosts, procs, state
from meshctl.lab.door import LabDoor
from meshctl.model.mesh import Mesh

if TYPE_CHECKING:
    from conftest import Labs

pytestmark = pytest.mark.lab

INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  gate: {roles: [anchor], endpoint: "203.0.113.10:51820", ssh: {host: gate.example.net, user: admin, port: 2222}}
  web:  {address: 10.42.0.11, ssh: {host: 10.42.0.11, jump: gate}, lab: {nat: easy}}
policies:
  - {name: all, from: ["*"], to: ["*"], allow: [any]}
"""


@pytest.fixture(scope="module")
def doors(labs: Labs) -> tuple[LabDoor, Mesh]:
    name = labs("doors", INVENTORY, ssh_over_mesh=True)
    return LabDoor(name), inventory.read(labs.write("doors", INVENTORY)).mesh


def hostname(door: LabDoor, mesh: Mesh, node: str) -> str:
    """What the host calls itself over SSH, host key checked."""
    way = door.settings(mesh.nodes[node])
    with paramiko.SSHClient() as client:
        client.load_host_keys(way.known_hosts)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        sock = door.open(mesh.nodes[node])
        assert sock is not None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.connect(
            way.host, way.port, way.user, key_filename=way.key, sock=sock, allow_agent=False, look_for_keys=False
        )
        _, out, _ = client.exec_command("hostname")
        return out.read().decode().strip()


def test_the_door_leads_to_each_hosts_own_sshd_with_its_known_key(doors: tuple[LabDoor, Mesh]) -> None:
    door, mesh = doors
    assert [hostname(door, mesh, n) for n in ("gate", "web")] == ["gate", "web"]


def test_the_lab_never_uses_the_production_login(doors: tuple[LabDoor, Mesh]) -> None:
    door, mesh = doors
    way = door.settings(mesh.nodes["gate"])
    assert (way.host, way.port, way.user, way.config, way.jump) == ("gate", 22, "root", "none", ())


def test_ssh_over_mesh_shuts_the_door_of_a_node_with_a_jump_once_it_has_its_mesh(doors: tuple[LabDoor, Mesh]) -> None:
    door, mesh = doors
    assert not door.by_mesh("web")
    lab.exec_(door.name, "web", ["ip", "tuntap", "add", "dev", "wg0", "mode", "tun"])
    lab.exec_(door.name, "gate", ["ip", "tuntap", "add", "dev", "wg0", "mode", "tun"])
    assert door.open(mesh.nodes["web"]) is None
    way = door.settings(mesh.nodes["web"])
    assert (way.host, way.jump, way.user) == ("10.42.0.11", ("gate",), "root")
    assert hostname(door, mesh, "gate") == "gate", "the jump host keeps its door"
    lab.exec_(door.name, "web", ["ip", "link", "del", "wg0"])
    assert hostname(door, mesh, "web") == "web"


def test_a_stopped_sshd_and_a_stopped_host_are_told_apart(doors: tuple[LabDoor, Mesh]) -> None:
    door, mesh = doors
    lab.exec_(door.name, "gate", ["systemctl", "stop", "ssh"])
    with pytest.raises(RemoteError) as refused:
        door.open(mesh.nodes["gate"])
    assert refused.value.kind == "refused"
    hosts.stop(door.name, "gate", power_cut=True)
    with pytest.raises(RemoteError) as gone:
        door.open(mesh.nodes["gate"])
    assert gone.value.kind == "unreachable"
    assert procs.start_time(state.load(door.name).leaders["gate"][0]) == 0
