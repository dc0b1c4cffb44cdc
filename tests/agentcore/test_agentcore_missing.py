"""A peer that WireGuard has not got, or an interface that is gone. Hunted: a path that is called direct and alive while
nothing goes by it, a way for messages that is none, and a peer that is not found again when it is back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from agentcore_ends import DIRECT, RELAYED, direct, network_of, relayed, triggers
from agentcore_pair import PairWorld
from agentcore_values import key

from meshctl.core.agent import events as ev
from meshctl.core.agent.path import State, Trigger

GONE = "WireGuard has no such peer"


def hide(world: PairWorld, *names: str, name: str = "a") -> None:
    """From now on a reading of that host's WireGuard has these peers no more; without names it has none."""
    host = world.hosts[name]
    keys = {key(n) for n in names} or set(host.tunnels)
    real = type(host).statuses
    host.statuses = lambda: tuple(s for s in real(host) if s.public_key not in keys)  # type: ignore[method-assign]


def show(world: PairWorld, name: str = "a") -> None:
    """All of them are there again."""
    del world.hosts[name].statuses  # type: ignore[method-assign]


def test_who_is_in_no_reading_has_no_path_no_session_and_carries_no_messages() -> None:
    world = direct()
    hide(world)
    world.cut = lambda _source, _destination: True
    world.run(3600.0)
    node = world.hosts["a"]
    assert node.core is not None
    assert {(p.peer, p.state, p.alive) for p in node.core.paths()} == {(n, State.UNKNOWN, False) for n in ("b", "hub0")}
    assert network_of(node)._up() == set()


@pytest.mark.parametrize("world", [direct, relayed])
def test_a_path_that_leads_to_no_peer_of_wireguards_is_none_at_once_though_its_checks_are_answered(
    world: Callable[[], PairWorld],
) -> None:
    found = world()
    state, node = found.states(), found.hosts["a"]
    hide(found, "b")
    found.run(1.5)
    assert (node.path("b").state, node.path("b").alive) == (State.PROBING, False)
    assert node.core is not None
    assert node.core.history(key("b"))[-1].reason == GONE
    since = found.now
    found.run(30.0)
    assert node.path("b").state in (State.PROBING, State.UNKNOWN)
    assert "b" not in network_of(node)._up()
    assert not {Trigger.NOMINATED, Trigger.RELAY_READY, Trigger.ANSWERED} & set(triggers(node, since))
    show(found)
    found.until(lambda: found.states() == state, 3.0)
    assert node.path("b").alive


def test_a_path_in_doubt_is_none_either() -> None:
    world = direct()
    world.apart("a", "b")
    for _ in range(100):
        world.talk(0.1)
        if world.states()[0] == "suspect":
            break
    assert world.states()[0] == "suspect"
    hide(world, "b")
    world.run(1.5)
    assert world.hosts["a"].path("b").state is State.PROBING


def test_an_interface_that_is_made_anew_gets_its_paths_back() -> None:
    world = direct()
    node = world.hosts["a"]
    hide(world)
    world.run(5.0)
    assert not node.path("hub0").alive
    for tunnel in node.tunnels.values():
        tunnel.rx = tunnel.tx = 0
        tunnel.handshake_at = None
    node.tunnels[key("b")].endpoint = None
    show(world)
    world.until(lambda: world.states() == DIRECT and node.path("b").alive and node.path("hub0").alive, 40.0)


def test_nothing_is_set_at_an_anchor_that_is_no_peer_of_wireguards() -> None:
    world = relayed()
    hide(world, "hub0")
    world.run(2.0)
    since, node = world.now, world.hosts["a"]
    world.run(300.0)
    assert key("hub0") not in {a.peer for _, a in node.done(ev.SetEndpoint, since) if isinstance(a, ev.SetEndpoint)}
    show(world)
    world.talk(60.0)
    assert world.states() == RELAYED
    assert node.path("hub0").alive
