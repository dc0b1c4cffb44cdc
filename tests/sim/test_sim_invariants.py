"""Each invariant of the simulator can fail: agents that are doctored, or worlds, show it. Takes three seconds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import simbounds
import siminvariants
import simleft
import simwatch
from simnat import Behaviour
from simnode import Node
from simspec import Fault, Flow, WorldSpec
from simspecs import EASY, HARD, NEVER, SPLICED, found, spec_of
from simtrace import Meter
from simwatch import BINDING_REQUEST, Decided, Moved
from simworld import World

from meshctl.core.agent import events as ev
from meshctl.core.agent import liveness, relayclient, relaylease, signal, splice
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import MessageType, Offer
from meshctl.core.agent.checklist import STRANGERS_BURST
from meshctl.core.agent.config import AgentConfig, node_id
from meshctl.core.agent.gatherer import Gatherer
from meshctl.core.agent.history import Decision
from meshctl.core.agent.interfacecontext import InterfaceContext
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.relaychoice import Distances
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.agent.splice import MAX_SHOTS, VAIN_BURST
from meshctl.core.agentcore import AgentCore, PathStatus
from meshctl.core.wire import stun


class Doctored:
    """A core in front of which somebody changes what comes out; the rest is the core's."""

    def __init__(self, core: AgentCore, now: float) -> None:
        self.core, self.born = core, now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)


@pytest.fixture(name="doctor")
def _doctor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type[Doctored], str], None]]:
    def make(kind: type[Doctored], only: str) -> None:
        def core(config: AgentConfig, dice: random.Random, now: float, state: bytes) -> Any:
            made = AgentCore(config, dice, now, state)
            return kind(made, now) if config.name.startswith(only) else made

        monkeypatch.setattr(Node, "make_core", staticmethod(core))

    return make


def test_two_easy_nats_and_two_hard_ones_give_nothing_to_find() -> None:
    assert found(EASY) == set()
    assert found(NEVER) == set()


def test_a_splice_that_breaks_is_torn_down() -> None:
    world = World(SPLICED)
    assert world.run().findings == ()
    assert (State.SPLICING, Trigger.NOMINATED) in world.watch.rows, "there was one"
    assert not world.nodes["n0"].kernel.splices


def test_a_splice_that_never_hits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(SPLICED, faults=(), seconds=160.0)
    assert found(spec) == set()
    guesses = splice.guesses
    monkeypatch.setattr(splice, "guesses", lambda *args: guesses(*args)[:1])
    assert found(spec) == {"splices hit"}


class Raises(Doctored):
    def handle(self, event: ev.Event, now: float) -> None:
        if now > 3:
            raise ValueError("doctored")
        self.core.handle(event, now)


class Spins(Doctored):
    def poll_timeout(self) -> tuple[float, str]:
        return self.born, "nothing"


class Mute(Doctored):
    """Says and sends nothing."""

    def poll_action(self) -> ev.Action | None:
        while (action := self.core.poll_action()) is not None and not isinstance(action, ev.PollWg):
            pass
        return action


class Probeless(Doctored):
    """Loses every check but those that relays are bound with."""

    def poll_action(self) -> ev.Action | None:
        action = self.core.poll_action()
        while isinstance(action, ev.SendProbe) and action.remote.port not in range(40000, 50000):
            action = self.core.poll_action()
        return action


class Relays(Doctored):
    """Has WireGuard stay with the relay, whatever it says."""

    def poll_action(self) -> ev.Action | None:
        action = self.core.poll_action()
        while isinstance(action, ev.SetEndpoint) and action.address.port not in RELAY_PORTS:
            action = self.core.poll_action()
        return action


class Boasts(Doctored):
    def paths(self) -> tuple[PathStatus, ...]:
        return tuple(p._replace(state=State.DIRECT) for p in self.core.paths())


class Denies(Doctored):
    def paths(self) -> tuple[PathStatus, ...]:
        return tuple(p._replace(state=State.PROBING) for p in self.core.paths())


class Babbles(Doctored):
    """What leaves in place of checks is none."""

    def poll_action(self) -> ev.Action | None:
        action = self.core.poll_action()
        return replace(action, data=b"hello") if isinstance(action, ev.SendProbe) else action


