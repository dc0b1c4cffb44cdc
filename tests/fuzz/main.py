"""Coverage-guided fuzzing (libFuzzer by way of atheris) of all that strangers, routers and peers can have parsed.

`main.py MINUTES [NAME…]` runs each target for so long, two at a time, and prints how many inputs each has tried. What
is found is printed with its input, which `main.py --input FILE NAME` tries again; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "fuzz"), str(ROOT / "tests" / "agentcore")]
_AT_ONCE = 2
_TRIED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERED = re.compile(r"cov: (\d+)")
_SHOWN = 60  # lines of what an input has led to


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """In a process of its own, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["meshctl"]):
        from fuzztargets import TARGETS
    target = TARGETS[name]
    for number, data in enumerate(target.begin()):
        (corpus / str(number)).write_bytes(data[: target.max_bytes])
    words = [
        sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-max_len={target.max_bytes}", "-print_final_stats=1",
        f"-artifact_prefix={corpus}.found-", "-timeout=10", "-rss_limit_mb=1024",
    ]  # fmt: skip
    atheris.Setup(words, target.run)
    atheris.Fuzz()


def one(name: str, seconds: int, folder: Path) -> tuple[str, bool]:
    """What came of a target, in words, and whether something was found."""
    corpus = folder / name
    corpus.mkdir()
    argv = [sys.executable, __file__, "--run", str(corpus), str(seconds), name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    tried, covered = _TRIED.search(done.stderr), _COVERED.findall(done.stderr)
    if done.returncode == 0 and tried is not None:
        return f"{name:8} {int(tried[1]):>12,} inputs, {covered[-1] if covered else 0:>5} edges", False
    inputs = [f"{path.name}: {path.read_bytes().hex()}" for path in sorted(folder.glob(f"{name}.found-*"))]
    return "\n".join([f"{name:8} FOUND", *inputs, *(done.stdout + done.stderr).splitlines()[-_SHOWN:]]), True


def main() -> int:
    """Run; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    from fuzztargets import TARGETS

    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))} (there are {', '.join(TARGETS)})")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_AT_ONCE) as pool:
        each = [pool.submit(one, n, round(options.minutes * 60), Path(folder)) for n in options.names or TARGETS]
        found = 0
        for future in each:
            words, is_finding = future.result()
            print(words, flush=True)
            found += is_finding
    return 1 if found else 0


def again(path: Path, name: str) -> int:
    """One input, without the fuzzer."""
    from fuzztargets import TARGETS

    TARGETS[name].run(path.read_bytes())
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        fuzz(sys.argv[4], Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["--input"]:
        sys.exit(again(Path(sys.argv[2]), sys.argv[3]))
    else:
        sys.exit(main())
