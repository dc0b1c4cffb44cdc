"""Stock clients: told of by anchors, kept alive while they live, and left alone when they sleep."""

from __future__ import annotations

from dataclasses import replace

from agentcore_values import interface, key, peer

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import Observation, Observed
from meshctl.core.agent.clients import (
    ABOUT_S,
    LATE_S,
    LATER_S,
    MAX_OBSERVATIONS,
    REPEAT_S,
    SILENT_S,
    ClientPaths,
    ClientWatch,
)
from meshctl.core.agent.config import node_id
from meshctl.core.agent.events import PeerStatus, SetEndpoint, SetKeepalive
from meshctl.model.keys import PublicKey

PHONE, TABLET, STRANGER = (key(name) for name in ("phone", "tablet", "stranger"))
HERE, THERE = Address("198.51.100.7", 4444), Address("198.51.100.8", 5555)
HUB, OTHER_HUB = node_id(key("hub")), node_id(key("hub2"))
INSIDE = Address("10.42.0.9", 4444)


def status(
    at: Address | None = HERE, age: float | None = 10.0, name: str = "phone", keepalive_s: int = 0
) -> dict[PublicKey, PeerStatus]:
    return {key(name): PeerStatus(key(name), at, age, 0, 0, keepalive_s)}


def watch() -> ClientWatch:
    """An anchor with a phone that may reach `web`, a tablet with a written endpoint, and `db`, whom neither may."""
    return ClientWatch(interface(
        "hub", 1,
        peer("hub", "web", 2, reaches=frozenset({"phone", "tablet"})),
        peer("hub", "db", 3),
        peer("hub", "phone", 4, kind="client", reaches=frozenset({"web"})),
        peer("hub", "tablet", 5, kind="client", reaches=frozenset({"web"}), endpoints=(THERE,)),
        is_anchor=True,
    ))  # fmt: skip


WEB = interface(
    "web", 2, peer("web", "phone", 4, kind="client"), peer("web", "tablet", 5, kind="client", endpoints=(THERE,))
)  # fmt: skip


def paths() -> ClientPaths:
    return ClientPaths(WEB)


def told(of: Address = HERE, name: str = "phone", age: int = 5) -> Observed:
    return Observed((Observation(node_id(key(name)), of, age),))


def test_an_anchor_tells_those_whom_the_client_may_reach_where_it_is_and_nobody_else() -> None:
    ((to, body),) = watch().tell({**status(), **status(THERE, name="tablet")}, 0.0)
    assert to.name == "web"
    assert body == Observed((Observation(node_id(PHONE), HERE, 10),))


def test_it_is_told_again_when_it_moved_and_now_and_then() -> None:
    anchor = watch()
    assert len(list(anchor.tell(status(), 0.0))) == 1
    assert list(anchor.tell(status(), 1.0)) == []
    assert len(list(anchor.tell(status(THERE), 2.0))) == 1
    assert list(anchor.tell(status(THERE), 1.9 + REPEAT_S)) == []
    assert len(list(anchor.tell(status(THERE), 2.0 + REPEAT_S))) == 1


def test_a_client_that_sleeps_is_not_told_of() -> None:
    anchor = watch()
    list(anchor.tell(status(), 0.0))
    assert list(anchor.tell(status(age=SILENT_S), REPEAT_S)) == []
    assert list(anchor.tell(status(at=None), REPEAT_S)) == []
    assert list(anchor.tell(status(age=None), REPEAT_S)) == []


def test_of_more_clients_than_one_message_holds_all_are_told() -> None:
    names = [f"phone{n}" for n in range(2 * MAX_OBSERVATIONS + 1)]
    clients = [peer("hub", name, 10 + n, kind="client", reaches=frozenset({"web"})) for n, name in enumerate(names)]
    anchor = ClientWatch(interface("hub", 1, peer("hub", "web", 2, reaches=frozenset(names)), *clients, is_anchor=True))
    seen = {}
    for n, name in enumerate(names):
        seen.update(status(Address(HERE.ip, 1024 + n), name=name))
    bodies = [body for _, body in anchor.tell(seen, 0.0)]
    assert max(len(body.observations) for body in bodies) <= MAX_OBSERVATIONS
    assert {o.node for body in bodies for o in body.observations} == {node_id(key(name)) for name in names}


