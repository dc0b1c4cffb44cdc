"""Whose SSH connection goes through a node that is cut off. Hunted: a way by the thief that nobody sees, and a host
that is left to it although its way leads elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from meshctl.deploy.door import NetworkDoor
from meshctl.deploy.ssh import Connections
from meshctl.deploy.ways import Ways
from meshctl.model.mesh import Attachment, Mesh, Network, Node, SshSettings

ALONE = SshSettings("", user="root", config="none")


def node(name: str, number: int, host: str = "", *jump: str, **more: object) -> Node:
    roles = ("anchor",) if name.startswith("hub") else ()
    end = f"192.0.2.{number}:51820" if roles or name == "thief" else None
    attachment = Attachment("corp", "wg0", (f"10.42.0.{number}",), 51820, endpoint=end)
    settings = replace(ALONE, host=host or f"{name}.example.net", jump=jump, **more)  # type: ignore[arg-type]
    return Node(name, (attachment,), settings, roles=roles)


def ways(*nodes: Node, gone: tuple[str, ...] = ("thief",)) -> Ways:
    by_name = {n.name: n for n in nodes}
    mesh = Mesh({"corp": Network("corp", ("10.42.0.0/16",))}, by_name, MappingProxyType({}))
    return Ways(mesh, Connections(by_name, NetworkDoor()), gone)


THIEF = node("thief", 9, port=2222)


def test_jump_hosts_of_jump_hosts_are_followed_to_the_thief() -> None:
    found = ways(THIEF, node("web", 2), node("a", 3, "", "thief"), node("b", 4, "", "a"), node("c", 5, "", "b", "web"))
    assert {name: found.trail(name) for name in ("web", "a", "b", "c")} == {
        "web": (), "a": ("thief",), "b": ("a", "thief"), "c": ("b", "a", "thief"),
    }  # fmt: skip


def test_of_a_chain_only_the_first_is_reached_by_its_own_jump_hosts() -> None:
    found = ways(THIEF, node("web", 2), node("a", 3, "", "thief"), node("b", 4, "", "web", "a"))
    assert found.trail("b") == ()
    assert ways(THIEF, node("b", 4, "", "web", "thief")).trail("b") == ("thief",)


@pytest.mark.parametrize(
    ("jump", "is_thief"),
    [
        ("root@thief.example.net:2222", True), ("root@192.0.2.9:2222", True), ("10.42.0.9", True),
        ("root@192.0.2.9:22", False), ("root@web.example.net:2222", False), ("me@10.42.0.99", False),
    ],
)  # fmt: skip
def test_a_jump_host_that_is_written_as_an_address_may_be_the_thief(jump: str, is_thief: bool) -> None:
    assert ways(THIEF, node("a", 3, "", jump)).trail("a") == ((jump,) if is_thief else ())


def test_a_thief_that_the_inventory_has_no_more_is_known_by_its_name() -> None:
    assert ways(node("a", 3, "", "thief")).trail("a") == ("thief",)
    assert ways(node("a", 3, "", "me@Thief:22")).trail("a") == ("me@Thief:22",)


def test_jumps_of_ssh_config_count_and_those_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host a.example.net\n  ProxyJump thief\nHost b.example.net\n  ProxyJump b2\n")
    found = ways(
        THIEF, node("a", 3, config=str(config)), node("b", 4, config=str(config)), node("b2", 5, "", "b"),
        node("c", 6, config=str(tmp_path / "nothing")),
    )  # fmt: skip
    assert (found.trail("a"), found.trail("b"), found.trail("b2"), found.trail("c")) == (("thief",), (), (), ())


def test_an_anchor_that_is_gone_may_carry_who_is_reached_inside_the_mesh() -> None:
    nodes = (
        node("hub1", 1), node("hub2", 2), node("home", 3, "10.42.0.3"), node("b", 4, "10.42.0.4", "hub2"), node("c", 5),
    )  # fmt: skip
    gone = replace(nodes[0], revoked=True)  # as in the lock by the time that somebody asks
    found = ways(gone, *nodes[1:], gone=("hub1",))
    assert [found.carried(name) for name in ("home", "b", "c")] == [{"hub1"}, set(), set()]
    assert found.trail("home") == ()
