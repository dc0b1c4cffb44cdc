"""What benchmarks of paths make of what they measured: times of one pair, rows of many runs, sections of the page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bench_path_nebula
import nebula_side
import paths_report
import paths_routers
import pytest
import report
from paths_pairs import row
from paths_way import DIRECT, NONE, RELAYED, Way, latest

OUTSIDE, ANCHOR, NOBODY = "198.51.100.7:51820", "203.0.113.10:51820", "(none)"
NEVER = float("inf")
MACHINE = {"cores": "2", "memory": "4 GiB", "system": "Debian", "kernel": "6.1", "python": "3.11"}


def way(*endpoints: tuple[float, str], sent: tuple[float, ...] = (), answered: dict[int, float] | None = None) -> Way:
    return Way(sent, answered or {}, endpoints, frozenset({"203.0.113.10", "2001:db8::10"}))


def cells(table: str) -> list[list[str]]:
    """A table's rows without its heads."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_a_peer_is_reached_as_the_last_endpoint_says() -> None:
    seen = way((1.0, NOBODY), (2.0, ANCHOR), (3.0, OUTSIDE), (4.0, "[2001:db8::10]:51820"))
    assert [seen.kind(at) for at in (0.5, 1.0, 2.5, 3.0, 4.0)] == [NONE, NONE, RELAYED, DIRECT, RELAYED]


@pytest.mark.parametrize(
    ("answered", "outcome"),
    [
        pytest.param(range(100), DIRECT, id="all along"),
        pytest.param([96], DIRECT, id="one of the last, while others are lost or under way"),
        pytest.param(range(90), NONE, id="not any more"),
        pytest.param([], NONE, id="never"),
    ],
)
def test_an_endpoint_that_does_not_answer_in_the_end_reaches_nobody(answered: Iterable[int], outcome: str) -> None:
    sent = tuple(float(second) for second in range(100))
    seen = way((1.0, OUTSIDE), sent=sent, answered={number: sent[number] + 0.1 for number in answered})
    assert seen.outcome() == outcome
    assert way((1.0, OUTSIDE)).outcome() == NONE, "nothing was asked"


@pytest.mark.parametrize(
    ("endpoints", "until", "seconds"),
    [
        pytest.param([(1.0, ANCHOR), (2.0, OUTSIDE)], NEVER, 0.0, id="direct since before"),
        pytest.param([(1.0, ANCHOR), (12.0, OUTSIDE)], NEVER, 2.0, id="relayed before"),
        pytest.param([(12.0, OUTSIDE)], NEVER, 2.0, id="nothing before"),
        pytest.param([(1.0, OUTSIDE), (11.0, ANCHOR), (14.0, OUTSIDE)], NEVER, 4.0, id="leaves and returns"),
        pytest.param([(11.0, OUTSIDE), (12.0, ANCHOR), (15.0, OUTSIDE)], NEVER, 5.0, id="comes, leaves and returns"),
        pytest.param([(1.0, OUTSIDE), (11.0, ANCHOR), (14.0, OUTSIDE)], 13.0, None, id="not back until then"),
        pytest.param([(1.0, OUTSIDE), (14.0, ANCHOR)], 13.0, 0.0, id="leaves after that"),
        pytest.param([(1.0, OUTSIDE), (12.0, OUTSIDE.replace("7:", "8:"))], NEVER, 0.0, id="another direct endpoint"),
        pytest.param([], NEVER, None, id="never"),
    ],
)
def test_direct_counts_from_when_it_stayed_so(
    endpoints: list[tuple[float, str]], until: float, seconds: float | None
) -> None:
    assert way(*endpoints).direct_s(10.0, until) == seconds


def test_the_longest_silence_may_be_at_either_end_of_the_time_or_between() -> None:
    seen = way(answered={0: 9.0, 1: 11.0, 2: 15.0, 3: 16.0})
    assert seen.silence_s(10.0, 17.0) == (4.0, 5.0)
    assert seen.silence_s(10.0, 30.0) == (14.0, 20.0)
    assert seen.silence_s(0.0, 17.0) == (9.0, 9.0)
    assert seen.silence_s(20.0, 25.0) == (5.0, 5.0)


def test_lost_are_questions_of_that_time_without_an_answer_however_late() -> None:
    assert way(sent=(1.0, 2.0, 3.0, 4.0, 5.0), answered={2: 90.0}).lost(2.0, 4.0) == 2


def test_a_first_answer_from_before_does_not_count() -> None:
    assert way(answered={0: 9.0, 1: 12.0, 2: 11.0}).first_s(10.0) == 1.0
    assert way(answered={0: 9.0}).first_s(10.0) is None


