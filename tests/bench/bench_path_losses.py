"""How many questions of hosts behind easy NATs, which ask each other all the time, are lost on an ordinary day.

Written up in docs/benchmarks.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paths_lab import NAME, UNIT, PathsLab
from paths_pairs import (
    HOSTS,
    OFTEN_S,
    PAIRS,
    ROUNDS,
    SETTLE_S,
    Pair,
    Windows,
    asked,
    at_once,
    both,
    fresh,
    in_turns,
    kinds,
    may_fail,
    pairs_lab,
    row,
    start_all,
)
from paths_way import DIRECT, RELAYED, Ways

from meshctl.lab import build

# A moment before what happens belongs to it: a question may still be on its way.
BEFORE_S = 0.5
RESTART = f"systemctl restart {UNIT}"
# As the role does it: another file, the link replaced in one step, the agent restarted.
UPGRADE = f"""
set -e
link=/opt/meshctl/meshctl-agent.pyz
new=/opt/meshctl/meshctl-agent-$(cut -c 1-8 /proc/sys/kernel/random/uuid).pyz
cp "$(readlink -f "$link")" "$new"
ln -s "$new" "$link.new"
mv -T "$link.new" "$link"
{RESTART}
"""
WATCH_S = 6.0
# So long an anchor that was switched off may take to boot and to be found again.
REBOOT_S = 20.0


@dataclass(frozen=True)
class Case:
    """What happens to pairs that go `before` one way and `after` another. `aim`: how many questions may be lost."""

    what: str
    before: str
    after: str
    happen: Callable[[], Windows]
    aim: float | None = 0


@dataclass
class Found:
    """Of the runs of one case that count: questions lost, and after how many the pair did not go as it should."""

    lost: list[float | None] = field(default_factory=list)
    elsewhere: int = 0

    def add(self, case: Case, ways: Ways, windows: Windows) -> None:
        """A round of runs. One whose pair went otherwise before does not count."""
        for pair, (begun, end) in windows.items():
            if kinds(ways, pair, begun) != {case.before}:
                print(f"    {case.what}: {pair} was not {case.before} before", file=sys.stderr)
                continue
            if kinds(ways, pair, end) != {case.after}:
                print(f"    {case.what}: {pair} is not {case.after} after it", file=sys.stderr)
                self.elsewhere += 1
            self.lost.append(sum(way.lost(begun - BEFORE_S, end) for way in both(ways, pair)))

    def row(self, case: Case) -> dict[str, Any]:
        """The case's row."""
        return {
            **row(case.what, self.lost, aim=case.aim),
            "elsewhere": self.elsewhere, "before": case.before, "after": case.after,
        }  # fmt: skip


def measure() -> list[dict[str, Any]]:
    """One row for each thing that happens."""
    here = pairs_lab()
    try:
        fresh(here)
        start_all(here)
        time.sleep(SETTLE_S)
        return [*while_direct(here), *there_and_back(here), *while_relayed(here)]
    finally:
        here.down()


def while_direct(here: PathsLab) -> list[dict[str, Any]]:
    """What must not touch a direct path."""
    doings: dict[str, Callable[[], Windows]] = {
        "nothing, for comparison": lambda: in_turns(lambda _: None, WATCH_S),
        "an end's agent restarts": lambda: in_turns(lambda pair: here.sh(pair[0], RESTART), WATCH_S),
        "an end's agent is upgraded": lambda: in_turns(lambda pair: here.sh(pair[0], UPGRADE), WATCH_S),
        "both anchors' agents restart": lambda: at_once(lambda: restart_anchors(here), WATCH_S),
        "an anchor is switched off and on": lambda: at_once(lambda: switch("mid"), REBOOT_S),
        "apply: all nodes get one more client": lambda: at_once(lambda: one_more(here), WATCH_S),
    }
    return [repeated(here, [Case(what, DIRECT, DIRECT, happen)])[0] for what, happen in doings.items()]


def there_and_back(here: PathsLab) -> list[dict[str, Any]]:
    """Live pairs are moved by the operator's word, which is then taken back."""

    def say(mode: str) -> Callable[[], Windows]:
        return lambda: in_turns(lambda pair: override(here, pair, mode), WATCH_S)

    there = Case("an operator's word moves it", DIRECT, RELAYED, say("relay"))
    return repeated(here, [there, Case("the word is taken back", RELAYED, DIRECT, say("auto"))])


def while_relayed(here: PathsLab) -> list[dict[str, Any]]:
    """What must not touch a relay, and what a relay dies of."""
    for pair in PAIRS:
        with may_fail("an operator's word"):
            override(here, pair, "relay")
    time.sleep(SETTLE_S)
    # The word does not outlive the agent: the end that restarts is the other one.
    doings: dict[str, Callable[[], Windows]] = {
        "an end's agent restarts": lambda: in_turns(lambda pair: here.sh(pair[1], RESTART), WATCH_S),
        "both anchors' agents restart": lambda: at_once(lambda: restart_anchors(here), WATCH_S),
    }
    cases = [Case(what, RELAYED, RELAYED, happen) for what, happen in doings.items()]
    cases.append(Case("its anchor is switched off and on", RELAYED, RELAYED, lambda: lose_anchor(here), aim=None))
    return [repeated(here, [case])[0] for case in cases]


def restart_anchors(here: PathsLab) -> None:
    """Their agents, at once."""
    here.everywhere(RESTART, set(here.anchors.values()))


def lose_anchor(here: PathsLab) -> Windows:
    """Switch off an anchor that relays, under the pairs that it relays. A pair that is not relayed now is left out."""
    relays = {pair: here.anchors.get(here.endpoint(*pair)) for pair in PAIRS}
    anchor = next((anchor for anchor in relays.values() if anchor), None)
    if anchor is None:
        return {}
    return at_once(lambda: switch(anchor), REBOOT_S, [pair for pair in PAIRS if relays[pair] == anchor])


def switch(anchor: str) -> None:
    """Cut its power, and boot it."""
    build.reboot(NAME, anchor, power_cut=True)


def override(here: PathsLab, pair: Pair, mode: str) -> None:
    """Say how the pair shall go."""
    here.sh(pair[0], f"meshctl-agent override {pair[1]} {mode}")


def one_more(here: PathsLab) -> None:
    """Every node gets a new peer, which concerns no pair."""
    guest = f"guest{len(here.document['nodes'])}"
    nodes = {**here.document["nodes"], guest: {"client": True}}
    policy = {"name": guest, "from": [guest], "to": list(HOSTS), "allow": ["icmp"]}
    here.apply(nodes=nodes, policies=[*here.document["policies"], policy])


def repeated(here: PathsLab, cases: list[Case]) -> list[dict[str, Any]]:
    """Let all of them happen one after another, again and again. A row for each."""
    found = [Found() for _ in cases]
    for _ in range(ROUNDS):
        for case, runs in zip(cases, found, strict=True):
            with may_fail(case.what):
                with here.meters(OFTEN_S, asked()) as ways:
                    time.sleep(1.0)
                    windows = case.happen()
                runs.add(case, ways, windows)
    return [runs.row(case) for case, runs in zip(cases, found, strict=True)]
