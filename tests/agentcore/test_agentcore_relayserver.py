"""An anchor's relays: for permitted pairs alone, and forwarding between who has shown its token alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from agentcore_values import SESSION, interface, key, peer, transaction
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent import relayserver
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import RefuseReason, RelayAsk, RelayGrant, RelayRefresh, RelayRefuse, RelayRelease
from meshctl.core.agent.config import PeerConfig, node_id
from meshctl.core.agent.events import InstallRelay, RemoveRelay
from meshctl.core.agent.probes import Transactions
from meshctl.core.agent.relayallocation import BINDS_BURST, BINDS_PER_S, MEET_S, STALE_BINDS, TOGETHER_S
from meshctl.core.agent.relaybinds import Bind, Binds, bind_username
from meshctl.core.agent.relayserver import (
    LIFETIME_S,
    PORTS,
    RETRY_S,
    STALE_NONCE,
    TOO_EARLY,
    RelayServer,
)
from meshctl.core.agent.signal import NO_SESSION
from meshctl.core.wire import stun
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256

OWN = (Address("203.0.113.1", 51820), Address("2001:db8::1", 51820))
A_AT, B_AT, ELSEWHERE = (Address(f"198.51.100.{i}", 1000 + i) for i in (1, 2, 3))


def peers_of(count: int) -> list[PeerConfig]:
    """`p0` … that may all reach each other, and `loner`, whom nobody may."""
    names = frozenset(f"p{i}" for i in range(count))
    made = [peer("hub", f"p{i}", 10 + i, reaches=names) for i in range(count)]
    return [*made, peer("hub", "loner", 9)]


class Anchor:
    """A relay server with p0, p1, … and loner as peers."""

    def __init__(self, count: int = 3, seed: int = 0, taken: set[int] | None = None) -> None:
        self.peers = peers_of(count)
        config = interface("hub", 1, *self.peers, is_anchor=True)
        self.session, self.now, self.binds = SESSION, 0.0, 0
        self.server = RelayServer(
            config, random.Random(seed), set() if taken is None else taken, lambda _: self.session  # noqa: S311
        )
        self.server.set_addresses(OWN)

    def granted(self, one: int = 0, other: int = 1, now: float = 0.0) -> tuple[RelayGrant, RelayGrant]:
        said = dict(self.server.ask(self.peers[one], RelayAsk(self.peers[other].id), now))
        grants = said[self.peers[one]], said[self.peers[other]]
        assert all(isinstance(grant, RelayGrant) for grant in grants)
        return grants  # type: ignore[return-value]

    def bind(self, grant: RelayGrant, remote: Address, *, token: bytes | None = None) -> stun.Message | None:
        """What comes back in the end to binds with this grant, or with another token."""
        first = self.bind_once(grant, remote, token=token)
        return self.bind_once(grant, remote, nonce=first.nonce) if first is not None and first.nonce else first

    def bind_once(
        self, grant: RelayGrant, remote: Address, *, token: bytes | None = None, nonce: str | None = None,
        number: int | None = None, pause_s: float = 0.1,
    ) -> stun.Message | None:  # fmt: skip
        """The same; `number` is of one that there was, and `pause_s` the time since the last."""
        self.binds += 1
        self.now += pause_s
        name, secret = bind_username(grant.token, SESSION), grant.token if token is None else token
        request = stun.Message(stun.Class.REQUEST, transaction(number or self.binds), username=name, nonce=nonce)
        data = stun.encode(request, secret, integrity=(MESSAGE_INTEGRITY_SHA256,))
        answer = self.server.bind(grant.relay[0].port, remote, data, self.now)
        if answer is None:
            return None
        assert answer.remote == remote
        received = stun.decode(answer.data)
        assert received.is_authentic(grant.token)
        return received.message


def test_who_reads_a_bind_cannot_sign_another() -> None:
    token = bytes(range(100, 116))
    here, there = Address("192.168.1.2", 51820), Address("192.0.2.1", 40000)
    bind = Binds(Transactions(random.Random(1)), lambda _: SESSION).send(Bind(b"anchor", here, there, token))  # noqa: S311
    read = stun.decode(bind.data)
    assert read.is_authentic(token)
    name, _, session = (read.message.username or "").partition(":")
    spelled = [bytes.fromhex(part) for part in (name, session, name + session, session + name)]
    readable = [part.encode() for part in (name, session, f"{name}:{session}")]
    assert not any(read.is_authentic(key) for key in (*readable, *spelled, *(key * 2 for key in spelled)))
    assert token not in bind.data
    assert token.hex().encode() not in bind.data


def test_both_ends_are_granted_one_port_with_tokens_of_their_own() -> None:
    a, b = Anchor().granted()
    assert a.relay == b.relay
    assert [address.ip for address in a.relay] == ["203.0.113.1", "2001:db8::1"]
    assert a.relay[0].port in PORTS
    assert a.token != b.token


def test_a_pair_that_policy_does_not_permit_gets_nothing() -> None:
    anchor = Anchor()
    for asked in (anchor.peers[-1].id, anchor.peers[0].id, node_id(key("stranger"))):
        ((to, body),) = anchor.server.ask(anchor.peers[0], RelayAsk(asked), 0.0)
        assert to is anchor.peers[0]
        assert isinstance(body, RelayRefuse)
        assert body.reason is RefuseReason.NOT_PERMITTED


def test_the_ends_of_a_relay_that_cannot_be_installed_are_refused_and_its_port_is_free() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.bind(a, A_AT)
    anchor.bind(b, B_AT)
    assert [type(action) for action in anchor.server.actions()] == [InstallRelay]
    assert anchor.server.failed(a.relay[0].port + 1) == []
    refused = anchor.server.failed(a.relay[0].port)
    assert refused == [
        (peer, RelayRefuse(to.id, RefuseReason.FULL, RETRY_S))
        for peer, to in (anchor.peers[:2], anchor.peers[1::-1])
    ]
    assert list(anchor.server.actions()) == [], "there is nothing to remove"
    assert anchor.bind(a, A_AT) is None
    assert anchor.server.kept() == ()
    assert anchor.granted()[0].token != a.token


def test_nothing_is_forwarded_before_both_have_bound_and_then_between_these_two() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    early = anchor.bind(a, A_AT)
    assert early is not None
    assert early.error is not None
    assert early.error.code == TOO_EARLY
    assert list(anchor.server.actions()) == []
    late = anchor.bind(b, B_AT)
    assert late is not None
    assert late.xor_mapped_address == B_AT
    assert list(anchor.server.actions()) == [InstallRelay(a.relay[0].port, A_AT, B_AT)]
    again = anchor.bind(a, A_AT)
    assert again is not None
    assert again.error is None
    assert list(anchor.server.actions()) == []


def test_an_end_that_has_moved_is_forwarded_to_where_it_is_now() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.bind(a, A_AT)
    anchor.bind(b, B_AT)
    list(anchor.server.actions())
    anchor.bind(a, ELSEWHERE)
    port = a.relay[0].port
    assert list(anchor.server.actions()) == [RemoveRelay(port, A_AT, B_AT), InstallRelay(port, ELSEWHERE, B_AT)]


def test_a_bind_that_is_not_signed_with_the_token_is_not_answered() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    assert anchor.bind(a, A_AT, token=b.token) is None
    assert anchor.bind(a, A_AT, token=b"") is None
    assert anchor.server.bind(a.relay[0].port, A_AT, b"\x01\x00\x00\x00 not STUN", 0.0) is None
    assert anchor.server.bind(a.relay[0].port + 1, A_AT, b"", 0.0) is None
    assert list(anchor.server.actions()) == []


def test_the_token_of_one_pair_opens_no_other_pairs_port() -> None:
    anchor = Anchor()
    a, _ = anchor.granted(0, 1)
    c, _ = anchor.granted(2, 1)
    moved = RelayGrant(a.peer, c.relay, a.token, a.lifetime_s)
    assert anchor.bind(moved, A_AT) is None


def test_ends_without_a_common_family_are_forwarded_between_until_they_have_one() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    v6, port = Address("2001:db8:7::2", 1), a.relay[0].port
    anchor.bind(a, A_AT)
    early = anchor.bind(b, v6)
    assert early is not None
    assert early.error is not None
    assert early.error.code == TOO_EARLY, "one in the other's family may be under way"
    anchor.now += TOGETHER_S
    answer = anchor.bind(b, v6)
    assert answer is not None
    assert answer.error is None
    assert list(anchor.server.actions()) == [InstallRelay(port, A_AT, v6)]
    anchor.bind(b, B_AT)
    assert list(anchor.server.actions()) == [RemoveRelay(port, A_AT, v6), InstallRelay(port, A_AT, B_AT)]


def test_asking_again_gives_the_same_port_and_token() -> None:
    anchor = Anchor()
    assert anchor.granted(0, 1) == anchor.granted(1, 0, now=5.0)[::-1]


def test_a_relay_that_is_not_refreshed_ends_and_one_that_is_does_not() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.bind(a, A_AT)
    anchor.bind(b, B_AT)
    list(anchor.server.actions())
    ((_, renewed),) = anchor.server.refresh(anchor.peers[0], RelayRefresh(a.peer, a.token), 0.7 * LIFETIME_S)
    assert renewed == a
    anchor.server.expire(LIFETIME_S + 1.0)
    assert list(anchor.server.actions()) == []
    assert anchor.server.due() == 1.7 * LIFETIME_S
    anchor.server.expire(1.7 * LIFETIME_S)
    assert list(anchor.server.actions()) == [RemoveRelay(a.relay[0].port, A_AT, B_AT)]
    assert anchor.server.due() is None
    ((_, refused),) = anchor.server.refresh(anchor.peers[0], RelayRefresh(a.peer, a.token), 1.8 * LIFETIME_S)
    assert isinstance(refused, RelayRefuse)
    assert refused.reason is RefuseReason.UNKNOWN


def test_a_relay_ends_when_both_have_released_it() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.server.release(anchor.peers[0], RelayRelease(a.peer, a.token))
    assert anchor.server.due() is not None
    anchor.server.release(anchor.peers[1], RelayRelease(b.peer, b"x" * 16))
    assert anchor.server.due() is not None, "not with a wrong token"
    anchor.server.release(anchor.peers[1], RelayRelease(b.peer, b.token))
    assert anchor.server.due() is None


def test_one_that_is_asked_for_again_was_not_released() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.server.release(anchor.peers[0], RelayRelease(a.peer, a.token))
    anchor.granted(now=1.0)
    anchor.server.release(anchor.peers[1], RelayRelease(b.peer, b.token))
    assert anchor.server.due() is not None


def test_a_node_may_have_a_relay_to_each_of_hundreds_of_peers_and_one_to_each_is_all_that_it_gets() -> None:
    anchor = Anchor(501)
    for _ in range(2):
        for other in range(1, 501):
            anchor.granted(0, other)
            anchor.granted(other, 0)
    assert len(anchor.server._by_port) == 500


def test_when_all_ports_are_given_out_the_next_pair_is_refused_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayserver, "PORTS", PORTS[:3])
    anchor = Anchor(5)
    granted = [anchor.granted(0, other) for other in range(1, 4)]
    ((_, refused),) = anchor.server.ask(anchor.peers[0], RelayAsk(anchor.peers[4].id), 0.0)
    assert isinstance(refused, RelayRefuse)
    assert (refused.reason, refused.retry_s > 0) == (RefuseReason.FULL, True)
    for who, grant in enumerate(granted[0]):
        anchor.server.release(anchor.peers[who], RelayRelease(grant.peer, grant.token))
    anchor.granted(0, 4)


@pytest.mark.parametrize("seed", range(3))
@settings(max_examples=examples(30))
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4)), max_size=60))
def test_whatever_is_asked_and_bound_each_port_forwards_for_one_permitted_pair(
    seed: int, steps: list[tuple[int, int, int, int]]
) -> None:
    anchor = Anchor(3, seed)
    tokens: dict[tuple[int, int], RelayGrant] = {}
    installed: dict[int, tuple[Address, Address]] = {}
    for turn, (what, one, other, place) in enumerate(steps):
        now, remote = turn * LIFETIME_S / 12, Address(f"198.51.100.{place}", 7)
        asking, asked = anchor.peers[one], anchor.peers[other]
        if what == 0:
            for to, body in anchor.server.ask(asking, RelayAsk(asked.id), now):
                if isinstance(body, RelayGrant):
                    assert "loner" not in (asking.name, asked.name)
                    peer_ids = [p.id for p in anchor.peers]
                    tokens[peer_ids.index(to.id), peer_ids.index(body.peer)] = body
        elif (one, other) in tokens:
            grant = tokens[one, other]
            if what == 1:
                anchor.server.refresh(asking, RelayRefresh(asked.id, grant.token), now)
            elif what == 2:
                anchor.server.release(asking, RelayRelease(asked.id, grant.token))
            else:
                anchor.bind(grant, remote)
        anchor.server.expire(now)
        for action in anchor.server.actions():
            if isinstance(action, InstallRelay):
                assert action.port not in installed
                installed[action.port] = action.a, action.b
            else:
                assert isinstance(action, RemoveRelay)
                assert installed.pop(action.port) == (action.a, action.b)


@pytest.mark.parametrize("in_time", [True, False])
def test_of_ends_whose_binds_cross_in_two_families_nothing_is_forwarded_between_the_two_while_they_may_meet_in_one(
    in_time: bool
) -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    v6, port = Address("2001:db8:7::2", 1), a.relay[0].port
    anchor.bind(a, A_AT)
    anchor.bind(b, v6)
    moving = anchor.bind_once(b, B_AT)  # which is to show that it was made just now
    assert moving is not None
    anchor.now += TOGETHER_S
    anchor.bind(a, A_AT)
    anchor.bind(b, v6)
    assert list(anchor.server.actions()) == []
    if in_time:
        anchor.bind_once(b, B_AT, nonce=moving.nonce)
        assert list(anchor.server.actions()) == [InstallRelay(port, A_AT, B_AT)]
    else:
        anchor.now += MEET_S
        anchor.bind(b, v6)
        assert list(anchor.server.actions()) == [InstallRelay(port, A_AT, v6)]


def test_an_end_that_binds_in_both_families_does_not_disturb_what_is_forwarded_in_one() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    v6 = Address("2001:db8:7::2", 1)
    for grant, remote in ((a, A_AT), (a, v6), (b, B_AT), (a, v6), (a, A_AT)):
        anchor.bind(grant, remote)
    assert list(anchor.server.actions()) == [InstallRelay(a.relay[0].port, A_AT, B_AT)]
    other = anchor.bind(a, v6)
    assert other is not None
    assert other.error is not None, "it is not forwarded from there"


def test_an_end_that_has_lost_a_family_is_not_forwarded_to_there_for_ever() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    v6, other_v6 = Address("2001:db8:7::2", 1), Address("2001:db8:8::2", 1)
    anchor.bind(a, A_AT)
    anchor.bind(b, B_AT)
    anchor.now += MEET_S
    for _ in range(STALE_BINDS):
        anchor.bind(a, v6)
    port = a.relay[0].port
    assert list(anchor.server.actions()) == [
        InstallRelay(port, A_AT, B_AT), RemoveRelay(port, A_AT, B_AT), InstallRelay(port, v6, B_AT),
    ]  # fmt: skip
    anchor.bind(b, other_v6)
    assert list(anchor.server.actions()) == [RemoveRelay(port, v6, B_AT), InstallRelay(port, v6, other_v6)]


def test_a_relay_that_the_other_end_has_released_is_not_renewed_until_somebody_asks() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.server.release(anchor.peers[0], RelayRelease(a.peer, a.token))
    ((_, refused),) = anchor.server.refresh(anchor.peers[1], RelayRefresh(b.peer, b.token), 1.0)
    assert isinstance(refused, RelayRefuse)
    assert refused.reason is RefuseReason.UNKNOWN
    assert anchor.granted(1, 0, now=2.0) == (b, a)
    ((_, renewed),) = anchor.server.refresh(anchor.peers[1], RelayRefresh(b.peer, b.token), 3.0)
    assert renewed == b


def test_a_recorded_bind_moves_nobody_and_takes_nothing_away() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    moved = Address("198.51.100.77", 7)
    anchor.bind(a, A_AT)
    anchor.bind(b, B_AT)
    to_moved = anchor.bind_once(a, moved)
    assert to_moved is not None
    assert to_moved.error is not None
    assert to_moved.error.code == STALE_NONCE
    anchor.bind_once(a, moved, nonce=to_moved.nonce)
    list(anchor.server.actions())
    for _ in range(2 * STALE_BINDS):
        for remote in (ELSEWHERE, A_AT, Address("2001:db8:7::2", 1)):
            for nonce in (None, to_moved.nonce, "x" * 500, "\u00e9"):
                anchor.bind_once(a, remote, nonce=nonce)
        anchor.bind_once(a, moved, nonce=to_moved.nonce)
    assert list(anchor.server.actions()) == []


def test_a_nonce_counts_until_the_end_moves_again_and_for_one_place() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.bind(b, B_AT)
    anchor.bind(a, A_AT)
    nonces = {}
    for remote in (ELSEWHERE, Address("198.51.100.78", 8)):
        challenge = anchor.bind_once(a, remote)
        assert challenge is not None
        nonces[remote] = challenge.nonce
    used, other = nonces
    swapped = anchor.bind_once(a, used, nonce=nonces[other])
    assert swapped is not None
    assert swapped.error is not None
    accepted = anchor.bind_once(a, used, nonce=nonces[used])
    assert accepted is not None
    assert accepted.error is None
    late = anchor.bind_once(a, other, nonce=nonces[other])
    assert late is not None
    assert late.error is not None


def test_two_networks_of_an_anchor_give_out_different_ports_until_they_are_free_again() -> None:
    taken: set[int] = set()
    one, other, third, fourth = (Anchor(taken=taken) for _ in range(4))
    port = one.granted()[0].relay[0].port
    assert other.granted()[0].relay[0].port != port
    for end, grant in enumerate(one.granted()):
        one.server.release(one.peers[end], RelayRelease(one.peers[1 - end].id, grant.token))
    assert third.granted()[0].relay[0].port == port, "all draw the same numbers"
    third.server.stop()
    assert fourth.granted()[0].relay[0].port == port


def test_after_a_restart_relays_go_on_as_they_were() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.bind(a, A_AT)
    anchor.bind(b, B_AT)
    installed = list(anchor.server.actions())
    again = Anchor()
    again.server.restore(anchor.server.kept(), 1000.0)
    assert list(again.server.actions()) == installed
    assert again.granted(now=1001.0) == (a, b)
    assert list(again.server.actions()) == []
    again.server.expire(1001.0 + LIFETIME_S)
    assert list(again.server.actions()) == [RemoveRelay(a.relay[0].port, A_AT, B_AT)]


def test_after_a_restart_relays_of_who_may_not_have_them_any_more_end() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    anchor.bind(a, A_AT)
    anchor.bind(b, B_AT)
    (relay,) = anchor.server.kept()
    again = Anchor()
    for other in ("stranger", "loner"):
        again.server.restore([replace(relay, b=relay.b._replace(peer=key(other)))], 0.0)
        assert list(again.server.actions()) == [RemoveRelay(relay.port, A_AT, B_AT)]
    again.server.restore([replace(relay, port=22)], 0.0)
    assert list(again.server.actions()) == []


def test_a_bind_that_somebody_sends_again_is_not_answered_and_takes_nothing_of_the_ends_share() -> None:
    anchor = Anchor()
    a, _ = anchor.granted()
    anchor.bind(a, A_AT)
    recorded = anchor.binds
    for _ in range(1000):
        assert anchor.bind_once(a, ELSEWHERE, number=recorded, pause_s=0.0) is None
    assert anchor.bind_once(a, A_AT, pause_s=0.0) is not None


def test_an_end_that_binds_by_the_addresses_of_others_has_few_answers_sent_there_and_the_other_end_all_of_its() -> None:
    anchor = Anchor()
    a, b = anchor.granted()
    victims = [Address("203.0.113.66", 1024 + n) for n in range(1000)]
    answers = [anchor.bind_once(a, victim, pause_s=0.0) for victim in victims]
    assert sum(answer is not None for answer in answers) == BINDS_BURST
    assert anchor.bind_once(b, B_AT, pause_s=0.0) is not None
    again = [anchor.bind_once(a, victim, pause_s=0.001) for victim in victims]
    assert sum(answer is not None for answer in again) == pytest.approx(BINDS_PER_S, abs=1)


@pytest.mark.parametrize("now_in", [b"a later!", NO_SESSION])
def test_binds_of_another_session_than_is_known_have_a_share_of_their_own(now_in: bytes) -> None:
    anchor = Anchor()
    a, _ = anchor.granted()
    anchor.session = now_in
    answers = [anchor.bind_once(a, A_AT, pause_s=0.0) for _ in range(1000)]
    assert sum(answer is not None for answer in answers) == BINDS_BURST
    anchor.session = SESSION
    assert anchor.bind_once(a, A_AT, pause_s=0.0) is not None


@pytest.mark.parametrize("username", ["", ":", "no name", "00:zz", "0011223344556677", "a:b:c"])
def test_what_is_no_name_of_a_bind_is_not_answered(username: str) -> None:
    anchor = Anchor()
    a, _ = anchor.granted()
    request = stun.Message(stun.Class.REQUEST, transaction(1), username=username)
    data = stun.encode(request, a.token, integrity=(MESSAGE_INTEGRITY_SHA256,))
    assert anchor.server.bind(a.relay[0].port, A_AT, data, 0.0) is None