def test_a_pair_has_what_both_ends_have() -> None:
    assert latest([1.0, 3.0]) == 3.0
    assert latest([1.0, None]) is None


def test_a_row_has_the_nineteenth_of_twenty_and_its_aim() -> None:
    found = row("it rains", [float(number) for number in range(20, 0, -1)], aim=2.0)
    assert found == {"what": "it rains", "runs": 20, "of": 20, "median": 10.0, "p95": 19.0, "aim": 2.0}
    assert row("it rains", [1.0] * 19 + [None])["p95"] == 1.0
    assert row("it rains", [1.0] * 18 + [None] * 2)["p95"] == NEVER


def test_a_row_without_runs_is_never_and_misses_its_aim() -> None:
    assert cells(paths_report.times_section([row("it rains", [], aim=2.0)])) == [
        ["it rains", "0 of 20", "never", "never", "2.00 s", "**missed**"]
    ]


@pytest.mark.parametrize(
    ("runs", "aim", "elsewhere", "told"),
    [
        ([0.0] * 20, 0, 0, ["20", "0", "0", "0", "kept"]),
        ([0.0] * 18, 0, 0, ["18 of 20", "0", "0", "0", "kept"]),
        ([0.0] * 20, 0, 2, ["20", "0", "0", "0", "**2 ended elsewhere**"]),
        ([7.0] * 20, 0, 2, ["20", "7", "7", "0", "**missed**, **2 ended elsewhere**"]),
        ([7.0] * 20, None, 0, ["20", "7", "7", "–", ""]),
        ([7.0] * 20, None, 1, ["20", "7", "7", "–", "**1 ended elsewhere**"]),
    ],
)
def test_an_aim_is_kept_where_no_pair_ended_elsewhere(
    runs: list[float | None], aim: float | None, elsewhere: int, told: list[str]
) -> None:
    found = {**row("it rains", runs, aim=aim), "elsewhere": elsewhere, "before": DIRECT, "after": RELAYED}
    assert cells(paths_report.losses_section([found])) == [["it rains", "direct → relayed", *told]]


@pytest.mark.parametrize(
    ("outcome", "foretold", "told"),
    [
        ("direct", "direct", "kept"), ("direct", "spliced", "kept"), ("none", "unreachable", "kept"),
        ("relayed", "spliced", "**missed**"), ("direct / relayed", "direct", "**missed**"),
        ("none", "relayed", "**missed**"), ("direct", "unreachable", "**missed**"),
    ],
)  # fmt: skip
def test_an_outcome_is_to_be_what_was_foretold(outcome: str, foretold: str, told: str) -> None:
    seen = {"what": "two huts", "outcome": outcome, "oracle": foretold, "first_s": 4.0, "direct_s": None}
    assert cells(paths_report.places_section([seen])) == [["two huts", outcome, foretold, "4 s", "–", told]]


def results(what: str) -> dict[str, Any]:
    """Of one benchmark, as they are kept."""
    return {"path_times": {"machine": MACHINE, "rows": [row(what, [1.5, None], aim=2.0)]}}


def test_the_page_keeps_sections_that_were_not_measured_with_whatever_is_written_there(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{report.CLI}\nBy hand.\n\n{paths_report.TIMES}\nOld figures.\n", encoding="utf-8")
    report.write(results("it rains"), page)
    once = page.read_text(encoding="utf-8")
    assert f"{report.CLI}\nBy hand.\n\n{paths_report.TIMES}\n" in once
    assert "| it rains | 2 of 20 | 1.50 s | never | 2.00 s | **missed** |" in once
    assert "Old figures." not in once
    report.write(results("it rains"), page)
    assert page.read_text(encoding="utf-8") == once
    report.write({}, page)
    assert page.read_text(encoding="utf-8") == once


@pytest.mark.parametrize("head", [head for _, head, _ in report.SECTIONS], ids=report.title)
def test_the_page_says_of_each_benchmark_what_its_report_says(head: str) -> None:
    assert head in report.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        pytest.param([(300, 0), (290, 4)], DIRECT, id="both ends hear the other one"),
        pytest.param([(0, 300), (0, 300)], RELAYED, id="both hear anchors"),
        pytest.param([(300, 0), (0, 300)], RELAYED, id="one direction by an anchor"),
        pytest.param([(900, 300), (900, 300)], RELAYED, id="by an anchor, and many tries besides"),
        pytest.param([(300, 0), (149, 149)], NONE, id="one end hears too little"),
        pytest.param([(150, 0), (150, 0)], DIRECT, id="just enough"),
        pytest.param([(0, 0), (0, 300)], NONE, id="one end hears nothing"),
    ],
)
def test_a_pair_goes_as_its_routers_count(ends: list[tuple[int, int]], told: str) -> None:
    assert paths_routers.way_of([{DIRECT: a, RELAYED: b} for a, b in ends], 150) == told


