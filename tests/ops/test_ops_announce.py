"""A changed listen port is made known at once."""

from __future__ import annotations

from meshctl.core.change import Change
from meshctl.model.facts import HostFacts, InterfaceFacts, PeerFacts
from meshctl.model.keys import PublicKey
from meshctl.model.resources import NodeDoc, WireGuard
from meshctl.ops import steps_for

NEAR = PublicKey("A" * 43 + "=")
FAR = PublicKey("B" * 42 + "A=")
UNSEEN = PublicKey("C" * 42 + "A=")


def test_every_peer_that_can_be_reached_hears_of_a_new_port_at_once_and_keeps_its_keepalive() -> None:
    want = WireGuard("wg0", "corp", "wg-quick", (), 51999, 1420, "/etc/wireguard/wg0.key", None, (), ())
    peers = {
        NEAR: PeerFacts(NEAR, None, "192.0.2.1:51820", ("10.0.0.1/32",), keepalive_s=0),
        FAR: PeerFacts(FAR, None, "192.0.2.2:51820", ("10.0.0.2/32",), keepalive_s=17),
        UNSEEN: PeerFacts(UNSEEN, None, None, ("10.0.0.3/32",), keepalive_s=0),
    }
    facts = HostFacts("n", interfaces={"wg0": InterfaceFacts("wg0", None, 51820, 0, peers)})
    change = Change("n", "listen-port", "update", "wg0", {"listen_port": 51820}, {"listen_port": 51999}, 0)
    argvs = [s.argv for s in steps_for(NodeDoc("n", (want,)), facts, (change,)) if s.do == "run"]
    near, far = (("peer", str(key), "persistent-keepalive") for key in (NEAR, FAR))
    assert argvs == [
        ("wg", "set", "wg0", "listen-port", "51999"),
        ("wg", "set", "wg0", *near, "1", *near, "off", *far, "off", *far, "17"),
    ]
