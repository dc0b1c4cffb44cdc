"""Pack meshctl's own package, its data folders included, into one executable zip: `zip_package.py OUT.pyz`.

The dependencies stay outside: cryptography and others are native code, which Python does not import from a zip.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipapp
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[2]


def build(out: Path) -> None:
    """Build the wheel, for it is what says which files belong to the package, and repack it as a zipapp."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels, tree = Path(scratch, "wheels"), Path(scratch, "tree")
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, ROOT],
            check=True, stdout=subprocess.DEVNULL,
        )
        with ZipFile(next(wheels.glob("*.whl"))) as wheel:
            wheel.extractall(tree)
        out.parent.mkdir(parents=True, exist_ok=True)
        zipapp.create_archive(
            tree, out, interpreter="/usr/bin/env python3", main="meshctl.cli:main", compressed=True,
        )


if __name__ == "__main__":
    build(Path(sys.argv[1]))
    print(sys.argv[1])