def test_an_idle_client_whose_keepalives_come_lives_though_its_keys_are_older_than_two_minutes() -> None:
    anchor, node = watch(), paths()
    (shown,) = status(age=1.0).values()
    assert list(node.sample({PHONE: shown}, 0.0)) == [SetKeepalive(PHONE, 25)]
    for turn in range(1, 6):
        shown = shown._replace(handshake_age_s=25.0 * turn + 1, rx_bytes=shown.rx_bytes + 32, keepalive_s=25)
        assert list(node.sample({PHONE: shown}, 25.0 * turn)) == []
        told_of = [o.age_s for _, body in anchor.tell({PHONE: shown}, 25.0 * turn) for o in body.observations]
    assert told_of == [0]
    assert list(node.sample({PHONE: shown}, 125.0 + SILENT_S - 1)) == []
    assert list(node.sample({PHONE: shown}, 125.0 + SILENT_S)) == [SetKeepalive(PHONE, 0)]


def test_a_node_takes_the_anchors_word_for_where_the_client_is_and_keeps_it_alive() -> None:
    assert list(paths().observed(HUB, told(), {}, 0.0)) == [SetEndpoint(PHONE, HERE), SetKeepalive(PHONE, 25)]


def test_a_client_that_the_node_hears_itself_stays_where_it_is_heard() -> None:
    assert list(paths().observed(HUB, told(), status(THERE), 0.0)) == [SetKeepalive(PHONE, 25)]


def test_a_client_that_an_anchor_hears_at_another_ip_while_its_keepalives_are_late_here_has_moved() -> None:
    late = WEB.keepalive_s + LATE_S
    node = paths()
    assert list(node.observed(HUB, told(THERE, age=1), status(age=10.0, keepalive_s=25), 10.0)) == [], "it may be late"
    assert list(node.sample(status(age=late, keepalive_s=25), late)) == []
    assert list(node.sample(status(age=late + 1, keepalive_s=25), late + 1)) == [SetEndpoint(PHONE, THERE)]
    assert list(node.sample(status(THERE, age=late + 2, keepalive_s=25), late + 2)) == [], "it is done"


def test_a_client_whose_move_an_anchor_has_seen_is_followed_at_once() -> None:
    node = paths()
    assert list(node.observed(HUB, told(HERE, age=1), status(age=0.0, keepalive_s=25), 10.0)) == []
    moved = node.observed(HUB, told(THERE, age=0), status(age=3.0, keepalive_s=25), 13.0)
    assert list(moved) == [SetEndpoint(PHONE, THERE)]
    assert list(node.observed(HUB, told(HERE, age=4), status(THERE, age=0.0, keepalive_s=25), 14.0)) == [], "older news"


def test_a_client_that_an_anchor_hears_at_another_port_or_heard_before_this_node_did_has_not_moved() -> None:
    quiet = status(age=60.0, keepalive_s=25)
    assert list(paths().observed(HUB, told(Address(HERE.ip, THERE.port)), quiet, 100.0)) == []
    assert list(paths().observed(HUB, told(THERE, age=60 + int(ABOUT_S) + 1), quiet, 100.0)) == []
    assert list(paths().observed(HUB, told(THERE, age=60 + int(ABOUT_S)), quiet, 100.0)) == [SetEndpoint(PHONE, THERE)]


def test_of_two_anchors_the_one_that_heard_a_client_last_is_believed() -> None:
    node, gone = paths(), status(None, age=None, keepalive_s=25)
    assert list(node.observed(HUB, told(THERE, age=1), gone, 10.0)) == [SetEndpoint(PHONE, THERE)]
    assert list(node.observed(HUB, told(HERE, age=20), status(THERE, age=None, keepalive_s=25), 11.0)) == []


def test_what_is_known_already_is_not_done_again() -> None:
    node = paths()
    list(node.observed(HUB, told(), {}, 0.0))
    assert list(node.observed(HUB, told(), status(age=None, keepalive_s=25), 1.0)) == []
    assert list(node.observed(HUB, told(THERE), status(age=None, keepalive_s=25), 2.0)) == [SetEndpoint(PHONE, THERE)]


def test_anchors_that_see_a_client_at_different_places_do_not_move_it_to_and_fro() -> None:
    node = paths()
    list(node.observed(HUB, told(age=0), {}, 0.0))
    there = status(age=None, keepalive_s=25)
    for second in range(1, 200):
        assert list(node.observed(OTHER_HUB, told(THERE, age=0), there, second)) == []
        assert list(node.observed(HUB, told(age=0), there, second)) == []
    assert list(node.observed(HUB, told(THERE, age=0), there, 200.0)) == [SetEndpoint(PHONE, THERE)], "it has moved"


