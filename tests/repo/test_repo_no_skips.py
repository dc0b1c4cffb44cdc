"""`make test` fails when a test was not run: the plugin that sees to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_pytest(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_x.py").write_text(f"import pytest\n\n{body}\n", encoding="utf-8")
    plugins = str(ROOT / "tests" / "plugins")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no_skips", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        cwd=folder, env={**os.environ, "PYTHONPATH": plugins, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "mark", ['@pytest.mark.skip(reason="x")', '@pytest.mark.skipif(True, reason="x")', '@pytest.mark.xfail(reason="x")']
)
def test_a_run_with_a_test_that_was_not_run_fails_and_names_it(tmp_path: Path, mark: str) -> None:
    done = run_pytest(tmp_path, f"def test_a(): pass\n\n{mark}\ndef test_b(): assert False")
    assert done.returncode == 1
    assert "NOT RUN test_x.py::test_b" in done.stdout


def test_a_run_in_which_all_tests_passed_passes(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "def test_a(): pass")
    assert done.returncode == 0, done.stdout


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, "def test_a(): assert False").returncode == 1


def test_the_makefile_loads_the_plugin() -> None:
    assert '"-p", "no_skips"' in (ROOT / "tests" / "run.py").read_text(encoding="utf-8")
