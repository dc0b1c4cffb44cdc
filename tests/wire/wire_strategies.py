"""What hypothesis draws for the wire formats: addresses, STUN messages, and damage done to valid bytes."""

from __future__ import annotations

from hypothesis import strategies as st

from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress, canonical_ip
from meshctl.core.wire.stun_attributes import ChangeRequest, StunError

ports = st.integers(0, 65535)
hosts = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda a: canonical_ip(str(a))))
addresses = st.builds(TransportAddress, hosts, ports)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)

messages = st.builds(
    stun.Message,
    st.sampled_from(stun.Class), st.binary(min_size=12, max_size=12), st.integers(0, 0xFFF),
    username=st.none() | texts, realm=st.none() | texts, nonce=st.none() | texts, software=st.none() | texts,
    error=st.none() | st.builds(StunError, st.integers(300, 699), texts),
    unknown_attributes=st.none() | st.lists(ports, max_size=8).map(tuple),
    xor_mapped_address=st.none() | addresses, mapped_address=st.none() | addresses, other_address=st.none() | addresses,
    response_origin=st.none() | addresses, alternate_server=st.none() | addresses,
    change_request=st.none() | st.builds(ChangeRequest, st.booleans(), st.booleans()),
    response_port=st.none() | ports, priority=st.none() | st.integers(0, 2**32 - 1), use_candidate=st.booleans(),
    ice_controlled=st.none() | st.integers(0, 2**64 - 1), ice_controlling=st.none() | st.integers(0, 2**64 - 1),
)


@st.composite
def damaged(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid message with up to four pieces overwritten, cut out, doubled or put in."""
    raw = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        stop = draw(st.integers(start, min(len(raw), start + 12)))
        piece = bytes(raw[start:stop])
        same_size = st.binary(min_size=len(piece), max_size=len(piece))
        raw[start:stop] = draw(st.one_of(same_size, st.sampled_from([b"", piece * 2]), st.binary(max_size=8)))
    return bytes(raw)