class Chatters(Doctored):
    """Each check leaves a hundred times, and now and then one that nobody wanted."""

    left: tuple[int, ev.SendProbe] | None = None

    def poll_action(self) -> ev.Action | None:
        if self.left is not None and self.left[0]:
            self.left = (self.left[0] - 1, self.left[1])
            return self.left[1]
        action = self.core.poll_action()
        if isinstance(action, ev.SendProbe):
            self.left = (100, action)
        return action


class Restless(Doctored):
    """Asks where nobody is, ten times a second."""

    at = 0.0
    due = False

    def handle(self, event: ev.Event, now: float) -> None:
        self.core.handle(event, now)
        if now >= self.at:
            self.at, self.due = now + 0.1, True

    def poll_timeout(self) -> tuple[float, str] | None:
        return min(self.core.poll_timeout() or (self.at, ""), (self.at, "restless"))

    def poll_action(self) -> ev.Action | None:
        if self.due:
            self.due = False
            data = bytes.fromhex("000100002112a442") + bytes(12)
            return ev.SendProbe(Address("", 51820), Address("9.9.9.9", 9), data)
        return self.core.poll_action()


class Rings(Restless):
    """Has its timer ring as often, for nothing."""

    def poll_action(self) -> ev.Action | None:
        self.due = False
        return self.core.poll_action()


class Talks(Restless):
    """Says something to an anchor as often."""

    def poll_action(self) -> ev.Action | None:
        if self.due:
            self.due = False
            return ev.SendSignal("10.42.0.0", b"hello")
        return self.core.poll_action()


class Reads(Doctored):
    """Reads WireGuard's counters more often than it need."""

    every_s = 0.1
    at = 0.0

    def handle(self, event: ev.Event, now: float) -> None:
        self.core.handle(event, now)
        if now >= self.at and isinstance(event, ev.Wake):
            self.at = now + self.every_s
            self.core._actions.append(ev.PollWg())

    def poll_timeout(self) -> tuple[float, str] | None:
        return min(self.core.poll_timeout() or (self.at, ""), (self.at, "restless"))


class ReadsInSilence(Reads):
    """As if all paths were in use all the time."""

    every_s = liveness.SAMPLE_S


class Hoards(Doctored):
    def __init__(self, core: AgentCore, now: float) -> None:
        super().__init__(core, now)
        self.hoard = list(range(20_000))


class Noteless(Doctored):
    """Saves nothing."""

    def poll_action(self) -> ev.Action | None:
        action = self.core.poll_action()
        while isinstance(action, ev.SaveState):
            action = self.core.poll_action()
        return action


class Stays(Doctored):
    def handle(self, event: ev.Event, now: float) -> None:
        """Gives nothing back."""
        if not isinstance(event, ev.Reconfigured):
            self.core.handle(event, now)


class KeepsSplices(Doctored):
    """Takes no splice down."""

    def poll_action(self) -> ev.Action | None:
        action = self.core.poll_action()
        while isinstance(action, ev.RemoveSplice):
            action = self.core.poll_action()
        return action


class Nominates(Doctored):
    """Has all its checks say that it controls nothing, and wants this pair."""

    def poll_action(self) -> ev.Action | None:
        action = self.core.poll_action()
        if not isinstance(action, ev.SendProbe) or action.data[:2] != BINDING_REQUEST:
            return action
        says = stun.decode(action.data).message
        says = says._replace(use_candidate=True, ice_controlling=None, ice_controlled=1)
        return replace(action, data=stun.encode(says))


# Idle from when the anchors, whose first handshakes cross, have met for long.
QUIET, QUIET_NEVER = (replace(spec, seconds=60.0) for spec in (EASY, NEVER))
REBOUND = replace(EASY, faults=(Fault("rebind", 14.0, 0.0, "site0"),), quiet_at=14.0, seconds=60.0)


