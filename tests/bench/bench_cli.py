"""How long a person waits for `meshctl --help` and for `validate` of ten nodes, next to Python's own start."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_meshes
from measure import alternate

NODES = 10
ROUNDS = 31


def measure() -> list[dict[str, Any]]:
    """One row a command: median milliseconds, and how many times Python's own start that is."""
    program = Path(sys.executable).with_name("meshctl")
    with tempfile.TemporaryDirectory() as scratch:
        inventory = bench_meshes.write(Path(scratch), NODES)
        medians = alternate(
            {
                "python -c pass": [sys.executable, "-c", "pass"],
                "python -c 'import click'": [sys.executable, "-c", "import click"],
                "meshctl --help": [program, "--help"],
                f"meshctl validate, {NODES} nodes": [program, "validate", inventory],
            },
            ROUNDS,
        )
    start = medians["python -c pass"]
    return [{"command": name, "ms": s * 1000, "ratio": s / start} for name, s in medians.items()]
