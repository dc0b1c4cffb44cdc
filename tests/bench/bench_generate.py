"""From one description of a full mesh to every node's config: meshctl against wg-meshconf.

meshctl reads YAML, validates, allocates from the lock and derives a pre-shared key for every pair; wg-meshconf reads
its CSV and writes files, without pre-shared keys (it has none). Both are whole processes, start-up included.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_meshes
from measure import ROOT, Run, environment_of, run

WG_MESHCONF = "wg-meshconf==2.5.1"
SIZES = (100, 300, 1000)
ROUNDS = 5


def database(tool: Path, folder: Path, count: int) -> Path:
    """wg-meshconf's CSV for the same mesh: the tool itself names the columns and makes the private keys."""
    path = folder / "database.csv"
    run([tool, "-d", path, "init"])
    with path.open(newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, columns, restval="", quoting=csv.QUOTE_ALL)
        rows.writeheader()
        for i in range(count):
            mesh_address = f"10.42.{i // 250}.{i % 250 + 1}/16,fd42:42::{i + 1:x}/48"
            endpoint = bench_meshes.public_address(i)
            port = bench_meshes.LISTEN_PORT
            rows.writerow({"Name": f"n{i:04}", "Address": mesh_address, "Endpoint": endpoint, "ListenPort": port})
    run([tool, "-d", path, "init"])
    return path


def _into(folder: Path, command: list[str | Path], count: int, environment: dict[str, str]) -> Run:
    """The same with files, all of which must be there afterwards."""
    folder.mkdir()
    done = run([*command, "--files", folder], environment=environment)
    assert len(list(folder.iterdir())) == count
    return done


def measure() -> list[dict[str, Any]]:
    """One row a size: seconds and MiB of both, and their ratio. Memory is the larger of all rounds."""
    tool = environment_of("wg-meshconf", WG_MESHCONF) / "wg-meshconf"
    program = ROOT / "tests" / "bench" / "generate_ours.py"
    rows = []
    for count in SIZES:
        with tempfile.TemporaryDirectory() as scratch:
            inventory = bench_meshes.write(Path(scratch, "ours"), count)
            secret = {"MESHCTL_SECRET": bench_meshes.SECRET, "PYTHONPATH": str(ROOT)}
            csv_file = database(tool, Path(scratch), count)
            theirs = Path(scratch, "theirs")
            command = [sys.executable, program, inventory]
            made = json.loads(run([*command, "--count"], environment=secret).stdout)
            # In turns, with the long run of wg-meshconf in the middle, so that a slow moment hits all of them.
            ours, written = [], []
            for turn in range(ROUNDS):
                if turn == ROUNDS // 2:
                    other = run([tool, "-d", csv_file, "genconfig", "-o", theirs])
                ours.append(run(command, environment=secret))
                # A new folder each time, as wg-meshconf has: to truncate an old file waits for the disk.
                written.append(_into(Path(scratch, f"files{turn}"), command, count, secret))
            assert made["peers"] == made["psks"] == count * (count - 1)
            for timed in (*ours, *written):  # the configs that were counted are those that were timed
                assert json.loads(timed.stdout) == {"files": count, "bytes": made["bytes"]}
            assert len(list(theirs.iterdir())) == count
            ours_s = statistics.median(r.wall_s for r in ours)
            rows.append({
                "nodes": count,
                "ours_s": ours_s,
                "ours_files_s": statistics.median(r.wall_s for r in written),
                "ours_mib": max(r.peak_mib for r in ours),
                "other_s": other.wall_s,
                "other_mib": other.peak_mib,
                "ratio": other.wall_s / ours_s,
                "ratio_files": other.wall_s / statistics.median(r.wall_s for r in written),
            })
            print(rows[-1], file=sys.stderr)
    return rows
