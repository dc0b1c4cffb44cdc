"""Fixtures for every test that needs real hosts: a factory of labs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from meshctl import inventory, lab
from meshctl.lab.teardown import all_labs

# Nothing that a random test may find depends on how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A lab of a test run is called after the process that made it, so that runs do not meet and leftovers are told apart.
PREFIX = "pytest"


class Labs:
    """Brings labs up from inventory texts or paths, each once per session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._up: dict[str, str] = {}

    def __call__(self, key: str, source: str | Path, *, ssh_over_mesh: bool = False) -> str:
        """The name of the running lab that was asked for under `key`; built from `source` the first time."""
        if key not in self._up:
            path = source if isinstance(source, Path) else self.write(key, source)
            name = self.name(key)
            self._up[key] = name
            lab.up(inventory.read(path).mesh, name, ssh_over_mesh=ssh_over_mesh)
        return self._up[key]

    def name(self, key: str) -> str:
        """What the lab under this key is called in this session."""
        return f"{PREFIX}{os.getpid()}-{key}"

    def write(self, key: str, text: str) -> Path:
        """An inventory file with this text."""
        path = self._folder / key / "inventory.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def close(self) -> None:
        """Take down whatever is up under this session's names."""
        for name in all_labs():
            if name.startswith(f"{PREFIX}{os.getpid()}-"):
                lab.down(name)


@pytest.fixture(scope="session", name="labs")
def _labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """`labs(key, inventory text or path)` gives the name of a lab that is up; it lives as long as the session."""
    for name in all_labs():
        owner = re.match(rf"{PREFIX}(\d+)-", name)
        if owner and not Path("/proc", owner[1]).exists():
            lab.down(name)
    factory = Labs(tmp_path_factory.mktemp("labs"))
    try:
        yield factory
    finally:
        factory.close()
