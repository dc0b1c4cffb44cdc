"""`make test`'s second look at what fails on a machine whose time is not its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("run", ROOT / "tests" / "run.py")
assert _SPEC is not None
assert _SPEC.loader is not None
run = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(run)


def clock(share: float) -> Callable[[], tuple[int, int]]:
    """Of a machine that gives others so much of its time."""
    ticks = count()
    return lambda: (1000 * (now := next(ticks)), round(1000 * share * now))


class Runner:
    """Runs that end as told and leave these failures behind, and what they were asked for."""

    def __init__(self, last_failed: Path, failed: list[str], statuses: list[int], *, hung: bool = False) -> None:
        self._last_failed, self._failed, self._statuses, self._hung = last_failed, failed, statuses, hung
        self.runs: list[list[str]] = []

    def __call__(self, *words: str) -> int:
        self.runs.append(list(words))
        if self._failed:
            self._last_failed.write_text(json.dumps(dict.fromkeys(self._failed, True)))
        if self._hung:
            self._last_failed.with_name(run.GUEST_HUNG).touch()
        return self._statuses.pop(0)


FAILED = ["tests/b.py::test_two[x]", "tests/a.py::test_one", "tests/b.py::test_one"]


@pytest.mark.parametrize("second", [0, 1])
def test_files_with_failures_are_run_again_where_others_had_the_machine_and_that_counts(
    tmp_path: Path, second: int
) -> None:
    cache = tmp_path / "lastfailed"
    cache.write_text(json.dumps({"tests/earlier.py::test_it": True}))
    runner = Runner(cache, FAILED, [1, second])
    assert run.main(["-n", "2"], runner, clock(0.05), cache) == second
    assert runner.runs == [["-n", "2"], ["tests/a.py", "tests/b.py"]]


def test_files_with_failures_are_run_again_where_the_emulators_guest_hung(tmp_path: Path) -> None:
    cache = tmp_path / "lastfailed"
    runner = Runner(cache, FAILED, [1, 0], hung=True)
    assert run.main([], runner, clock(0.0), cache) == 0
    assert runner.runs[1:] == [["tests/a.py", "tests/b.py"]]


def test_the_guests_leave_word_there() -> None:
    assert f'"{run.GUEST_HUNG}"' in (ROOT / "tests" / "kernel" / "kernel_guest.py").read_text(encoding="utf-8")


def test_that_a_guest_hung_in_another_run_says_nothing_of_this_one(tmp_path: Path) -> None:
    cache = tmp_path / "lastfailed"
    cache.with_name(run.GUEST_HUNG).touch()
    assert run.main([], Runner(cache, FAILED, [1]), clock(0.0), cache) == 1


@pytest.mark.parametrize(
    ("share", "failed", "status"),
    [
        pytest.param(0.0, FAILED, 1, id="its time is its own"),
        pytest.param(0.5, FAILED, 2, id="interrupted"),
        pytest.param(0.5, [], 1, id="a test was skipped"),
        pytest.param(0.5, [], 0, id="all is well"),
        pytest.param(0.5, [f"tests/{n}.py::test_it" for n in range(9)], 1, id="too much fails"),
    ],
)
def test_what_is_not_the_machines_is_not_run_again(
    tmp_path: Path, share: float, failed: list[str], status: int
) -> None:
    cache = tmp_path / "lastfailed"
    cache.write_text(json.dumps({"tests/earlier.py::test_it": True}))
    runner = Runner(cache, failed, [status])
    assert run.main([], runner, clock(share), cache) == status


def test_the_machines_times_are_read() -> None:
    before, after = run.times(), run.times()
    assert 0 < before[0] <= after[0]
    assert 0 <= before[1] <= before[0]


def test_pytests_list_of_failures_is_read(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_it.py").write_text("def test_it(): assert False\n")
    pytest_here = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), str(tmp_path / "test_it.py")]
    assert subprocess.run(pytest_here, check=False, capture_output=True, cwd=tmp_path).returncode == 1
    assert run.files_with_failures(tmp_path / ".pytest_cache" / "v" / "cache" / "lastfailed") == ["test_it.py"]


def test_make_uses_it() -> None:
    assert (ROOT / "Makefile").read_text(encoding="utf-8").count("$(BIN)/python tests/run.py") == 3
