from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshlab import SshLab


@pytest.fixture
def sshlab(monkeypatch: pytest.MonkeyPatch) -> Iterator[SshLab]:
    """Servers on loopback; no agent, no key and no configuration of whoever runs the tests is used."""
    with tempfile.TemporaryDirectory(prefix="meshctl-ssh-") as folder:
        monkeypatch.setenv("HOME", folder)
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        lab = SshLab(Path(folder))
        try:
            yield lab
        finally:
            lab.close()
