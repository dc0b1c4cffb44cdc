"""The path to one peer, as one table: what it is, what happens, what it becomes, and what is then to be done.

The table holds no timers and looks at no packet: what happens (a `Trigger`) is found out around it, and what is to be
done (an `Effect`) is done around it. docs/agent.md shows it as a diagram, which is generated from here.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class State(enum.Enum):
    """Where the peer's packets go."""

    UNKNOWN = "unknown"  # where the files say, if they say anything; its agent has not been heard
    PROBING = "probing"  # nowhere for sure; paths are being tried, and a relay is asked for
    RELAYED = "relayed"  # by way of an anchor
    SPLICING = "splicing"  # by way of an anchor, while ports are tried for a way through a hard NAT
    DIRECT = "direct"  # from end to end, by a pair that was checked
    SUSPECT = "suspect"  # so too, but there are signs that it is dead, and it is being checked


class Trigger(enum.Enum):
    """What happens."""

    SESSION = "session"  # its agent has answered
    ADOPTED = "adopted"  # so it has, and its tunnel works as it is: this agent was restarted, or comes late
    SESSION_LOST = "session lost"  # its agent has been silent, on every way, for too long
    RELAY_READY = "relay ready"  # both ends are bound to an anchor's port
    RELAY_LOST = "relay lost"  # the anchor, or our way to it, is dead; or an operator wants no relay
    NOMINATED = "nominated"  # a pair was checked and agreed on: the first, or one better by enough
    EXHAUSTED = "exhausted"  # a round of checks of all pairs is over, and none was agreed on
    SPLICE_BEGUN = "splice begun"  # one NAT is hard and the other easy, so that ports are being tried
    SPLICE_FAILED = "splice failed"  # no port was hit
    DISTRESS = "distress"  # signs that the path is dead: silence, a peer that sends from elsewhere, another network
    ANSWERED = "answered"  # the pair in use has answered a check
    DEAD = "dead"  # it has answered none, carries nothing but checks, or its address is not this node's any more
    DEMOTED = "demoted"  # an operator wants the relay, and it is ready


class Effect(enum.Enum):
    """What is to be done, in this order."""

    ASK_RELAY = "ask for a relay"
    USE_PAIR = "move the endpoint to the pair"
    USE_RELAY = "move the endpoint to the relay"
    CHECK_PAIRS = "check all pairs, quickly"
    CHECK_PATH = "check the pair in use, quickly"
    CHECK_RELAY = "ask the relay and the peer's agent whether they live"
    REST_CHECKS = "try no pairs again"
    END_SPLICE = "stop trying ports"
    RETRY_LATER = "try all pairs again, later each time"
    FORGET = "forget what was learned of the peer"


class Step(NamedTuple):
    """One row's right side."""

    state: State
    effects: tuple[Effect, ...] = ()


class IllegalTransitionError(Exception):
    """What cannot happen in a state has happened: a defect of ours. The state is as it was."""