@pytest.mark.parametrize(
    ("kind", "only", "spec", "invariant"),
    [
        (KeepsSplices, "n", SPLICED, "splices are torn down"),
        (Nominates, "n0", EASY, "only the controlling side nominates"),
        (Babbles, "n0", EASY, "probes that are no STUN"),
        (Raises, "n0", EASY, "raised"),
        (Spins, "n0", EASY, "spins"),
        (Mute, "n0", EASY, "carries soon"),
        (Probeless, "n", EASY, "direct soon"),
        (Probeless, "n", EASY, "direct when possible"),
        (Mute, "n0", NEVER, "relayed otherwise"),
        (Boasts, "n", NEVER, "direct only when possible"),
        (Denies, "n0", EASY, "both ends agree"),
        (Relays, "n", EASY, "the kernel does what the agent says"),
        (Chatters, "n0", EASY, "probes are few"),
        (Restless, "n0", REBOUND, "calm is kept"),
        (Rings, "n0", REBOUND, "calm is kept"),
        (Talks, "n0", REBOUND, "calm is kept"),
        (Restless, "n0", QUIET, "silence is kept"),
        (Restless, "n0", QUIET_NEVER, "silence is kept"),
        (Restless, "a0", QUIET, "silence is kept"),
        (Reads, "n0", EASY, "readings are few"),
        (ReadsInSilence, "n0", EASY, "readings are few"),
        (Hoards, "n0", EASY, "memory is bounded"),
        (Noteless, "a", NEVER, "relays are known"),
        (Stays, "n0", EASY, "leases are given back"),
    ],
)
def test_a_doctored_agent_is_found(
    doctor: Callable[[type[Doctored], str], None], kind: type[Doctored], only: str, spec: WorldSpec, invariant: str
) -> None:
    doctor(kind, only)
    assert invariant in found(spec)


@pytest.mark.parametrize("far", ["a0", "a1"])
def test_who_goes_by_the_anchor_that_is_far_away_is_found(monkeypatch: pytest.MonkeyPatch, far: str) -> None:
    spec = replace(NEVER, nodes=tuple(replace(n, far_s=0.05 * (n.name == far)) for n in NEVER.nodes))
    assert found(spec) == set()
    distance = Distances.of
    monkeypatch.setattr(Distances, "of", lambda *args: -distance(*args))
    assert found(spec) == {"relays are near"}


def test_an_outage_without_a_fault_is_found() -> None:
    flow = Flow("n0", "n1", 1.0, 0.1, 39.0)
    world = World(spec_of(Behaviour(), Behaviour(), flows=(flow,)))
    cable = world.sites["site1"].cable
    for when, up in ((20.0, False), (22.0, True)):
        world.clock.at(when, lambda up=up: setattr(cable, "up", up))
    assert "every outage has a cause" in {f.invariant for f in world.run().findings}


def test_a_tunnel_that_ends_dead_is_found() -> None:
    flow = Flow("n0", "n1", 1.0, 0.1, 40.0)
    world = World(spec_of(Behaviour(), Behaviour(), flows=(flow,)))
    world.clock.at(32.0, lambda: setattr(world.sites["site1"].cable, "up", False))
    assert "the last pings are answered" in {f.invariant for f in world.run().findings}


def test_a_flow_in_one_direction_that_is_lost_and_one_for_which_the_path_is_ever_in_doubt_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow = Flow("n0", "n1", 1.0, 0.2, 40.0, one_way=True)
    spec = spec_of(Behaviour(), Behaviour(), flows=(flow,))
    assert found(spec) == set()
    world = World(spec)
    world.clock.at(32.0, lambda: setattr(world.sites["site1"].cable, "up", False))
    assert "the last pings are answered" in {f.invariant for f in world.run().findings}
    monkeypatch.setattr(liveness, "UNANSWERED_MAX_S", liveness.UNANSWERED_S)
    assert found(spec) == {"paths rest"}


def test_a_path_that_is_left_without_a_cause_and_one_that_moves_too_often_are_found() -> None:
    world = World(EASY)
    world.run()
    assert list(siminvariants.no_live_path_is_abandoned(world)) == []
    decision = Decision(20.0, State.SUSPECT, State.PROBING, Trigger.DEAD, "doctored")
    world.watch.decided.append(Decided(20.0, "n0", "n1", decision))
    world.watch.moved += [Moved(20.0, "n0", "n1", ("1.1.1.1", n)) for n in range(20)]
    assert [who for who, _ in siminvariants.no_live_path_is_abandoned(world)] == ["n0"]
    assert [who for who, _ in simbounds.paths_change_seldom(world)] == ["n0"]


