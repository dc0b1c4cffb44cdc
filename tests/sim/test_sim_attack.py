"""Who means harm. Hunted: an attack that is over before it begins, because nobody takes it for what it seems to be."""

from __future__ import annotations

import random

from simattack import made_up
from simdraw import draw
from simworld import World

from meshctl.core.wire import stun
from meshctl.core.wire.error import WireError

KNOWN = stun.Message(stun.Class.REQUEST, b"known to all", username="a:b")


def test_most_of_the_stun_that_is_made_up_is_read_as_such_and_is_of_all_kinds() -> None:
    dice = random.Random(1)  # noqa: S311
    read: list[stun.Received] = []
    for _ in range(1_000):
        try:
            read.append(stun.decode(made_up(KNOWN, dice)))
        except WireError:
            continue
    assert 800 < len(read) < 1_000
    assert {r.message.message_class for r in read} == set(stun.Class)
    assert {r.message.username for r in read} >= {None, KNOWN.username}
    assert {r.message.transaction == KNOWN.transaction for r in read} == {True, False}
    assert not any(r.is_authentic(b"the pair's") for r in read)
    lately = [r.message for r in read if r.message.transaction == KNOWN.transaction]
    assert any(m.message_class is stun.Class.SUCCESS and m.xor_mapped_address for m in lately)
    assert any(m.message_class is stun.Class.ERROR and m.error for m in lately)


def test_a_peer_that_names_a_victim_is_believed_at_first() -> None:
    spec = next(s for s in map(draw, range(100)) if any(n.kind == "malicious" for n in s.nodes) and len(s.pairs) > 4)
    world = World(spec)
    assert world.run().findings == ()
    assert world.victim.struck.total > 100
