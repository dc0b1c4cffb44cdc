"""Which hosts go together. Hunted: a wave with a host and one that its connection goes through, a host that is changed
after its jump host, one that is in no wave or in two."""

from __future__ import annotations

from itertools import repeat
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.deploy.waves import serial, share, sizes_of, through, waves
from meshctl.errors import UsageError
from meshctl.model.mesh import Attachment, Mesh, Network, Node, SshSettings

NAMES = tuple("abcdefgh")
EVERYBODY = 64


def node(name: str, number: int, *, endpoint: bool = False, anchor: bool = False, routes: tuple[str, ...] = ()) -> Node:
    at = f"192.0.2.{number}:51820" if endpoint else None
    attachment = Attachment("corp", "wg0", (f"10.42.0.{number}",), 51820, endpoint=at)
    return Node(name, (attachment,), SshSettings(name), roles=("anchor",) if anchor else (), routes=routes)


MESH = Mesh(
    {"corp": Network("corp", ("10.42.0.0/16",))},
    {n.name: n for n in (
        node("hub1", 1, endpoint=True, anchor=True), node("hub2", 2, endpoint=True, anchor=True),
        node("bastion", 3, endpoint=True), node("inner", 4), node("home", 5),
        node("office", 6, routes=("172.16.0.0/24",)),
    )}, MappingProxyType({}),
)  # fmt: skip


def paths(**ways: tuple[str, tuple[str, ...]]) -> dict[str, frozenset[str]]:
    return through(MESH, {name: ways.get(name, (f"{name}.example.net", ())) for name in MESH.nodes})


def test_jump_hosts_are_followed_to_the_last() -> None:
    path = paths(home=("h", ("inner",)), inner=("i", ("me@outside:22", "bastion")), bastion=("b", ("hub1",)))
    assert path["home"] == {"inner", "bastion", "hub1"}
    assert path["bastion"] == {"hub1"}
    assert path["hub1"] == frozenset()


def test_a_mesh_address_is_reached_by_the_anchors_unless_both_ends_meet_by_themselves() -> None:
    path = paths(home=("10.42.0.5", ()), inner=("10.42.0.4", ("bastion",)), office=("10.42.0.6", ("home",)))
    assert path["home"] == {"hub1", "hub2"}
    assert path["inner"] == {"bastion"}, "bastion has an endpoint"
    assert path["office"] == {"home", "hub1", "hub2"}


def test_an_address_behind_a_gateway_is_reached_by_it() -> None:
    assert paths(inner=("172.16.0.9", ()))["inner"] == {"office"}


def test_who_is_behind_a_jump_host_goes_before_it_in_another_wave() -> None:
    path = paths(home=("h", ("inner",)), inner=("i", ("bastion",)))
    assert waves(MESH.nodes, path, repeat(EVERYBODY)) == [["home", "hub1", "hub2", "office"], ["inner"], ["bastion"]]
    assert waves({"home", "bastion", "office"}, path, repeat(EVERYBODY)) == [["home", "office"], ["bastion"]]


def test_anchors_that_are_each_reached_by_the_other_go_one_by_one() -> None:
    path = paths(hub1=("10.42.0.1", ()), hub2=("10.42.0.2", ()), home=("10.42.0.5", ()))
    assert waves(["hub1", "hub2", "home"], path, repeat(EVERYBODY)) == [["home"], ["hub1"], ["hub2"]]


@st.composite
def meshes(draw: st.DrawFn) -> dict[str, frozenset[str]]:
    """Any paths, closed: what is on the path of one on my path is on mine."""
    nearest = {name: draw(st.sets(st.sampled_from(NAMES), max_size=2)) for name in NAMES}
    found = {}
    for name in NAMES:
        seen: set[str] = set()
        todo = [name]
        while todo:
            fresh = nearest[todo.pop()] - seen
            seen |= fresh
            todo += fresh
        found[name] = frozenset(seen - {name})
    return found


@given(meshes(), st.sets(st.sampled_from(NAMES)), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_everybody_is_in_one_wave_and_never_with_who_is_on_the_way(
    path: dict[str, frozenset[str]], names: set[str], counts: list[int]
) -> None:
    sizes = [*counts, *repeat(counts[-1], len(NAMES))]
    found = waves(names, path, iter(sizes))
    assert sorted(name for wave in found for name in wave) == sorted(names)
    at = {name: number for number, wave in enumerate(found) for name in wave}
    for name in names:
        for other in path[name] & names:
            assert at[name] != at[other]
            assert at[name] < at[other] or name in path[other]
    assert all(0 < len(wave) <= size for wave, size in zip(found, sizes, strict=False))
    assert waves(sorted(names), path, iter(sizes)) == found


def test_sizes_are_numbers_or_percent_the_last_again_and_again() -> None:
    found = sizes_of(serial("1, 10%,50%"), 30)
    assert [next(found) for _ in range(5)] == [1, 3, 15, 15, 15]
    assert next(sizes_of(serial("10%"), 4)) == 1, "a wave has one at least"
    assert (share("10%", "--max-fail").of(29), share("3", "--max-fail").of(29)) == (2, 3)
    assert [str(each) for each in serial("1,10%")] == ["1", "10%"]


@pytest.mark.parametrize("text", ["", "1,", "0", "0%", "101%", "a", "-1", "1.5", "1 0"])
def test_sizes_that_are_none_are_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="--serial"):
        serial(text)
