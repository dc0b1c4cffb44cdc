"""`main.py all | NAME…`, such as `main.py cli paths`: measure, then write docs/benchmarks.md from the results."""

from __future__ import annotations

import json
import sys
from importlib import import_module

import report
from measure import CACHE, ROOT, machine

PATHS = ("paths", "path_places", "path_times", "path_losses", "path_cost", "path_nebula")
NAMES = ("cli", "generate", "apply", "safety", "policy", *PATHS)


# The simulator's oracle foretells what becomes of pairs; real agents run on the stage of their tests.
sys.path += [str(ROOT / "tests" / folder) for folder in ("sim", "agent")]


def main() -> None:
    """Run what is named; each keeps its results in .bench/results until it is run again."""
    asked = sys.argv[1:] or ["all"]
    unknown = [name for name in asked if name not in (*NAMES, "all")]
    if unknown:
        raise SystemExit(f"bench: no benchmark {unknown[0]!r}; there are all, {', '.join(NAMES)}")
    results = CACHE / "results"
    results.mkdir(parents=True, exist_ok=True)
    for name in NAMES if "all" in asked else asked:
        print(f"==> bench: {name}", file=sys.stderr)
        rows = import_module(f"bench_{name}").measure()
        found = {"machine": machine(), "rows": rows}
        (results / f"{name}.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
        kept = sorted(results.glob("*.json"))
        report.write({path.stem: json.loads(path.read_text(encoding="utf-8")) for path in kept})


if __name__ == "__main__":
    main()
