"""Routing of signals. Hunted: a message between two that policy does not permit, one that goes round, one that comes
back to where it was, a peer that uses up another's share, and a pair that a live way connects and no message does."""

from __future__ import annotations

import pytest
from agentcore_values import interface, key, peer, shared
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent import signal
from meshctl.core.agent.bodies import Hello, MessageType
from meshctl.core.agent.config import node_id
from meshctl.core.agent.router import (
    BURST,
    BURST_PER_PEER,
    RATE_PER_S,
    RATE_PER_S_AND_PEER,
    Local,
    Onward,
    Refusal,
    Router,
    TokenBucket,
    permitted,
)
from meshctl.core.agent.signal import Header

ANCHORS = ("x", "y")
NODES = ("a", "b", "c", "m")
ALL = (*ANCHORS, *NODES)
IP = {name: f"10.42.0.{number}" for number, name in enumerate(ALL, 1)}
# m may reach c alone; the rest reach each other, except that b names a and a does not name b in ONE_SIDED.
REACHES = {
    "a": frozenset("bcxy"), "b": frozenset("acxy"), "c": frozenset("abmxy"), "m": frozenset("c"),
    "x": frozenset(), "y": frozenset(),
}  # fmt: skip


def router(owner: str, reaches: dict[str, frozenset[str]] = REACHES) -> Router:
    """The router of a node all of whose fellows are its peers, as far as policy and infrastructure make them so."""
    names = [
        name
        for name in ALL
        if name != owner
        and (name in ANCHORS or owner in ANCHORS or (name in reaches[owner] and owner in reaches[name]))
    ]
    peers = [
        peer(owner, name, ALL.index(name) + 1, kind="anchor" if name in ANCHORS else "node", reaches=reaches[name])
        for name in names
    ]
    return Router(interface(owner, ALL.index(owner) + 1, *peers, is_anchor=owner in ANCHORS))


def message(source: str, destination: str, ttl: int = signal.TTL) -> bytes:
    header = Header(MessageType.HELLO, node_id(key(source)), node_id(key(destination)), b"\x01" * 8, bytes(8), 1, ttl)
    return signal.encode(header, Hello(), shared(source, destination))


def peer_of(owner: str, name: str) -> object:
    return next(p for p in router(owner)._by_id.values() if p.name == name)


def way(of: Router, destination: str, up: set[str]) -> str:
    """Names of the hops, best first."""
    return "".join(p.name for p in of.hops(of._by_id[node_id(key(destination))], up))


def test_the_peers_own_tunnel_comes_first_then_anchors_then_nodes_that_both_reach() -> None:
    assert way(router("a"), "b", set(ALL)) == "bxyc"
    assert way(router("a"), "b", {"x", "y", "c"}) == "xyc"
    assert way(router("a"), "b", {"c"}) == "c"
    assert way(router("c"), "m", {"a", "b"}) == ""  # neither reaches m
    assert way(router("a"), "x", {"y", "b"}) == "yb"


def test_each_sending_tries_another_way_and_begins_anew_after_the_last() -> None:
    a = router("a")
    b = a._by_id[node_id(key("b"))]
    routes = [a.route(b, attempt, {"b", "y"}) for attempt in range(4)]
    assert [hop.name for hop in routes if hop] == ["b", "y", "b", "y"]
    assert a.route(b, 0, set()) is None


def test_an_anchor_hands_on_between_permitted_peers_and_lowers_the_ttl() -> None:
    routed = router("x").receive(message("a", "b"), IP["a"], {"a", "b"}, 0.0)
    assert isinstance(routed, Onward)
    assert [hop.name for hop in routed.hops] == ["b"]
    assert signal.peek(routed.data) == signal.peek(message("a", "b"))._replace(ttl=2)
    assert signal.decode(routed.data, shared("a", "b"))


def test_a_message_for_this_node_names_the_peer_that_it_claims_to_be_from() -> None:
    routed = router("b").receive(message("a", "b"), IP["x"], set(), 0.0)
    assert isinstance(routed, Local)
    assert routed.source.name == "a"


