"""Coverage-guided fuzzing (libFuzzer by way of atheris) of all that strangers, routers and peers can have parsed.

Runs each target for so long, two at a time, and prints how many inputs each has tried. A target goes on from what is
kept in .fuzz/NAME/corpus. What is found is kept as .fuzz/NAME/found-…, and is printed with the command that tries it
again without the fuzzer; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "fuzz"), str(ROOT / "tests" / "agentcore")]
_KEPT = ROOT / ".fuzz"
_AT_ONCE = 2
_TRIED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERED = re.compile(r"cov: (\d+)")
_WRITTEN = re.compile(r"Test unit written to (.+)")
_SHOWN = 30  # lines at the end of what libFuzzer says (stderr), and of the traceback (stdout)


def fuzz(name: str, seconds: int) -> None:
    """In a process of its own, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["meshctl"]):
        from fuzztargets import TARGETS
    target, folder = TARGETS[name], _KEPT / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.begin()):
        (corpus / f"begin-{number}").write_bytes(data[: target.max_bytes])
    words = [
        sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-max_len={target.max_bytes}", "-print_final_stats=1",
        f"-artifact_prefix={folder}/found-", "-timeout=10", "-rss_limit_mb=1024",
    ]  # fmt: skip

    def once(data: bytes) -> None:  # to libFuzzer, what is returned would mean something
        target.run(data)

    atheris.Setup(words, once)
    atheris.Fuzz()


def one(name: str, seconds: int) -> tuple[str, bool]:
    """What came of a target, in words, and whether something was found."""
    argv = [sys.executable, __file__, "--run", str(seconds), name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    tried, covered = _TRIED.search(done.stderr), _COVERED.findall(done.stderr)
    if done.returncode == 0 and tried is not None:
        return f"{name:8} {int(tried[1]):>12,} inputs, {covered[-1] if covered else 0:>5} edges", False
    again = [f"{sys.executable} {__file__} --input {path} {name}" for path in _WRITTEN.findall(done.stderr)]
    said = [*done.stderr.splitlines()[-_SHOWN:], *done.stdout.splitlines()[-_SHOWN:]]
    title = "FOUND; to try it again:" if again else f"did not run (exit code {done.returncode})"
    return "\n".join([f"{name:8} {title}", *again, *said]), True


def all_of(names: list[str], seconds: int) -> int:
    """1 when something was found."""
    found = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for future in [pool.submit(one, name, seconds) for name in names]:
            words, is_finding = future.result()
            print(words, flush=True)
            found += is_finding
    return 1 if found else 0


def main() -> int:
    """What is asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--minutes", type=float, default=10.0, help="how long each target is fuzzed (%(default)g)")
    what.add_argument("--input", type=Path, metavar="FILE", help="try this input once, without the fuzzer")
    what.add_argument("--run", type=int, metavar="SECONDS", help="fuzz one target in this process (it does so itself)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a target (all of them)")
    options = parser.parse_args()
    if options.run is not None and len(options.names) == 1:
        fuzz(options.names[0], options.run)  # imports the targets itself, with eyes for what an input covers
        return 0
    from fuzztargets import TARGETS

    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))} (there are {', '.join(TARGETS)})")
    if (options.input or options.run) and len(options.names) != 1:
        parser.error("--input and --run take the name of one target")
    if options.input:
        is_read = TARGETS[options.names[0]].run(options.input.read_bytes())
        print("read" if is_read else "refused")
        return 0
    return all_of(options.names or list(TARGETS), round(options.minutes * 60))


if __name__ == "__main__":
    sys.exit(main())