@pytest.mark.parametrize(
    ("fault", "at", "regained_at", "excused"),
    [
        (Fault("clock", 20.0, 0.0, "n0", "60.0"), 20.5, None, False),
        (Fault("override", 20.0, 5.0, "n0", "n1 relay"), 20.5, None, True),
        (Fault("override", 20.0, 5.0, "n0", "n2 relay"), 20.5, None, False),
        (Fault("unplug", 10.0, 4.0, "n0"), 18.5, None, True),
        (Fault("unplug", 10.0, 4.0, "n0"), 20.5, None, False),
        (Fault("rebind", 10.0, 0.0, "site1"), 30.5, None, True),
        (Fault("rebind", 10.0, 0.0, "site1"), 14.5, 12.0, True),
        (Fault("rebind", 10.0, 0.0, "site1"), 30.5, 20.0, False),
        (Fault("rebind", 10.0, 0.0, "site7"), 12.0, None, False),
    ],
)
def test_a_fault_excuses_what_it_can_do_for_as_long_as_it_can(
    fault: Fault, at: float, regained_at: float | None, excused: bool
) -> None:
    world = World(EASY)
    world.run()
    world.spec = replace(EASY, faults=(fault,))
    if regained_at is not None:
        regained = Decision(regained_at, State.PROBING, State.DIRECT, Trigger.NOMINATED, "doctored")
        world.watch.decided.append(Decided(regained_at, "n0", "n1", regained))
    decision = Decision(at, State.SUSPECT, State.PROBING, Trigger.DEAD, "doctored")
    world.watch.decided.append(Decided(at, "n0", "n1", decision))
    assert [who for who, _ in siminvariants.no_live_path_is_abandoned(world)] == ([] if excused else ["n0"])


def test_a_relay_that_is_left_without_a_cause_and_a_path_that_dies_again_and_again_are_found() -> None:
    world = World(EASY)
    world.run()
    left = Decision(20.0, State.RELAYED, State.PROBING, Trigger.RELAY_LOST, "doctored")
    died = Decision(20.0, State.SUSPECT, State.PROBING, Trigger.DEAD, "doctored")
    asked = (simleft.no_live_relay_is_abandoned, simleft.paths_die_seldom)
    world.watch.decided.append(Decided(20.0, "n0", "n1", died))
    assert [list(invariant(world)) for invariant in asked] == [[], []]
    world.watch.decided += [Decided(20.0, "n0", "n1", decision) for decision in (left, died)]
    assert [[who for who, _ in invariant(world)] for invariant in asked] == [["n0"], ["n0"]]


def test_an_agent_that_is_woken_all_the_time_is_found() -> None:
    world = World(EASY)
    world.run()
    assert list(simbounds.wakes_are_few(world)) == []
    world.watch.woken["n0"] += 100
    assert [who for who, words in simbounds.wakes_are_few(world) if "idle" in words] == ["n0"]
    world.watch.woken["n0"] += int(200 * world.clock.now)
    assert [who for who, _ in simbounds.wakes_are_few(world)] == ["n0", "n0"]


def test_an_agent_that_is_woken_far_more_often_than_it_sets_and_shoots_and_reads_is_found() -> None:
    world = World(EASY)
    world.run()
    world.watch.woken["n0"] += int(35 * world.clock.now)
    assert "n0" in {who for who, words in simbounds.wakes_are_few(world) if "idle" not in words}


def test_relays_that_are_not_used_and_bound_again_and_again_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (relaylease, relayclient):
        monkeypatch.setattr(module, "REBIND_S", 1.6)
        monkeypatch.setattr(module, "IDLE_GAP_S", 0.2)
    assert found(QUIET_NEVER) == {"silence is kept"}


def test_what_is_more_than_is_noted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simwatch, "_MAX_NOTED", 3)
    assert found(EASY) == {"more happened than is noted"}


def test_a_victim_that_is_struck_too_often_is_found_in_a_second_and_in_all() -> None:
    nodes = tuple(replace(n, kind="malicious") if n.name == "n1" else n for n in EASY.nodes)
    world = World(replace(EASY, nodes=nodes))
    world.victim.struck.add(None, 1.0)
    assert list(simbounds.victims_are_spared(world)) == []
    for _ in range(100):
        world.victim.struck.add(None, 1.0)
    assert [words for _, words in simbounds.victims_are_spared(world)] == ["101 packets in a second, of 1 pairs"]
    for second in range(2, 502):
        world.victim.struck.add(None, second)
    assert len(list(simbounds.victims_are_spared(world))) == 2


