"""Asking peers. WireGuard too busy to say what they do is wireguard-go that is stopped."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from agentnode_space import Space, key, stop

from meshctl.agent import probe as module
from meshctl.agent.node import wglink

pytestmark = pytest.mark.lab


@pytest.fixture(name="interface")
def _interface(place: Space, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With one peer, about which a controller asks."""
    name = f"wg{secrets.token_hex(4)}"
    place.run("wireguard-go", name)
    place.run("wg", "set", name, "peer", key("ann").text, "endpoint", "127.0.0.1:9", "allowed-ips", "10.42.0.2")
    ask(monkeypatch, name, key("ann").text, [False, None, None], 21.0)
    monkeypatch.setattr(wglink, "TIMEOUT_S", 0.2)
    yield name
    place.run("ip", "link", "del", name)


def ask(monkeypatch: pytest.MonkeyPatch, interface: str, of: str, how: list[object], for_s: float) -> None:
    """What a controller wants to know of that peer is on standard input."""
    asked = json.dumps({"for_s": for_s, "peers": {interface: {of: how}}})
    monkeypatch.setattr(sys, "stdin", io.StringIO(asked))


def wireguard_of(place: Space, interface: str) -> int:
    """The process number of the interface's wireguard-go."""
    return int(place.run("pgrep", "-f", f"^wireguard-go {interface}$"))


def test_a_wireguard_that_is_busy_for_a_while_is_asked_again(
    place: Space, interface: str, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = wireguard_of(place, interface)
    stop(busy)
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
    ask(monkeypatch, interface, key("ann").text, [False, None, None], 0.3)
    monkeypatch.setattr(module, "_BUSY_S", 0.3)
    busy = wireguard_of(place, interface)
    stop(busy)
    try:
        assert place.inside(module.probe) == 1
    finally:
        os.kill(busy, signal.SIGCONT)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "meshctl-agent: WireGuard does not say what its peers do: timed out\n")


@pytest.fixture(name="widow", scope="module")
def _widow(place: Space) -> Iterator[tuple[str, str, int]]:
    """An interface that had a handshake just now with a peer that is no more; that one's key, and when it was."""
    keys = {}
    for name, port in (("wga", 51821), ("wgb", 51822)):
        private = place.run("wg", "genkey")
        keys[name] = place.run("wg", "pubkey", text=private).strip()
        place.run("wireguard-go", name)
        place.run("wg", "set", name, "listen-port", str(port), "private-key", "/dev/stdin", text=private)
        place.run("ip", "link", "set", name, "up")
    place.run("wg", "set", "wgb", "peer", keys["wga"], "allowed-ips", "10.42.0.1")
    place.run("wg", "set", "wga", "peer", keys["wgb"], "endpoint", "127.0.0.1:51822", "allowed-ips", "10.42.0.2")
    place.run("ip", "route", "add", "10.42.0.2", "dev", "wga")
    place.inside(lambda: module.send_to("wga", ["10.42.0.2"]))
    until, when = time.monotonic() + 10, 0
    while not when and time.monotonic() < until:
        when = int(place.run("wg", "show", "wga", "latest-handshakes").split()[1])
    assert when
    place.run("ip", "link", "del", "wgb")
    yield "wga", keys["wgb"], when
    place.run("ip", "link", "del", "wga")


AN_HOUR_S = 3600


@pytest.mark.parametrize(("clock_s", "how", "waited_for"), [
    (0, [False, None, None], True),
    (0, [True, None, 0], True),
    (AN_HOUR_S, [True, None, 0], True),  # there was a session before the change, while the clock was still another one
    (AN_HOUR_S, [False, None, 1], True),  # and has been one since
    (0, [False, None, "then"], False),
    (-AN_HOUR_S, [False, None, "then"], False),  # there was none, though the time that it ended at is still to come
])  # fmt: skip
def test_a_clock_that_is_set_meanwhile_says_nothing_of_who_lives(
    place: Space, widow: tuple[str, str, int], clock_s: float, how: list[object], waited_for: bool,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    interface, peer, then = widow
    ask(monkeypatch, interface, peer, [then if word == "then" else word for word in how], 0.2)
    real = time.time
    monkeypatch.setattr(module.time, "time", lambda: real() + clock_s)
    assert place.inside(module.probe) == 0
    assert json.loads(capsys.readouterr().out)["silent"] == ({interface: [peer]} if waited_for else {})
