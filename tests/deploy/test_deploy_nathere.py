"""The NAT in front of the operator's own machine, by pystun3: behind the lab's NATs at coturn; and servers that lie."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from meshctl.cli import cli
from meshctl.deploy import nathere
from meshctl.deploy.nathere import classify
from meshctl.errors import MeshctlError
from meshctl.inventory import load_schema, read
from meshctl.lab import nat, network, teardown
from meshctl.lab.design import design
from meshctl.lab.names import INTERNET, netns
from meshctl.lab.shell import in_netns

ROOT = Path(__file__).parents[2]
SERVER, OTHER, PORT = "203.0.113.10", "203.0.113.11", 3478
INVENTORY = f"""
version: 1
networks:
  corp: {{cidr: [10.42.0.0/16]}}
stun: ["stun:{SERVER}"]
nodes:
  server:    {{roles: [anchor], endpoint: "{SERVER}:51820"}}
  public:    {{endpoint: "198.51.100.7:51820"}}
  full:      {{lab: {{nat: full-cone}}}}
  home:      {{lab: {{nat: easy}}}}
  dependent: {{lab: {{nat: address-dependent}}}}
  hard:      {{lab: {{nat: symmetric}}}}
  blocked:   {{lab: {{nat: udp-blocked}}}}
"""


@pytest.fixture(scope="module", name="lab")
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Namespaces behind NATs, and coturn on a host with two addresses."""
    folder, name = tmp_path_factory.mktemp("stun"), f"pytest{os.getpid()}-stun"
    (folder / "inventory.yml").write_text(INVENTORY)
    plan = design(read(folder / "inventory.yml").mesh)
    server = None
    try:
        network.create_namespaces(name, [INTERNET, *plan.elements()])
        network.prepare_routers(name, plan.routers)
        network.connect(name, plan.links, frozenset())
        for router in plan.routers:
            nat.apply(name, router, router.nat)
        in_netns(name, "server", ["ip", "addr", "add", f"{OTHER}/32", "dev", "lo"])
        in_netns(name, INTERNET, ["ip", "route", "add", f"{OTHER}/32", "via", SERVER])
        words = ["turnserver", "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls", "--log-file", "stdout",
                 "-L", SERVER, "-L", OTHER, "--pidfile", str(folder / "pid")]  # fmt: skip
        with (folder / "log").open("wb") as log:
            argv = ["ip", "netns", "exec", netns(name, "server"), *words]
            server = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder)
        end = time.monotonic() + 10
        while f"{OTHER}:{PORT + 1}" not in in_netns(name, "server", ["ss", "-Huan"]):
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        yield name, folder
    finally:
        if server is not None:
            server.kill()
            server.wait()
        teardown.down(name)


@pytest.mark.lab
@pytest.mark.parametrize(
    ("place", "word", "kind"),
    [
        ("public", "none", "Open Internet"),
        ("full", "full-cone", "Full Cone"),
        ("dependent", "address-dependent", "Restric NAT"),
        ("home", "easy", "Restric Port NAT"),
        ("hard", "symmetric", "Symmetric NAT"),
        ("blocked", "udp-blocked", "Blocked"),
    ],
)
def test_each_kind_of_nat_is_told_by_the_word_that_the_inventory_has_for_it(
    lab: tuple[str, Path], place: str, word: str, kind: str
) -> None:
    name, folder = lab
    command = [sys.executable, "-m", "meshctl", "agent", "nat", "--here", "-i", str(folder / "inventory.yml")]
    done = subprocess.run(
        ["ip", "netns", "exec", netns(name, place), *command, "-o", "json"], capture_output=True, text=True,
        check=False, cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    Draft202012Validator(load_schema("agent-answer")).validate(found)
    assert (found["nat"], found["classification"], found["server"]) == (word, kind, SERVER)
    assert (found["seen"] is None) is (word == "udp-blocked")


# Servers that lie


@contextmanager
def serving(answer: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A server on the loopback that answers so; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.1)
        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                try:
                    asked, sender = sock.recvfrom(2048)
                except TimeoutError:
                    continue
                for data in answer(asked):
                    sock.sendto(data, sender)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def attribute(kind: int, ip: str, port: int) -> bytes:
    return struct.pack("!HHBBH4s", kind, 8, 0, 1, port, socket.inet_aton(ip))


def response(asked: bytes, *attributes: bytes, kind: int = 0x0101, size: int | None = None) -> bytes:
    body = b"".join(attributes)
    return struct.pack("!HH", kind, len(body) if size is None else size) + asked[4:20] + body


MAPPED = attribute(1, "192.0.2.1", 4444)


@pytest.fixture(name="impatient")
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nathere, "ANSWER_S", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "answer",
    [
        lambda _asked: [],
        lambda _asked: [b"\x01\x01"],
        lambda asked: [response(asked, MAPPED, kind=0x7777)],
        lambda asked: [response(asked, MAPPED, size=4000)],
        lambda _asked: [response(bytes(20), MAPPED)],
        lambda asked: [response(asked, struct.pack("!HH", 1, 65535))],
        lambda asked: [response(asked, struct.pack("!HH", 1, 0))],
        lambda asked: [response(asked)] * 200,
    ],
)
def test_what_is_no_answer_is_as_if_none_had_come(answer: Callable[[bytes], list[bytes]]) -> None:
    with serving(answer) as port:
        found = classify("127.0.0.1", port)
    assert (found.classification, found.seen) == ("Blocked", "")


@pytest.mark.usefixtures("impatient")
def test_a_server_without_a_second_address_cannot_tell_and_it_is_said_what_can() -> None:
    def once(asked: bytes) -> list[bytes]:
        return [] if len(asked) > 20 else [response(asked, MAPPED)]  # not a question that wants another address

    with serving(once) as port, pytest.raises(MeshctlError, match="no second address") as caught:
        classify("127.0.0.1", port)
    assert "coturn" in caught.value.hint


@pytest.mark.usefixtures("impatient")
def test_padded_and_unknown_attributes_are_passed_over() -> None:
    software = struct.pack("!HH", 0x8022, 5) + b"hello\0\0\0"
    with serving(lambda asked: [response(asked, software, MAPPED)]) as port:
        found = classify("127.0.0.1", port)
    assert (found.nat, found.seen) == ("full-cone", "192.0.2.1:4444")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("home1", "--here"), "--here is about this machine"),
        (("--here", "--stun", "host:x"), "'host:x' is no HOST:PORT"),
        (("--here", "--stun", "127.0.0.1:99999"), "99999 is no port"),
        (("--here", "--stun", "127.0.0.1:0"), "0 is no port"),
        (("--here", "--stun", f"127.0.0.1:{'9' * 5000}"), "is no port"),
        (("--here", "--stun", "[::1]:3478"), "is an IPv6 address"),
        (("--here", "--stun", "a..b"), "'a..b' is no name of a host"),
        (("--here", "--stun", "x" * 300), "is no name of a host"),
    ],
)
def test_wrong_usage_says_what_is_wrong(words: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(cli, ["agent", "nat", *words])
    assert isinstance(done.exception, MeshctlError), done.exception
    assert says in str(done.exception)
