"""Signalling messages at random, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from meshctl.core.agent import bodies
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import KIND_NUMBERS, MAX_PRIORITY, TYPE_OF, Body
from meshctl.core.agent.signal import Header

# Any address that has one spelling only: none that is IPv4 written as IPv6.
ips = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None),  # type: ignore[union-attr]
).map(str)
addresses = st.builds(Address, ips, st.integers(0, 0xFFFF))
ids = st.binary(min_size=8, max_size=8)
tokens = st.binary(min_size=16, max_size=16)
u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
bytes_ = st.integers(0, 255)

offered = st.builds(
    bodies.Offered,
    st.sampled_from(sorted(KIND_NUMBERS)),
    addresses,
    st.binary(min_size=4, max_size=4).map(bytes.hex),
    st.integers(1, MAX_PRIORITY),
)
nat = st.lists(
    st.builds(bodies.NatSummary, st.sampled_from([4, 6]), bytes_, bytes_, bytes_), unique_by=lambda n: n.family
)
relays = st.lists(
    st.tuples(ids, u16), unique_by=lambda d: d[0], max_size=bodies.MAX_DISTANCES
).flatmap(lambda ds: st.integers(0, len(ds)).map(
    lambda used: tuple(bodies.AnchorDistance(anchor, rtt, at == used) for at, (anchor, rtt) in enumerate(ds))
))  # fmt: skip
everything: st.SearchStrategy[Body] = st.one_of(
    st.just(bodies.Hello()),
    st.builds(bodies.HelloAck, u64),
    st.builds(
        bodies.Offer,
        u32,
        st.lists(offered, max_size=bodies.MAX_OFFERED).map(tuple),
        nat.map(tuple),
        relays,
        st.sampled_from(bodies.Wish),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.booleans(),
    ),
    st.builds(bodies.Ack, u32),
    st.builds(bodies.Observed, st.lists(st.builds(bodies.Observation, ids, addresses, u16), max_size=30).map(tuple)),
    st.builds(bodies.RelayAsk, ids),
    st.builds(
        bodies.RelayGrant,
        ids,
        st.lists(addresses, min_size=1, max_size=2, unique_by=lambda a: a.family).map(tuple),
        tokens,
        u32,
    ),
    st.builds(bodies.RelayRefuse, ids, st.sampled_from(bodies.RefuseReason), u16),
    st.builds(bodies.RelayRefresh, ids, tokens),
    st.builds(bodies.RelayRelease, ids, tokens),
    st.builds(bodies.Splice, u32, u16),
)


def headers(body: Body) -> st.SearchStrategy[Header]:
    """A header for this body."""
    return st.builds(Header, st.just(TYPE_OF[type(body)]), ids, ids, ids, ids, u64, bytes_)


messages = everything.flatmap(lambda body: st.tuples(headers(body), st.just(body)))