@pytest.mark.parametrize(
    ("source", "destination", "last", "up", "why"),
    [
        ("a", "b", "nobody", "b", Refusal.STRANGER),
        ("stranger", "b", "a", "b", Refusal.UNKNOWN),
        ("a", "stranger", "a", "b", Refusal.UNKNOWN),
        ("x", "b", "a", "b", Refusal.UNKNOWN),  # the anchor's own name, from someone else
        ("a", "m", "a", "m", Refusal.NOT_PERMITTED),
        ("m", "a", "m", "a", Refusal.NOT_PERMITTED),
        ("a", "a", "a", "a", Refusal.NOT_PERMITTED),
        ("a", "b", "m", "b", Refusal.NOT_SOURCE),
        ("a", "y", "y", "", Refusal.NO_ROUTE),  # never back to where it came from
    ],
)
def test_an_anchor_that_does_not_hand_on_says_why(
    source: str, destination: str, last: str, up: str, why: Refusal
) -> None:
    from_ip = IP.get(last, "10.42.9.9")
    assert router("x").receive(message(source, destination), from_ip, set(up), 0.0) is why


@pytest.mark.parametrize(("source", "destination", "last"), [("a", "b", "y"), ("a", "y", "a")])
def test_an_anchor_hands_on_from_another_and_to_another(source: str, destination: str, last: str) -> None:
    routed = router("x").receive(message(source, destination), IP[last], {destination}, 0.0)
    assert isinstance(routed, Onward)
    assert [hop.name for hop in routed.hops] == [destination]


@pytest.mark.parametrize(
    ("source", "last", "up", "ways"),
    [
        ("a", "a", "by", "b"), ("a", "a", "y", "yb"), ("a", "a", "", "yb"), ("a", "a", "a", "yb"), ("c", "y", "c", "b"),
        ("a", "y", "y", "b"), ("y", "y", "", "b"),
    ],
)  # fmt: skip
def test_an_anchor_gives_a_nodes_message_to_all_others_where_the_receivers_tunnel_seems_to_be_down_and_tries_that(
    source: str, last: str, up: str, ways: str
) -> None:
    routed = router("x").receive(message(source, "b"), IP[last], set(up), 0.0)
    assert isinstance(routed, Onward)
    assert "".join(hop.name for hop in routed.hops) == ways


def test_of_more_anchors_than_two_each_hears_it_whether_its_idle_tunnel_seems_to_be_up_or_not() -> None:
    third = peer("x", "z", 9, kind="anchor")
    others = router("x")._by_id.values()
    of = Router(interface("x", 1, *others, third, is_anchor=True))
    routed = of.receive(message("a", "b"), IP["a"], {"a", "y"}, 0.0)
    assert isinstance(routed, Onward)
    assert {hop.name for hop in routed.hops} == {"y", "z", "b"}
    back = of.receive(message("a", "b"), IP["y"], {"a", "z"}, 0.0)
    assert isinstance(back, Onward)
    assert {hop.name for hop in back.hops} == {"b"}, "who has it of another anchor hands it on to the receiver alone"


def test_what_is_no_message_or_was_handed_on_often_enough_goes_no_further() -> None:
    x = router("x")
    assert x.receive(b"hello", IP["a"], {"b"}, 0.0) is Refusal.UNREADABLE
    ttls = [x.receive(message("a", "b", ttl), IP["a"], {"b"}, 0.0) for ttl in (0, 1, 2, 3, 255)]
    assert ttls[:2] == [Refusal.TTL, Refusal.TTL]
    assert [signal.peek(routed.data).ttl for routed in ttls[2:] if isinstance(routed, Onward)] == [1, 2, 2]


def test_a_pair_that_only_one_side_is_permitted_is_not_permitted() -> None:
    one_sided = {**REACHES, "a": frozenset("cxy")}
    assert router("x", one_sided).receive(message("b", "a"), IP["b"], {"a"}, 0.0) is Refusal.NOT_PERMITTED
    assert router("x", one_sided).receive(message("a", "b"), IP["a"], {"b"}, 0.0) is Refusal.NOT_PERMITTED