def test_an_anchor_that_has_heard_a_client_much_later_is_believed() -> None:
    node = paths()
    list(node.observed(HUB, told(age=0), {}, 0.0))
    there = status(age=None, keepalive_s=25)
    assert list(node.observed(OTHER_HUB, told(THERE, age=1), there, LATER_S)) == []
    assert list(node.observed(OTHER_HUB, told(THERE, age=0), there, LATER_S)) == [SetEndpoint(PHONE, THERE)]
    assert list(node.observed(HUB, told(age=30), status(THERE, age=None, keepalive_s=25), LATER_S)) == []


def test_strangers_written_endpoints_old_news_and_addresses_of_the_mesh_change_nothing() -> None:
    node = paths()
    for body in (told(name="stranger"), told(name="tablet"), told(age=int(SILENT_S)), told(INSIDE)):
        assert list(node.observed(HUB, body, {}, 0.0)) == []
    assert list(node.sample({}, 2 * SILENT_S)) == []


def test_the_keepalive_is_withdrawn_after_two_minutes_of_silence_and_set_again_when_the_client_wakes() -> None:
    node = paths()
    list(node.observed(HUB, told(age=0), {}, 0.0))
    assert list(node.sample(status(age=30.0, keepalive_s=25), 60.0)) == []
    assert list(node.sample(status(age=119.0, keepalive_s=25), 149.0)) == []
    assert list(node.sample(status(age=SILENT_S, keepalive_s=25), 150.0)) == [SetKeepalive(PHONE, 0)]
    assert list(node.sample(status(age=SILENT_S + 1), 151.0)) == []
    assert list(node.sample(status(age=0.5), 200.0)) == [SetKeepalive(PHONE, 25)]


def test_the_keepalive_of_a_client_that_left_while_no_agent_ran_is_withdrawn_by_the_next_one() -> None:
    assert list(paths().sample(status(age=SILENT_S + 5, keepalive_s=25), 0.0)) == [SetKeepalive(PHONE, 0)]


def test_a_keepalive_that_an_interface_which_is_made_anew_has_not_is_set_again() -> None:
    node = paths()
    assert list(node.sample(status(), 0.0)) == [SetKeepalive(PHONE, 25)]
    assert list(node.sample(status(keepalive_s=25), 1.0)) == []
    assert list(node.sample(status(), 2.0)) == [SetKeepalive(PHONE, 25)]


def test_a_client_with_a_written_endpoint_is_never_touched() -> None:
    node = paths()
    assert list(node.sample(status(name="tablet"), 0.0)) == []
    assert list(node.sample(status(age=500.0, name="tablet", keepalive_s=25), 500.0)) == []


def test_a_client_that_is_kept_alive_when_peers_come_and_go_is_still_left_alone_when_it_sleeps() -> None:
    node = paths()
    list(node.observed(HUB, told(age=0), {}, 0.0))
    node.configure(replace(WEB, peers=(*WEB.peers, peer("web", "camera", 6, kind="client"))))
    assert list(node.observed(HUB, told(age=0), status(age=None, keepalive_s=25), 10.0)) == []
    assert list(node.sample(status(age=None, keepalive_s=25), 10.0 + SILENT_S)) == [SetKeepalive(PHONE, 0)]
    assert list(node.observed(HUB, told(name="camera"), {}, 200.0)) == [
        SetEndpoint(key("camera"), HERE), SetKeepalive(key("camera"), 25),
    ]  # fmt: skip


def test_a_client_that_is_a_peer_no_more_is_forgotten() -> None:
    node = paths()
    list(node.observed(HUB, told(age=0), {}, 0.0))
    node.configure(replace(WEB, peers=()))
    assert list(node.observed(HUB, told(), {}, 1.0)) == []
    assert list(node.sample({}, 2 * SILENT_S)) == []
    node.configure(WEB)
    assert list(node.observed(HUB, told(), {}, 2.0)) == [SetEndpoint(PHONE, HERE), SetKeepalive(PHONE, 25)]


def test_the_keepalive_of_a_client_that_may_not_be_reached_any_more_is_withdrawn_while_it_is_a_peer() -> None:
    node = paths()
    assert list(node.sample(status(age=1.0), 0.0)) == [SetKeepalive(PHONE, 25)]
    node.configure(replace(WEB, peers=tuple(replace(p, permitted=False) for p in WEB.peers)))
    assert list(node.sample(status(age=1.0, keepalive_s=25), 1.0)) == [SetKeepalive(PHONE, 0)]
    assert list(node.sample(status(age=1.0), 2.0)) == []
    assert list(node.sample(status(age=1.0, name="tablet", keepalive_s=25), 3.0)) == [], "its endpoint is written"
    assert list(node.sample({}, 4.0)) == [], "it is WireGuard's peer no more"
    node.configure(WEB)
    assert list(node.sample(status(age=1.0), 5.0)) == [SetKeepalive(PHONE, 25)]
