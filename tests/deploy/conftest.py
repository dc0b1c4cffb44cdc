from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import start
from sshlab import SshLab
from sshmesh import Mesh


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


@pytest.fixture
def mesh(sshlab: SshLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    monkeypatch.setenv("MESHCTL_SECRET", secrets.token_urlsafe(48))
    hosts = start(sshlab, "one", "two")
    try:
        yield Mesh(sshlab, hosts)
    finally:
        for host in hosts.values():
            host.close()
