"""The measured program: an inventory to every node's WireGuard config, kept in memory (`INVENTORY [OUT_FOLDER]`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from meshctl import inventory
from meshctl.core.topology import compile_topology
from meshctl.render import Renderer
from meshctl.render.secret import ring_for


def main() -> None:
    """Generate, count, and write the files too when a folder is named."""
    mesh = inventory.read(sys.argv[1]).mesh
    renderer = Renderer(mesh, compile_topology(mesh), ring_for(mesh))
    configs = {node.name: renderer.config(node.name) for node in mesh.managed()}
    if len(sys.argv) > 2:
        for name, files in configs.items():
            for path, content in files.items():
                Path(sys.argv[2], f"{name}-{Path(path).name}").write_bytes(content)
    everything = [content for files in configs.values() for content in files.values()]
    counts = {
        "files": len(everything),
        "bytes": sum(map(len, everything)),
        "peers": sum(content.count(b"[Peer]") for content in everything),
        "psks": sum(content.count(b"PresharedKey") for content in everything),
    }
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