def test_counters_are_read_from_what_nft_prints() -> None:
    listed = """{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
      {"counter": {"family": "inet", "name": "direct", "table": "seen", "handle": 1, "packets": 5, "bytes": 460}},
      {"counter": {"family": "inet", "name": "relayed", "table": "seen", "handle": 2, "packets": 0, "bytes": 0}}]}"""
    assert paths_routers.packets(listed) == {DIRECT: 5, RELAYED: 0}


def test_only_anchors_of_nebula_lead_and_all_others_are_told_of_them() -> None:
    inside = nebula_side.addresses(("mid", "a0"))
    assert inside == {"mid": "10.99.0.1", "a0": "10.99.0.2"}
    mid, end = (nebula_side.config(host, inside, {"mid": "203.0.113.10"}) for host in inside)
    assert (mid["lighthouse"], mid["relay"]) == ({"am_lighthouse": True}, {"am_relay": True})
    assert end["lighthouse"] == {"am_lighthouse": False, "hosts": ["10.99.0.1"]}
    assert end["relay"] == {"relays": ["10.99.0.1"]}
    assert mid["static_host_map"] == end["static_host_map"] == {"10.99.0.1": ["203.0.113.10:4242"]}


def test_pairs_behind_the_same_nats_are_one_row_of_all_their_runs() -> None:
    ours, other = bench_path_nebula.Found(), bench_path_nebula.Found()
    for number, pair in enumerate(bench_path_nebula.PAIRS[:2]):
        for seconds in (1.0, 2.0, None):
            ours.add(bench_path_nebula.FIRST, pair, seconds and seconds + number)
        ours.ways[pair] = [DIRECT, NONE]
        ours.add(bench_path_nebula.PATIENT, pair, 0.5)
        other.add(bench_path_nebula.FIRST, pair, 0.25)
    found = bench_path_nebula.rows(ours, other)
    easy = {r["what"]: (r["ours"], r["other"]) for r in found["times"] if r["nats"] == ("easy", "easy")}
    its = {"runs": 2, "of": 10, "median": 0.25, "worst": 0.25}
    assert easy[bench_path_nebula.FIRST] == ({"runs": 6, "of": 10, "median": 2.0, "worst": NEVER}, its)
    assert easy[bench_path_nebula.PATIENT] == ({"runs": 2, "of": 10, "median": 0.5, "worst": 0.5}, its)
    assert easy[bench_path_nebula.MOVED][1] == {"runs": 0, "of": 10, "median": NEVER, "worst": NEVER}
    assert found["ways"][0]["ours"] == {DIRECT: 2, RELAYED: 0, NONE: 2}


@pytest.mark.parametrize(
    ("ours", "other", "told"),
    [
        (1.0, 3.5, "meshctl by 2.50 s"), (3.5, 1.0, "**Nebula by 2.50 s**"), (1.0, 1.004, "both alike"),
        (1.0, NEVER, "meshctl"), (NEVER, 1.0, "**Nebula**"), (NEVER, NEVER, "both alike"),
    ],
)  # fmt: skip
def test_ahead_is_who_has_less(ours: float, other: float, told: str) -> None:
    assert paths_report.ahead(ours, other, "{:.2f} s") == told


def test_beside_nebula_more_direct_runs_and_fewer_seconds_are_ahead() -> None:
    nats = ["easy", "symmetric"]
    ways = {"nats": nats, "ours": {DIRECT: 4, RELAYED: 1, NONE: 0}, "other": {DIRECT: 0, RELAYED: 3, NONE: 2}}
    times = {
        "what": "first packet", "nats": nats, "ours": {"runs": 5, "of": 5, "median": 2.0, "worst": NEVER},
        "other": {"runs": 3, "of": 5, "median": 1.5, "worst": 3.0},
    }  # fmt: skip
    first, second = paths_report.beside_section({"version": "1.6.1", "ways": [ways], "times": [times]}).split("\n\n")
    assert cells(first) == [["easy – symmetric", "direct 4, relayed 1", "relayed 3, none 2", "meshctl by 4 runs"]]
    assert cells(second) == [
        ["first packet", "easy – symmetric", "5, 3 of 5", "2.00 s", "1.50 s", "**Nebula by 0.50 s**",
         "never", "3.00 s", "**Nebula**"]
    ]  # fmt: skip
