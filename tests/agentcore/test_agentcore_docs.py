"""docs/signalling.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from meshctl.core.agent import (
    config,
    probes,
    relayallocation,
    relaylease,
    relayserver,
    signal,
    splice,
    splice_situation,
)
from meshctl.core.agent.allowance import SESSIONS
from meshctl.core.agent.anchorduty import AGAIN_S, QUESTIONS_BURST, QUESTIONS_PER_S, TIMES
from meshctl.core.agent.bodies import KIND_NUMBERS, MessageType
from meshctl.core.agent.conversation import OFFERS_BURST, OFFERS_PER_S
from meshctl.core.agent.fields import Field
from meshctl.core.agent.relayallocation import BINDS_BURST, BINDS_PER_S, TOLD_BURST, TOLD_PER_S
from meshctl.core.agent.router import BURST, BURST_PER_PEER, RATE_PER_S, RATE_PER_S_AND_PEER
from meshctl.core.agent.session import WINDOW

PAGE = (Path(__file__).parents[2] / "docs" / "signalling.md").read_text(encoding="utf-8")


def rows(prefix: str) -> list[tuple[int, str]]:
    """Number and name of the rows of a table whose numbers look like that."""
    return [(int(number, 0), name) for number, name in re.findall(rf"^\| ({prefix}) \| (\w+) \|", PAGE, re.MULTILINE)]


def test_every_type_and_field_is_on_the_page_with_its_number() -> None:
    assert rows(r"\d+") == [(kind.value, kind.name) for kind in MessageType]
    assert rows(r"0x[0-9a-f]+") == [(field.value, field.name) for field in Field]


def test_the_figures_on_the_page_are_those_of_the_code() -> None:
    for text in (
        f"At most {signal.MAX_BYTES:,} bytes",
        f"the ttl ({signal.TTL})",
        f"one of the last {WINDOW}",
        f"its first {probes.NUMBER_BYTES} bytes",
        f"older than the last {probes.WINDOW:,}",
        f"{QUESTIONS_PER_S:.0f} a second are answered, and {QUESTIONS_BURST:.0f} at once",
        f"{BINDS_PER_S:.0f} a second, and {BINDS_BURST:.0f} at once",
        f"of the node's {('', 'one', 'two', 'three', 'four')[SESSIONS]} newest sessions",
        f"said {('', '', '', '', 'four', 'five', 'six')[TIMES]} times, {AGAIN_S:.0f}, {2 * AGAIN_S:.0f}",
        f"offers {OFFERS_PER_S:.0f} a second are read, and {OFFERS_BURST:.0f} at once",
        f"told of it {TOLD_PER_S:.0f} time a second, and {TOLD_BURST:.0f} times at once",
        f"Each source has {RATE_PER_S:.0f} messages a second, and {BURST:.0f} at once",
        f"{RATE_PER_S_AND_PEER:.0f} a second and {BURST_PER_PEER:.0f} at once for each peer of which it speaks",
        f"`{config.PAIR_KEY_SALT.decode()}`",
        f"asked again {relaylease.ASK_SOON_S:g} s later",
        f"are forwarded to after {relayallocation.TOGETHER_S:g} s, and after\n"
        f"{relayallocation.MEET_S:g} s where both have tried one",
        f"A lease lives for {relayserver.LIFETIME_S} s",
        f"every {relaylease.REBIND_S:.0f} s",
        f"the error {relayserver.TOO_EARLY}",
        f"the error {relayserver.STALE_NONCE}",
        f"in {sum(relaylease.CHECK_AGAIN_S):.1f} s, and it is lost",
        f"has as long as its answer takes, but {relaylease.SLOWEST_S:.0f} s in all",
        f"kind 1 ({', '.join(f'{number} {kind}' for kind, number in KIND_NUMBERS.items())})",
        f"({splice.OPENED}, each towards",
        f"at most {splice_situation.MAX_GUESSES:,} in an attempt",
        f"at most once in {splice.ACCEPTED_AGAIN_S:.0f} s",
        f"The ports are open for {splice.LISTEN_S:.0f} s, and {splice.BETWEEN_S:.0f} s pass",
        f"in {splice.VAIN_BURST:.0f} attempts in vain with one peer, and in one more every {splice.VAIN_AGAIN_S:.0f} s",
    ):
        assert text in PAGE