def test_a_node_hands_on_to_the_receiver_alone() -> None:
    assert isinstance(router("c").receive(message("a", "b"), IP["a"], {"b"}, 0.0), Onward)
    assert router("c").receive(message("a", "b"), IP["a"], {"x", "y"}, 0.0) is Refusal.NO_ROUTE


def test_a_client_has_no_say() -> None:
    of = Router(interface("x", 1, peer("x", "phone", 9, kind="client"), peer("x", "a", 3), is_anchor=True))
    assert of.receive(message("phone", "x"), "10.42.0.9", set(), 0.0) is Refusal.STRANGER
    assert of.receive(message("phone", "x"), IP["a"], set(), 0.0) is Refusal.UNKNOWN


def test_a_flood_from_one_peer_is_cut_and_does_not_touch_the_others_whatever_name_it_claims() -> None:
    of = router("b")
    through = sum(isinstance(of.receive(message("a", "b"), IP["c"], set(), 0.0), Local) for _ in range(300))
    assert through == BURST
    assert of.receive(message("c", "b"), IP["c"], set(), 0.0) is Refusal.RATE
    assert isinstance(of.receive(message("a", "b"), IP["a"], set(), 0.0), Local)
    assert isinstance(of.receive(message("a", "b"), IP["x"], set(), 0.0), Local)
    assert isinstance(of.receive(message("c", "b"), IP["c"], set(), 1.0 / RATE_PER_S), Local)


def test_at_an_anchor_each_that_it_speaks_for_has_a_share_of_its_own() -> None:
    of = router("b")
    for _ in range(300):
        of.receive(message("a", "b"), IP["x"], set(), 0.0)
    assert of.receive(message("a", "b"), IP["x"], set(), 0.0) is Refusal.RATE
    assert isinstance(of.receive(message("c", "b"), IP["x"], set(), 0.0), Local)


def star(owner: str, leaves: int) -> Router:
    """The router of the anchor or the hub of a star: hub and first leaf reach everybody, another leaf the hub alone."""
    names = [f"leaf{n}" for n in range(leaves)]
    reaches = {"hub": frozenset(names), "x": frozenset[str](), **{name: frozenset({"hub"}) for name in names}}
    reaches["leaf0"] = frozenset(("hub", *names[1:]))
    others = [peer(owner, name, 10 + n, reaches=reaches[name]) for n, name in enumerate(names)]
    centre = {"x": peer(owner, "hub", 2, reaches=reaches["hub"]), "hub": peer(owner, "x", 1, kind="anchor")}[owner]
    return Router(interface(owner, 1 if owner == "x" else 2, centre, *others, is_anchor=owner == "x"))


@pytest.mark.parametrize(
    ("owner", "source", "last_hop", "peers"),
    [
        ("x", "hub", "10.42.0.2", 200),  # by way of an anchor
        ("hub", "x", "10.42.0.1", 201),  # an anchor grants and refuses relays
        ("x", "leaf1", "10.42.0.11", 1),
        ("hub", "leaf1", "10.42.0.1", 1),  # an anchor speaks for it, and it is none
        ("hub", "leaf0", "10.42.0.1", 1),  # nor has it more to say to one node for having many peers
        ("hub", "leaf0", "10.42.0.10", 1),
    ],
)
def test_who_has_many_peers_may_tell_all_of_them_what_there_is_at_once_and_who_has_few_gains_nothing(
    owner: str, source: str, last_hop: str, peers: int
) -> None:
    of = star(owner, 200)

    def passed(now: float) -> int:
        return sum(isinstance(of.receive(message(source, owner), last_hop, set(), now), Local) for _ in range(3000))

    assert passed(0.0) == max(BURST, BURST_PER_PEER * peers)
    assert passed(1.0) == max(RATE_PER_S, RATE_PER_S_AND_PEER * peers)


@settings(max_examples=examples(30))
@given(st.lists(st.floats(0, 2), max_size=400))
def test_a_bucket_lets_through_no_more_than_its_rate_and_burst(gaps: list[float]) -> None:
    bucket, now, passed = TokenBucket(), 0.0, 0
    for gap in gaps:
        now += gap / 100
        passed += bucket.take(now)
    assert passed <= BURST + RATE_PER_S * now + 1e-6
    assert bucket.take(now + 1.0)