def test_a_victim_may_be_shot_at_in_so_many_attempts_as_may_be_in_vain_of_each_agent_that_was_started() -> None:
    nodes = tuple(replace(n, kind="malicious") if n.name == "n1" else n for n in EASY.nodes)
    world = World(replace(EASY, nodes=nodes))
    splicing = Decision(0.0, State.RELAYED, State.SPLICING, Trigger.SPLICE_BEGUN, "doctored")

    def most() -> int:
        while not list(simbounds.victims_are_spared(world)):
            world.victim.struck.add(None, world.victim.struck.total // 50)
        total, world.victim.struck = world.victim.struck.total, Meter()
        return total

    limits = [most()]
    for _ in range(5):
        world.watch.decided.append(Decided(0.0, "n0", "n1", splicing))
        limits.append(most())
    assert limits == [STRANGERS_BURST + MAX_SHOTS * min(tries, VAIN_BURST) + 1 for tries in range(6)]
    world.watch.starts["n0"] = 2
    assert most() == 2 * STRANGERS_BURST + MAX_SHOTS * 5 + 1
    world = World(replace(EASY, nodes=nodes, faults=(Fault("pair ends", 5.0, 1.0, "n0", "n1"),)))
    assert most() == 2 * STRANGERS_BURST + 1, "once more when the peer is one again"


def test_a_path_that_is_doubted_again_and_again_is_found() -> None:
    world, decision = World(EASY), Decision(0.0, State.DIRECT, State.SUSPECT, Trigger.DISTRESS, "doctored")
    for n in range(1, 8):
        at = EASY.seconds - n
        world.clock.at(at, lambda at=at: world.watch.decided.append(Decided(at, "n0", "n1", decision)))
    assert {(f.invariant, f.who) for f in world.run().findings} == {("paths rest", "n0")}


def test_what_is_wrong_in_one_act_is_found_at_once() -> None:
    world = World(EASY)
    node, outsider = world.nodes["n0"], Address("83.66.0.1", 51820)
    world.watch.endpoint(node, "n1", outsider)
    world.watch.relay(world.nodes["a0"], ev.InstallRelay(40000, outsider, Address("81.0.0.1", 1)))
    keys = {n.name: node_id(n.public_key) for n in world.identities}
    header = signal.Header(MessageType.OFFER, keys["n0"], b"stranger", bytes(8), bytes(8), 1)
    world.watch.signal(node, ev.SendSignal("10.42.0.1", signal.encode(header, Offer(1), bytes(32))))
    names = [f.invariant for f in world.watch.findings]
    assert names == ["endpoint of nobody's", "replay moves a relay", "candidates of unpermitted pairs"]


def test_what_is_left_of_who_is_no_peer_any_more_is_found_when_the_agent_has_read_that() -> None:
    world = World(EASY)
    node = world.nodes["n0"]
    world.watch.reconfigured(node)
    assert world.watch.findings == []
    node.kernel.opened["a stranger's key"] = (40001,)
    node.kernel.relays[40000] = Address("81.0.0.1", 1), Address("81.0.1.1", 1)
    world.watch.reconfigured(node)
    assert [f.invariant for f in world.watch.findings] == ["a relay outlives its pair", "open ports outlive their peer"]


def routers(spec: WorldSpec, **changes: Any) -> WorldSpec:
    """The same where the two nodes have addresses that sort before their own and lead nowhere."""
    return replace(spec, nodes=tuple(replace(n, **changes) if n.kind == "node" else n for n in spec.nodes))


def test_an_agent_that_asks_from_the_first_addresses_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = routers(NEVER, others=5, gateless=True)
    assert not found(spec)
    monkeypatch.setattr(Gatherer, "_widen", lambda self, _now: setattr(self, "_widen_at", None))
    none_in_vain = property(lambda _self: Counter(), lambda _self, _value: None)
    monkeypatch.setattr(Gatherer, "_vain", none_in_vain, raising=False)
    assert "relayed otherwise" in found(spec)


def test_an_agent_that_takes_a_bridges_nat_for_its_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = routers(spec_of(HARD, Behaviour(), 1), second=True, gateless=True)
    assert not found(spec)
    monkeypatch.setattr(InterfaceContext, "nat_summary", lambda self, now: self.nat.summary(self.own.bases(), now))
    assert found(spec) == {"splices are tried"}
