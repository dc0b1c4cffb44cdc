"""What systemd hears from the agent."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from meshctl.agent.node import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_once_and_the_agents_programs_know_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool
) -> None:
    address = f"@meshctl-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0", 1))
        systemd.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify.ready()
        assert systemd.recv(100) == b"READY=1"
    assert "NOTIFY_SOCKET" not in os.environ
    notify.ready()
