"""The measured program: an inventory to every node's WireGuard config, kept in memory.

`INVENTORY [--files FOLDER] [--count]`: `--files` also writes them, `--count` also looks into them, which takes as long
as a tenth of making them and is therefore left to a run that is not timed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from meshctl import inventory
from meshctl.policy import compile_mesh
from meshctl.render import Renderer
from meshctl.render.secret import ring_for


def main() -> None:
    """Generate, say how much that was, and write or count it too when asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("inventory")
    parser.add_argument("--files", type=Path)
    parser.add_argument("--count", action="store_true")
    asked = parser.parse_args()
    mesh = inventory.read(asked.inventory).mesh
    renderer = Renderer(compile_mesh(mesh), ring_for(mesh))
    configs = {node.name: renderer.config(node.name) for node in mesh.managed()}
    if asked.files:
        for name, files in configs.items():
            for path, content in files.items():
                Path(asked.files, f"{name}-{Path(path).name}").write_bytes(content)
    everything = [content for files in configs.values() for content in files.values()]
    made = {"files": len(everything), "bytes": sum(map(len, everything))}
    if asked.count:
        made["peers"] = sum(content.count(b"[Peer]") for content in everything)
        made["psks"] = sum(content.count(b"PresharedKey") for content in everything)
    print(json.dumps(made))


if __name__ == "__main__":
    main()