_TABLE: dict[State, dict[Trigger, Step]] = {
    State.UNKNOWN: {
        Trigger.SESSION: Step(State.PROBING, (Effect.ASK_RELAY, Effect.CHECK_PAIRS)),
        # What works is kept until something better was checked.
        Trigger.ADOPTED: Step(State.SUSPECT, (Effect.ASK_RELAY, Effect.CHECK_PAIRS, Effect.CHECK_PATH)),
    },
    State.PROBING: {
        Trigger.RELAY_READY: Step(State.RELAYED, (Effect.USE_RELAY,)),
        Trigger.NOMINATED: Step(State.DIRECT, (Effect.USE_PAIR, Effect.REST_CHECKS)),
        Trigger.EXHAUSTED: Step(State.PROBING, (Effect.ASK_RELAY, Effect.RETRY_LATER)),
        Trigger.SESSION_LOST: Step(State.UNKNOWN, (Effect.FORGET,)),
    },
    State.RELAYED: {
        Trigger.NOMINATED: Step(State.DIRECT, (Effect.USE_PAIR, Effect.REST_CHECKS)),
        # Another anchor's port: the warm one, or a nearer one.
        Trigger.RELAY_READY: Step(State.RELAYED, (Effect.USE_RELAY,)),
        Trigger.RELAY_LOST: Step(State.PROBING, (Effect.ASK_RELAY, Effect.CHECK_PAIRS)),
        Trigger.EXHAUSTED: Step(State.RELAYED, (Effect.RETRY_LATER,)),
        Trigger.DISTRESS: Step(State.RELAYED, (Effect.CHECK_RELAY,)),
        # No effect: the splice has begun already, for only that shows whether it can.
        Trigger.SPLICE_BEGUN: Step(State.SPLICING),
        Trigger.SESSION_LOST: Step(State.UNKNOWN, (Effect.FORGET,)),
    },
    State.SPLICING: {
        Trigger.NOMINATED: Step(State.DIRECT, (Effect.USE_PAIR, Effect.END_SPLICE, Effect.REST_CHECKS)),
        Trigger.RELAY_READY: Step(State.SPLICING, (Effect.USE_RELAY,)),
        Trigger.RELAY_LOST: Step(State.PROBING, (Effect.ASK_RELAY, Effect.CHECK_PAIRS, Effect.END_SPLICE)),
        Trigger.SPLICE_FAILED: Step(State.RELAYED, (Effect.END_SPLICE, Effect.RETRY_LATER)),
        Trigger.EXHAUSTED: Step(State.SPLICING),
        Trigger.DISTRESS: Step(State.SPLICING, (Effect.CHECK_RELAY,)),
    },
    State.DIRECT: {
        Trigger.NOMINATED: Step(State.DIRECT, (Effect.USE_PAIR,)),
        Trigger.DISTRESS: Step(State.SUSPECT, (Effect.ASK_RELAY, Effect.CHECK_PATH)),
        Trigger.DEMOTED: Step(State.RELAYED, (Effect.USE_RELAY,)),
        # The tunnel works without an agent at the other end: nothing that works is touched.
        Trigger.SESSION_LOST: Step(State.DIRECT),
        Trigger.RELAY_READY: Step(State.DIRECT),
        Trigger.RELAY_LOST: Step(State.DIRECT),
        Trigger.EXHAUSTED: Step(State.DIRECT),
        Trigger.ANSWERED: Step(State.DIRECT),
    },
    State.SUSPECT: {
        Trigger.ANSWERED: Step(State.DIRECT, (Effect.REST_CHECKS,)),
        Trigger.NOMINATED: Step(State.DIRECT, (Effect.USE_PAIR, Effect.REST_CHECKS)),
        # If a relay is ready, RELAY_READY follows at once (`statemachine`).
        Trigger.DEAD: Step(State.PROBING, (Effect.ASK_RELAY, Effect.CHECK_PAIRS)),
        Trigger.DISTRESS: Step(State.SUSPECT),
        Trigger.RELAY_READY: Step(State.SUSPECT),
        Trigger.RELAY_LOST: Step(State.SUSPECT),
        Trigger.EXHAUSTED: Step(State.SUSPECT),
        Trigger.DEMOTED: Step(State.RELAYED, (Effect.USE_RELAY, Effect.REST_CHECKS)),
    },
}


def step(state: State, trigger: Trigger) -> Step:
    """What becomes of `state`. Raises IllegalTransitionError."""
    try:
        return _TABLE[state][trigger]
    except KeyError:
        raise IllegalTransitionError(f"{trigger.value} while {state.value}") from None


def rows() -> tuple[tuple[State, Trigger, Step], ...]:
    """The whole table, in the order in which it is written."""
    return tuple((state, trigger, found) for state, row in _TABLE.items() for trigger, found in row.items())
