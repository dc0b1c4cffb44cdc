from __future__ import annotations

import pytest
from render_meshes import demo_mesh

from meshctl.model.mesh import Mesh


@pytest.fixture(name="demo", scope="session")
def _demo(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    """The demo's mesh, every node with a key that belongs to its name."""
    return demo_mesh(tmp_path_factory.mktemp("demo"))
