"""`--local`: the node that runs meshctl configures itself, without SSH."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, write_roles

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = {
    "version": 1,
    "defaults": {"vars": {"motd": "hello"}, "agent": False},  # there is no systemd
    "networks": {"corp": {"cidr": ["10.42.0.0/16"], "policy": "open"}},
    # Nobody listens there: a connection would be an error.
    "nodes": {
        "one": {"ssh": {"host": "192.0.2.1"}, "endpoint": "192.0.2.1:51820"},
        "two": {"ssh": {"host": "192.0.2.2"}, "endpoint": "192.0.2.2:51820"},
    },
}


class Here:
    """A machine in miniature on which meshctl itself runs; `name` is what it is called."""

    def __init__(self, folder: Path) -> None:
        self.host = Host(folder / "host")
        self.path = folder / "inventory.yml"
        self.path.write_text(json.dumps(INVENTORY))
        write_roles(folder)
        self._environment = {**os.environ, "MESHCTL_SECRET": secrets.token_urlsafe(48), "PYTHONPATH": str(ROOT)}

    def run(self, *words: str, name: str = "one") -> subprocess.CompletedProcess[str]:
        command = shlex.join([sys.executable, "-m", "meshctl", *words])
        inside = ["unshare", "--uts", "sh", "-c", f"echo {name} > /proc/sys/kernel/hostname; exec {command}"]
        return subprocess.run(
            [*self.host.namespaces, *inside], capture_output=True, text=True, check=False, timeout=60,
            env=self._environment,
        )  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    found = Here(tmp_path)
    try:
        yield found
    finally:
        found.host.close()


def test_the_machine_that_is_a_node_configures_itself_and_asks_no_other(here: Here) -> None:
    done = here.run("apply", str(here.path), "--local", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert {name: node["status"] for name, node in json.loads(done.stdout)["nodes"].items()} == {"one": "changed"}
    assert "two" in done.stderr, "a peer whose key is not known is left out with a word"
    assert here.host.sh("wg show wg0 public-key").strip() in (here.path.parent / "inventory.lock.yml").read_text()
    assert here.host.sh("cat /etc/app/motd") == "hello"
    again = here.run("apply", str(here.path), "--local")
    assert again.returncode == 0
    assert "No changes" in again.stdout
    here.host.sh("ip link set wg0 mtu 1300")
    assert here.run("plan", str(here.path), "--local", "--detailed-exitcode").returncode == 2


def test_a_machine_that_is_no_node_must_say_which_one_it_is(here: Here) -> None:
    lost = here.run("plan", str(here.path), "--local", name="laptop")
    assert (lost.returncode, lost.stdout) == (64, "")
    assert "no node is called laptop; say which node this machine is with --limit NAME" in lost.stderr
    named = here.run("plan", str(here.path), "--local", "--limit", "two", "-o", "json", name="laptop")
    assert {change["node"] for change in json.loads(named.stdout)["changes"]} == {"two"}
