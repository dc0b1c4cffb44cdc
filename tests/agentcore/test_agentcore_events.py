"""Events and actions are values: they can be compared, hashed and kept, and nobody can change one that is under way."""

from __future__ import annotations

import dataclasses

import pytest

from meshctl.core.agent import events
from meshctl.core.agent.address import Address


def test_every_event_and_action_is_a_frozen_value_of_frozen_values() -> None:
    kinds = [*events.Event.__subclasses__(), *events.Action.__subclasses__()]
    assert len(kinds) > 20
    for kind in kinds:
        assert kind.__hash__ is not None
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[attr-defined]
        assert not [f.name for f in dataclasses.fields(kind) if f.type.startswith(("list", "dict", "set"))], kind


def test_an_action_is_equal_to_another_that_says_the_same() -> None:
    here, there = Address("192.0.2.1", 1), Address("192.0.2.2", 2)
    assert {events.SendProbe(here, there, b"x"), events.SendProbe(here, there, b"x")} == {
        events.SendProbe(Address.of("192.0.2.1", 1), there, b"x")
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        events.SendSignal("10.42.0.1", b"").data = b"x"  # type: ignore[misc]