def test_a_bucket_gains_nothing_when_time_stands_or_goes_back() -> None:
    bucket = TokenBucket(burst=1.0)
    assert bucket.take(10.0)
    assert not bucket.take(10.0)
    assert not bucket.take(3.0)


graphs = st.frozensets(st.tuples(st.sampled_from(ALL), st.sampled_from(ALL)), max_size=24)
policies = st.dictionaries(st.sampled_from(ALL), st.frozensets(st.sampled_from(ALL)), min_size=0).map(
    lambda some: {name: some.get(name, frozenset()) for name in ALL}
)


Reaches = dict[str, frozenset[str]]


def holders(reaches: Reaches, up: dict[str, set[str]], source: str, destination: str, attempt: int) -> list[list[str]]:
    """Who has the message, from its source on, on each of the ways that it takes."""
    routers = {name: router(name, reaches) for name in ALL}
    target = routers[source]._by_id.get(node_id(key(destination)))
    hop = target and routers[source].route(target, attempt, up[source])
    under_way = [([source], hop, message(source, destination))]
    ways = []
    while under_way:
        had, hop, data = under_way.pop()
        if hop is None or hop.name not in up[had[-1]]:
            ways.append(had)
            continue
        routed = routers[hop.name].receive(data, IP[had[-1]], up[hop.name], 0.0)
        assert isinstance(routed, Local) == (hop.name == destination)
        if isinstance(routed, Onward):
            under_way += [([*had, hop.name], onward, routed.data) for onward in routed.hops]
        else:
            ways.append([*had, hop.name])
    return ways


def tunnels_up(tunnels: frozenset[tuple[str, str]]) -> dict[str, set[str]]:
    return {n: {b for a, b in tunnels if a == n} | {a for a, b in tunnels if b == n} for n in ALL}


@settings(max_examples=examples(30))
@given(graphs, policies, st.sampled_from(ALL), st.sampled_from(ALL), st.integers(0, 8))
def test_a_message_goes_from_hand_to_hand_at_most_three_times_and_never_back(
    tunnels: frozenset[tuple[str, str]], reaches: Reaches, source: str, destination: str, attempt: int
) -> None:
    for had in holders(reaches, tunnels_up(tunnels), source, destination, attempt):
        assert len(set(had)) == len(had) <= signal.TTL + 1


@settings(max_examples=examples(30))
@given(graphs, st.sampled_from("abc"), st.sampled_from("abc"))
def test_where_a_tunnel_an_anchor_two_anchors_or_a_common_peer_connects_two_one_sending_of_eight_arrives(
    tunnels: frozenset[tuple[str, str]], source: str, destination: str
) -> None:
    up = tunnels_up(tunnels)
    between = {*ANCHORS, *"abc"}
    connected = (
        destination in up[source]
        or up[source] & up[destination] & between
        or any(x in up[source] and x in up[y] and destination in up[y] for x in ANCHORS for y in ANCHORS)
    )
    if source != destination and connected:
        assert any(
            had[-1] == destination for attempt in range(8) for had in holders(REACHES, up, source, destination, attempt)
        )


@settings(max_examples=examples(30))
@given(policies, st.sampled_from(ALL), st.sampled_from(ALL), st.sampled_from(ALL), st.sampled_from(ALL))
def test_nobody_hands_on_between_two_nodes_that_policy_does_not_permit(
    reaches: Reaches, owner: str, last: str, source: str, destination: str
) -> None:
    of = router(owner, reaches)
    if isinstance(of.receive(message(source, destination), IP[last], set(ALL), 0.0), Onward):
        both_ways = destination in reaches[source] and source in reaches[destination]
        assert source != destination
        assert both_ways or source in ANCHORS or destination in ANCHORS


@settings(max_examples=examples(30))
@given(policies, st.sampled_from(ALL), st.sampled_from(ALL))
def test_permission_is_the_same_both_ways(reaches: Reaches, one: str, other: str) -> None:
    a, b = (
        peer("x", name, 9, kind="anchor" if name in ANCHORS else "node", reaches=reaches[name]) for name in (one, other)
    )
    assert permitted(a, b) == permitted(b, a)
