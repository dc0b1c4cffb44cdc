"""A host in the midst of a rotation: which key it may have, what is to do, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshctl.core.diff import diff
from meshctl.errors import RemoteError
from meshctl.model.facts import FileFacts, HostFacts, InterfaceFacts, PeerFacts
from meshctl.model.keys import PublicKey, Secret
from meshctl.model.ledger import InterfaceRecord, Ledger, PeerRecord
from meshctl.model.resources import NodeDoc, Peer, WireGuard
from meshctl.ops import steps_for

OLD, NEW, HUB = (PublicKey(letter * 42 + "A=") for letter in "ABC")
PSK, OTHER_PSK = Secret("D" * 42 + "A="), Secret("E" * 42 + "A=")
FILE = "/etc/wireguard/wg0.key"
PREFIX = ("10.0.0.2/32",)


def doc(*peers: Peer, public_key: PublicKey = OLD, following: PublicKey | None = None, psk: Secret = PSK) -> NodeDoc:
    return NodeDoc("web1", (WireGuard(
        "wg0", "corp", "wg-quick", ("10.0.0.1/24",), 51820, 1420, FILE, public_key, peers, (psk,) * len(peers),
        next_public_key=following,
    ),))  # fmt: skip


def host(*peers: PeerFacts, file: PublicKey = OLD, ready: PublicKey | None = None) -> HostFacts:
    record = InterfaceRecord(True, "wg-quick", {p.public_key.text: PeerRecord() for p in peers}, ("10.0.0.1/24",))
    found = {p.public_key: p for p in peers}
    return HostFacts(
        "web1", has_wg=True, init="systemd", files={FILE: FileFacts("file", "0600", "root", "root")},
        key_files={FILE: file, **({f"{FILE}.next": ready} if ready else {})},
        interfaces={"wg0": InterfaceFacts("wg0", file, 51820, 0, found, ("10.0.0.1/24",), (), 1420, True)},
        ledger=Ledger(interfaces={"wg0": record}),
    )


def live(key: PublicKey, *allowed_ips: str) -> PeerFacts:
    return PeerFacts(key, PSK, None, allowed_ips)


@pytest.mark.parametrize("facts", [host(ready=NEW), host(file=NEW)], ids=["not switched", "switched"])
def test_while_a_rotation_is_pending_either_key_is_right(facts: HostFacts) -> None:
    assert diff(doc(following=NEW), facts) == ()


def test_a_third_key_is_refused_then_as_ever() -> None:
    with pytest.raises(RemoteError, match="the lock pins"):
        diff(doc(following=NEW), host(file=HUB))


def test_a_host_switches_to_the_key_that_it_has_ready_after_its_pre_shared_keys() -> None:
    wanted, facts = doc(Peer("hub", HUB, PREFIX), public_key=NEW, psk=OTHER_PSK), host(live(HUB, *PREFIX), ready=NEW)
    changes = diff(wanted, facts)
    assert [(c.kind, c.action, c.name) for c in changes] == [
        ("peer", "update", "wg0 hub"), ("key", "update", "wg0 next")
    ]  # fmt: skip
    switch = [step for step in steps_for(wanted, facts, changes) if step.do == "switch"]
    assert [(s.path, s.target, s.interface) for s in switch] == [(FILE, f"{FILE}.next", "wg0")]
    assert diff(wanted, replace(host(replace(live(HUB, *PREFIX), psk=OTHER_PSK), file=NEW))) == ()


def test_a_key_that_waits_and_is_not_the_pinned_one_is_left_alone() -> None:
    assert diff(doc(), host(ready=NEW)) == ()


def test_prefixes_that_have_followed_a_peer_to_its_next_key_stay_there() -> None:
    hub = Peer("hub", OLD, PREFIX, next_key=NEW)
    wanted = doc(hub, hub.awaited(), public_key=HUB)
    before, after = host(live(OLD, *PREFIX), live(NEW), file=HUB), host(live(OLD), live(NEW, *PREFIX), file=HUB)
    assert diff(wanted, before) == diff(wanted, after) == ()
    neither = diff(wanted, host(live(OLD), live(NEW), file=HUB))
    assert [(c.name, c.after) for c in neither] == [("wg0 hub", {"allowed_ips": list(PREFIX)})]


def test_prefixes_belong_to_the_key_that_was_heard_last() -> None:
    def at(peer: PeerFacts, when: int) -> PeerFacts:
        return replace(peer, latest_handshake=when)

    hub = Peer("hub", OLD, PREFIX, next_key=NEW)
    wanted = doc(hub, hub.awaited(), public_key=HUB)
    # The node went back to its old key after whoever followed it had gone.
    left = diff(wanted, host(at(live(OLD), 20), at(live(NEW, *PREFIX), 10), file=HUB))
    assert [(c.name, c.after) for c in left] == [
        ("wg0 hub", {"allowed_ips": list(PREFIX)}), ("wg0 hub (next key)", {"allowed_ips": []})]  # fmt: skip
    # It has switched, and nobody has followed: the host was started anew meanwhile.
    behind = diff(wanted, host(at(live(OLD, *PREFIX), 10), at(live(NEW), 20), file=HUB))
    assert [(c.name, c.after) for c in behind] == [
        ("wg0 hub (next key)", {"allowed_ips": list(PREFIX)}), ("wg0 hub", {"allowed_ips": []})]  # fmt: skip
    assert diff(wanted, host(at(live(OLD, *PREFIX), 20), at(live(NEW), 10), file=HUB)) == ()
    assert diff(wanted, host(at(live(OLD), 10), at(live(NEW, *PREFIX), 20), file=HUB)) == ()


def test_a_host_refuses_a_peer_that_it_knows_to_be_revoked() -> None:
    facts = host()
    facts = replace(facts, ledger=replace(facts.ledger, revoked=(NEW.text,)))
    assert Ledger.from_json(facts.ledger.to_json()) == facts.ledger
    with pytest.raises(RemoteError, match="revoked: hub") as caught:
        diff(doc(Peer("hub", NEW, PREFIX)), facts)
    assert caught.value.kind == "revoked"
