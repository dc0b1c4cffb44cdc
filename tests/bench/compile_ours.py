"""The measured program: an inventory's policies compiled, after it was read. Prints seconds and what came out.

`compile_s` is policies and resolved mesh to decisions and pairs, `mesh_s` with every node's peers, `table_s` one
gateway's firewall as text.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from meshctl import inventory
from meshctl.model.resources import Nftables
from meshctl.policy import compile_mesh, compile_policies
from meshctl.render import Renderer
from meshctl.render.secret import ring_for


def main() -> None:
    """Compile twice, the second time with everything that follows, and print the figures and the table as JSON."""
    began = time.perf_counter()
    mesh = inventory.read(sys.argv[1]).mesh
    started = time.perf_counter()
    pairs = sum(len(r.peers) for of in compile_policies(mesh).reaches.values() for r in of.values()) // 2
    compiled_at = time.perf_counter()
    compiled = compile_mesh(mesh)
    done_at = time.perf_counter()
    renderer = Renderer(compiled, ring_for(mesh))
    gateway = next(n.name for n in mesh.nodes.values() if n.routes)
    resources = renderer.node(gateway).resources
    found = {
        "read_s": started - began,
        "compile_s": compiled_at - started,
        "mesh_s": done_at - compiled_at,
        "table_s": time.perf_counter() - done_at,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "pairs": pairs,
        "table": next(r.text for r in resources if isinstance(r, Nftables)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
