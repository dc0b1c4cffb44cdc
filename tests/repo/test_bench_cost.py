"""What the benchmark of cost makes of what it measured: ratios of rounds, what a process used, sections of the page."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

import cost_report
import cost_turn
import cost_watch
import pytest
from bench_path_cost import compared

from meshctl.agent.node.libc import Message


def cells(table: str) -> list[list[str]]:
    """A table's rows without its heads."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_the_ratio_is_the_median_of_the_rounds_ratios_and_not_of_the_medians() -> None:
    found = {"ours": [10.0, 20.0, 90.0], "theirs": [10.0, 40.0, 30.0]}
    assert compared("us ÷ them", found, "ours", "theirs", aim=0.9) == {
        "what": "us ÷ them", "one": 20.0, "other": 30.0, "ratio": 1.0, "aim": 0.9,
    }  # fmt: skip


def test_rounds_that_have_no_other_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compared("us ÷ them", {"ours": [1.0, 2.0], "theirs": [1.0]}, "ours", "theirs")


@pytest.mark.parametrize(
    ("ratio", "aim", "told"),
    [
        (0.99, 0.99, ["0.990", "≥ 0.99", "kept"]), (0.9899, 0.99, ["0.990", "≥ 0.99", "**missed**"]),
        (2.5, 2.0, ["2.500", "≥ 2.00", "kept"]), (0.1, None, ["0.100", "–", ""]),
    ],
)  # fmt: skip
def test_a_ratio_is_to_be_its_aim_at_least(ratio: float, aim: float | None, told: list[str]) -> None:
    row = {"what": "us ÷ them", "one": 455.4e6, "other": 1234e6, "ratio": ratio, "aim": aim}
    assert list(cost_report.compared(row, 1e6)) == ["us ÷ them", "455", "1,234", *told]


@pytest.mark.parametrize(
    ("mb", "cpu", "told"),
    [
        (40.0, 0.5, ["40 MB", "≤ 40 MB", "kept", "0.50 %", "≤ 0.5 %", "kept"]),
        (41.0, 0.4, ["41 MB", "≤ 40 MB", "**missed**", "0.40 %", "≤ 0.5 %", "kept"]),
        (39.0, 0.6, ["39 MB", "≤ 40 MB", "kept", "0.60 %", "≤ 0.5 %", "**missed**"]),
    ],
)
def test_memory_and_cpu_are_to_be_their_aims_at_most(mb: float, cpu: float, told: list[str]) -> None:
    row = {"peers": 100, "what": "asleep", "mb": mb, "mb_aim": 40.0, "cpu_percent": cpu, "cpu_aim": 0.5}
    section = cost_report.section({"through": [], "packets": [], "agent": [row]})
    assert cells(section.split("\n\n")[-1]) == [["asleep", "100", *told]]


def test_a_process_has_used_what_it_and_its_children_did() -> None:
    before = cost_watch.cpu_s(os.getpid())
    child = os.fork()
    if child == 0:
        _spin(0.3)
        os._exit(0)
    os.waitpid(child, 0)
    children = cost_watch.cpu_s(os.getpid()) - before
    assert 0.2 < children < 1.0
    _spin(0.3)
    assert cost_watch.cpu_s(os.getpid()) - before > children + 0.2


def _spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_resident_memory_is_what_the_kernel_says_it_is() -> None:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS:"))
    assert cost_watch.resident_mb(os.getpid()) == pytest.approx(int(line.split()[1]) * 1024 / 1e6, rel=0.1)


def test_an_address_is_masked_as_the_test_vectors_of_stun_have_it() -> None:
    # RFC 5769 section 2.2: XOR-MAPPED-ADDRESS of 192.0.2.1 port 32853.
    assert cost_turn.masked(("192.0.2.1", 32853)) == bytes.fromhex("0001a147e112a643")


def test_messages_lie_in_memory_as_the_kernel_reads_them() -> None:
    # struct mmsghdr of a 64-bit Linux: with another step the kernel would send what lies between two messages.
    assert ctypes.sizeof(Message) == 64
