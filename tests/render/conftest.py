"""The demo inventory with fixed keys, rendered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from meshes import key

from meshctl import inventory
from meshctl.core.psk import PskRing
from meshctl.core.topology import compile_topology
from meshctl.model.keys import Secret
from meshctl.model.mesh import Mesh
from meshctl.render import Renderer

DEMO = Path(__file__).parents[2] / "inventory" / "demo"
SECRET = Secret("golden files need a mesh secret that never changes 0123456789")


@pytest.fixture(name="demo", scope="session")
def _demo(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    """The demo's mesh before any lock, every node with a key that belongs to its name."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "inventory.yml").write_bytes((DEMO / "inventory.yml").read_bytes())
    read = inventory.read(folder / "inventory.yml")
    pairs = {(n.name, a.network): key(n.name, a.network) for n in read.mesh.nodes.values() for a in n.attachments}
    return replace(read.with_keys(pairs).mesh, base_dir=str(folder))


def renderer(mesh: Mesh) -> Renderer:
    """A renderer with the fixed secret."""
    return Renderer(mesh, compile_topology(mesh), PskRing(SECRET))
