"""Time and memory of child processes, and a description of the machine without anything that identifies it."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Other programs' environments, generated inventories, and results. Not committed.
CACHE = ROOT / ".bench"

# Every program runs from its bytecode, as it does where it was installed, also where an environment forbids to keep it.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}


@dataclass(frozen=True)
class Run:
    """One child process: wall seconds from fork to exit, peak resident memory in MiB, and its standard output."""

    wall_s: float
    peak_mib: float
    stdout: str


def run(
    words: Sequence[str | Path], *, cwd: Path = ROOT, environment: Mapping[str, str] | None = None,
    allowed: Sequence[int] = (0,),
) -> Run:
    """Run to the end. Raises SystemExit with the program's own words when its status is not in `allowed`."""
    argv = [str(word) for word in words]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        child = subprocess.Popen(
            argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
            env={**os.environ, **COMPILED, **(environment or {})},
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)  # reaped here, for its own usage
        out.seek(0)
        text = out.read().decode(errors="replace")
        if child.returncode not in allowed:
            errors.seek(0)
            said = (text + errors.read().decode(errors="replace"))[-4000:]
            raise SystemExit(f"bench: {' '.join(argv)} ended with {child.returncode}:\n{said}")
    return Run(wall, usage.ru_maxrss / 1024, text)


def alternate(commands: Mapping[str, Sequence[str | Path]], rounds: int) -> dict[str, float]:
    """Median wall seconds of each command, in turns, so that a slow moment of the machine hits all of them."""
    for words in commands.values():
        run(words)  # fill the page cache and the .pyc files
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, words in commands.items():
            times[name].append(run(words).wall_s)
    return {name: statistics.median(values) for name, values in times.items()}


def environment_of(name: str, *requirements: str) -> Path:
    """The `bin` folder of a virtual environment of that name that holds `requirements`; made on first use."""
    folder = CACHE / name
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"==> bench: installing {', '.join(requirements)}", file=sys.stderr)
        run([sys.executable, "-m", "venv", "--clear", folder])
        run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements])
        stamp.write_text(wanted, encoding="utf-8")
    return folder / "bin"


def machine() -> dict[str, str]:
    """What a reader needs to judge the figures."""
    memory = resource.getpagesize() * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
    }
