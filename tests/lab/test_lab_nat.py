"""Every NAT kind does to packets what its name says, measured from inside (RFC 4787)."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_network

import pytest
import udp

from meshctl import lab
from meshctl.lab import build, state
from meshctl.lab.nat import SEQUENTIAL_COUNT, SEQUENTIAL_FIRST

pytestmark = pytest.mark.lab

INDEPENDENT, BY_ADDRESS, BY_PORT = "endpoint-independent", "address-dependent", "address-and-port"


def servers(name: str) -> dict[str, str]:
    hosts = lab.status(name)["hosts"]
    return {n: hosts[n]["address"] for n in ("fra1", "nyc1")}


@pytest.mark.parametrize(
    ("kind", "mapping", "filtering"),
    [
        ("none", INDEPENDENT, INDEPENDENT),
        ("easy", INDEPENDENT, BY_PORT),
        ("full-cone", INDEPENDENT, INDEPENDENT),
        ("address-dependent", INDEPENDENT, BY_ADDRESS),
        ("symmetric", BY_PORT, BY_PORT),
        ("symmetric-sequential", BY_PORT, BY_PORT),
    ],
)
def test_a_nat_kind_maps_and_filters_as_its_name_says(place: str, kind: str, mapping: str, filtering: str) -> None:
    build.set_nat(place, "home", kind)
    measured = udp.measure(place, "home", servers(place))
    assert measured is not None
    assert (measured.mapping, measured.filtering) == (mapping, filtering)


def test_easy_keeps_the_port_and_symmetric_does_not(place: str) -> None:
    build.set_nat(place, "home", "easy")
    easy = udp.measure(place, "home", servers(place), port=51820)
    build.set_nat(place, "home", "symmetric")
    hard = udp.measure(place, "home", servers(place), port=51820)
    assert easy is not None
    assert hard is not None
    assert set(easy.ports) == {51820}
    assert len(set(hard.ports)) == 4
    steps = {b - a for a, b in itertools.pairwise(hard.ports)}
    assert steps != {1}, "random ports must not be consecutive"


def test_symmetric_sequential_hands_out_consecutive_ports(place: str) -> None:
    build.set_nat(place, "home", "symmetric-sequential")
    measured = udp.measure(place, "home", servers(place))
    assert measured is not None
    offsets = [port - SEQUENTIAL_FIRST for port in measured.ports]
    assert {(b - a) % SEQUENTIAL_COUNT for a, b in itertools.pairwise(offsets)} == {1}


def test_udp_blocked_lets_no_udp_pass_but_does_let_tcp_and_ping(place: str) -> None:
    build.set_nat(place, "home", "udp-blocked")
    assert udp.measure(place, "home", servers(place)) is None
    script = "ping -c 1 -W 1 203.0.113.10 >/dev/null && exec 3<>/dev/tcp/203.0.113.10/22 && head -c 4 <&3"
    done = lab.exec_(place, "home", ["bash", "-c", script])
    assert done.stdout == b"SSH-"


def test_two_hosts_behind_one_router_keep_their_own_mapping_for_the_same_port(place: str) -> None:
    first = udp.bind(place, "kid1", 51820)
    second = udp.bind(place, "kid2", 51820)
    with first, second:
        fra1, nyc1 = udp.bind(place, "fra1"), udp.bind(place, "nyc1")
        to = {s: (servers(place)[n], s.getsockname()[1]) for s, n in ((fra1, "fra1"), (nyc1, "nyc1"))}
        with fra1, nyc1:
            mapped = {c: {udp.arrives(c, to[s], s) for s in (fra1, nyc1)} for c in (first, second)}
    assert all(len(m) == 1 for m in mapped.values()), "each host's mapping is endpoint-independent"
    assert mapped[first] != mapped[second]


def test_hosts_behind_one_router_reach_each_other_directly(place: str) -> None:
    hosts = lab.status(place)["hosts"]
    first, second = udp.bind(place, "kid1"), udp.bind(place, "kid2")
    with first, second:
        source = udp.arrives(first, (hosts["kid2"]["address"], second.getsockname()[1]), second)
    assert source == (hosts["kid1"]["address"], source[1] if source else 0)


def test_cgnat_is_two_translations_that_keep_rfc_6888s_endpoint_independence(place: str) -> None:
    blueprint = state.load(place).blueprint
    home, carrier = blueprint.router("mobile-router"), blueprint.router("mobile-carrier")
    assert home is not None
    assert carrier is not None
    assert ip_address(home.wan) in ip_network("100.64.0.0/10")
    build.set_nat(place, "mobile", "cgnat")
    measured = udp.measure(place, "mobile", servers(place))
    assert measured is not None
    assert (measured.mapping, measured.filtering) == (INDEPENDENT, BY_PORT)
    server = udp.bind(place, "fra1")
    with server, udp.bind(place, "mobile") as client:
        seen = udp.arrives(client, (servers(place)["fra1"], server.getsockname()[1]), server)
    assert seen is not None
    assert seen[0] == carrier.wan


def test_a_node_behind_a_carrier_can_be_given_another_kind_and_cgnat_again(place: str) -> None:
    build.set_nat(place, "mobile", "symmetric")
    assert (measured := udp.measure(place, "mobile", servers(place))) is not None
    assert measured.mapping == BY_PORT
    build.set_nat(place, "mobile", "cgnat")
    assert (measured := udp.measure(place, "mobile", servers(place))) is not None
    assert measured.mapping == INDEPENDENT


def test_a_router_behind_a_symmetric_carrier_is_symmetric_from_outside(place: str) -> None:
    measured = udp.measure(place, "hotel", servers(place))
    assert measured is not None
    assert measured.mapping == BY_PORT


def test_an_endpoint_on_a_router_is_forwarded_to_the_node_behind_it(place: str) -> None:
    inside = udp.bind(place, "server", 51820)
    with inside, udp.bind(place, "nyc1") as outside:
        source = udp.arrives(outside, ("198.51.100.7", 443), inside)
        assert source is not None
        assert source[0] == servers(place)["nyc1"]
        # Towards somebody else too, the node is seen at its endpoint.
        with udp.bind(place, "fra1") as other:
            seen = udp.arrives(inside, (servers(place)["fra1"], other.getsockname()[1]), other)
    assert seen == ("198.51.100.7", 443)


def test_changing_the_kind_forgets_the_mappings(place: str) -> None:
    build.set_nat(place, "home", "easy")
    with udp.bind(place, "home") as client, udp.bind(place, "fra1") as server:
        mapped = udp.arrives(client, (servers(place)["fra1"], server.getsockname()[1]), server)
        assert mapped is not None
        assert udp.arrives(server, mapped, client) is not None
        build.set_nat(place, "home", "easy")
        assert udp.arrives(server, mapped, client) is None
