"""Allocation: inside, unique, deterministic, and nobody moves."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.inventory.addresses import Ranges
from meshctl.inventory.allocate import Claim, NoRoom, allocate, capacity, is_host_address, larger, lowest_free

NAMES = st.sets(st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True), min_size=1, max_size=40)
PREFIXES = st.sampled_from(["10.42.0.0/16", "10.42.0.0/24", "192.168.7.64/26"])
DUAL = Ranges(ip_network("10.42.0.0/16"), ip_network("fd42:42::/48"))


def ranges(v4: str) -> Ranges:
    return Ranges(ip_network(v4), ip_network("fd42:42::/64"))


def pinned(result: dict[str, tuple[str, ...]]) -> list[Claim]:
    return [Claim(name, pinned=tuple(ip_address(a) for a in addresses)) for name, addresses in result.items()]


@settings(deadline=None)
@given(NAMES, PREFIXES)
def test_addresses_are_unique_and_inside_and_one_for_each_family(names: set[str], v4: str) -> None:
    where = ranges(v4)
    result = allocate("corp", where, [Claim(n) for n in names])
    everything = [a for addresses in result.values() for a in addresses]
    assert len(set(everything)) == len(everything) == 2 * len(names)
    for first, second in result.values():
        assert is_host_address(ip_address(first), where.prefixes()[0])
        assert is_host_address(ip_address(second), where.prefixes()[1])


@settings(deadline=None)
@given(NAMES, PREFIXES, st.randoms())
def test_the_order_of_nodes_does_not_matter(names: set[str], v4: str, random: object) -> None:
    ordered = sorted(names)
    shuffled = list(ordered)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert allocate("c", ranges(v4), map(Claim, ordered)) == allocate("c", ranges(v4), map(Claim, shuffled))


@settings(deadline=None)
@given(NAMES, NAMES, NAMES, PREFIXES)
def test_with_a_lock_adding_and_removing_nodes_moves_nobody(
    names: set[str], added: set[str], removed: set[str], v4: str
) -> None:
    names = set(sorted(names)[:20])
    before = allocate("c", ranges(v4), map(Claim, names))
    kept = {name: addresses for name, addresses in before.items() if name not in removed}
    new = [Claim(n) for n in sorted(added)[:20] if n not in kept]
    after = allocate("c", ranges(v4), [*pinned(kept), *new])
    assert {n: after[n] for n in kept} == kept


def test_without_a_lock_a_new_node_moves_nobody_but_for_a_collision() -> None:
    names = [f"node{i}" for i in range(200)]
    before = allocate("c", DUAL, map(Claim, names))
    after = allocate("c", DUAL, map(Claim, [*names, "aaa-new"]))
    assert sum(before[n] != after[n] for n in names) <= 1


def test_a_given_address_wins_over_the_lock_and_over_another_nodes_pin() -> None:
    wish = ip_address("10.42.0.9")
    claims = [Claim("a", pinned=(wish,)), Claim("b", given=(wish,), pinned=(ip_address("10.42.0.5"),))]
    result = allocate("c", Ranges(ip_network("10.42.0.0/16")), claims)
    assert result["b"] == ("10.42.0.9",)
    assert result["a"] != ("10.42.0.9",)


def test_a_pin_outside_a_renumbered_network_is_replaced() -> None:
    result = allocate("c", Ranges(ip_network("10.50.0.0/16")), [Claim("a", pinned=(ip_address("10.42.0.9"),))])
    assert result["a"][0].startswith("10.50.")


@pytest.mark.parametrize(
    ("prefix", "room"), [("10.0.0.0/30", 2), ("10.0.0.0/31", 2), ("10.0.0.0/32", 1), ("fd00::/126", 3)]
)
def test_a_prefix_can_be_filled_to_the_last_address_and_no_further(prefix: str, room: int) -> None:
    network = ip_network(prefix)
    where = Ranges(network, None) if network.version == 4 else Ranges(None, network)
    assert capacity(network) == room
    full = allocate("c", where, [Claim(f"n{i}") for i in range(room)])
    assert len({a for addresses in full.values() for a in addresses}) == room
    with pytest.raises(NoRoom, match=f"{room} host addresses"):
        allocate("c", where, [Claim(f"n{i}") for i in range(room + 1)])


def test_the_hint_for_a_full_network_is_one_that_has_room() -> None:
    wider = ip_network(larger(ip_network("10.1.7.0/29"), 100))
    assert wider.supernet_of(ip_network("10.1.7.0/29"))
    assert capacity(wider) >= 100


def test_the_lowest_free_address_skips_those_in_use() -> None:
    assert lowest_free(ip_network("10.1.0.0/29"), ["10.1.0.1", "10.1.0.2", "10.1.0.4"]) == "10.1.0.3"
    assert lowest_free(ip_network("10.1.0.0/31"), ["10.1.0.0", "10.1.0.1"]) == ""
