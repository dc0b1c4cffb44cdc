"""Asking peers where WireGuard is too busy to say what they do: wireguard-go that is stopped."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from agentnode_space import Space, key, space

from meshctl.agent import probe as module
from meshctl.agent.node import wglink

pytestmark = pytest.mark.lab


@pytest.fixture(name="place", scope="module")
def _place() -> Iterator[Space]:
    with space() as made:
        yield made


@pytest.fixture(name="interface")
def _interface(place: Space, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With one peer, about which a controller asks."""
    name = f"wg{secrets.token_hex(4)}"
    place.run("wireguard-go", name)
    place.run("wg", "set", name, "peer", key("ann").text, "endpoint", "127.0.0.1:9", "allowed-ips", "10.42.0.2")
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({name: {key("ann").text: [False, None]}})))
    monkeypatch.setattr(wglink, "TIMEOUT_S", 0.2)
    yield name
    place.run("ip", "link", "del", name)


def wireguard_of(place: Space, interface: str) -> int:
    """The process number of the interface's wireguard-go."""
    return int(place.run("pgrep", "-f", f"^wireguard-go {interface}$"))


def test_a_wireguard_that_is_busy_for_a_while_is_asked_again(
    place: Space, interface: str, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = wireguard_of(place, interface)
    os.kill(busy, signal.SIGSTOP)
    later = threading.Timer(1.0, os.kill, (busy, signal.SIGCONT))
    later.start()
    try:
        assert place.inside(module.probe) == 0
    finally:
        later.join()
    assert json.loads(capsys.readouterr().out) == {
        "silent": {}, "endpoints": {interface: {key("ann").text: "127.0.0.1:9"}},
    }  # fmt: skip


def test_a_wireguard_that_says_nothing_any_more_is_an_error_and_no_traceback(
    place: Space, interface: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(module, "_BUSY_S", 0.3)
    busy = wireguard_of(place, interface)
    os.kill(busy, signal.SIGSTOP)
    try:
        assert place.inside(module.probe) == 1
    finally:
        os.kill(busy, signal.SIGCONT)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "meshctl-agent: WireGuard does not say what its peers do: timed out\n")
