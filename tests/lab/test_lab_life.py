"""A lab comes up, converges, survives a crash of its maker, and goes without a trace."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from meshctl import inventory, lab
from meshctl.lab import hosts, procs, state
from meshctl.lab.names import LabError, prefix, state_dir

if TYPE_CHECKING:
    from conftest import Labs

pytestmark = pytest.mark.lab

SMALL = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  hub:  {roles: [anchor], endpoint: "203.0.113.10:51820"}
  home: {lab: {nat: easy, delay: 1ms, upnp: true}}
policies:
  - {name: all, from: ["*"], to: ["*"], allow: [any]}
"""
STEP_TIMEOUT_S = 60.0
POLL_S = 0.002


def traces(name: str, nodes: tuple[str, ...] = ("hub", "home")) -> set[str]:
    """Everything on this machine that belongs to the lab of that name."""
    found = {str(p) for p in Path("/run/netns").glob(f"{prefix(name)}*")} if Path("/run/netns").is_dir() else set()
    found |= {str(p) for root in hosts.hierarchies() for p in root.glob(f"{prefix(name)}*")}
    found |= {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{name}/" in line}
    found |= {f"process {pid}" for pid in procs.marked(name)}
    found |= {str(lab.state_dir(name))} if lab.state_dir(name).exists() else set()
    own = [Path("/run/systemd/nspawn/propagate", hosts.machine_name(name, n)) for n in nodes]
    return found | {str(p) for p in own if p.exists()}


def ping(name: str, node: str, to: str) -> bool:
    return lab.exec_(name, node, ["ping", "-c", "1", "-W", "2", to]).returncode == 0


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "meshctl", "lab", *words]


def test_down_leaves_nothing_behind(labs: Labs) -> None:
    name = labs("brief", SMALL)
    leader = state.load(name).leaders["hub"][0]
    assert traces(name)
    assert lab.down(name)
    assert traces(name) == set()
    assert procs.start_time(leader) == 0
    assert lab.down(name) is False, "a second time there is nothing to do"


def test_two_labs_of_the_same_inventory_stand_side_by_side(labs: Labs) -> None:
    one, two = labs("left", SMALL), labs("right", SMALL)
    lab.exec_(one, "hub", ["touch", "/root/only-here"])
    assert lab.exec_(two, "hub", ["test", "-e", "/root/only-here"]).returncode == 1
    assert lab.secret_file(one).read_text() != lab.secret_file(two).read_text()
    lab.down(one)
    assert ping(two, "home", "203.0.113.10")


def test_up_again_changes_nothing_and_restarts_nobody(labs: Labs) -> None:
    name = labs("right", SMALL)
    before = state.load(name)
    lab.up(inventory.read(labs.write("right", SMALL)).mesh, name)
    assert state.load(name) == before
    assert ping(name, "home", "203.0.113.10")


def test_up_with_another_inventory_adds_and_removes_what_differs(labs: Labs) -> None:
    name = labs("right", SMALL)
    hub = state.load(name).leaders["hub"]
    document = yaml.safe_load(SMALL)
    document["nodes"]["second"] = {"lab": {"nat": "symmetric"}}
    document["nodes"]["home"]["lab"] = {"nat": "full-cone", "delay": "5ms"}
    lab.up(inventory.read(labs.write("right", yaml.safe_dump(document))).mesh, name)
    assert state.load(name).leaders["hub"] == hub, "a host that stays is not restarted"
    assert lab.status(name)["hosts"]["home"]["nat"] == "full-cone"
    assert ping(name, "second", "203.0.113.10")
    assert ping(name, "home", "203.0.113.10")
    lab.up(inventory.read(labs.write("right", SMALL)).mesh, name)
    assert "second" not in lab.status(name)["hosts"]
    assert not [t for t in traces(name, ("second",)) if "second" in t]
    assert ping(name, "home", "203.0.113.10")


def test_a_lab_whose_containers_were_killed_comes_up_again(labs: Labs) -> None:
    name = labs("right", SMALL)
    procs.kill(procs.marked(name))
    procs.kill([pid for pid, _ in state.load(name).leaders.values()])
    status = lab.status(name)
    assert not any(h["running"] for h in status["hosts"].values())
    with pytest.raises(LabError, match="home is not running"):
        lab.exec_(name, "home", ["true"])
    lab.up(inventory.read(labs.write("right", SMALL)).mesh, name)
    assert ping(name, "home", "203.0.113.10")


@pytest.mark.parametrize("complete", [True, False])
def test_a_host_whose_disk_is_there_is_not_made_another_release(labs: Labs, complete: bool) -> None:
    name = labs("right", SMALL)
    before = replace(state.load(name), complete=complete)
    state.save(name, before)
    older = labs.write("older", SMALL.replace("nat: easy", "nat: easy, debian: bullseye"))
    with pytest.raises(LabError, match="home: runs Debian bookworm, and cannot become bullseye"):
        lab.up(inventory.read(older).mesh, name)
    assert state.load(name) == before
    assert ping(name, "home", "203.0.113.10")
    state.save(name, replace(before, complete=True))


def namespaces_are_there(name: str) -> bool:
    return any(Path("/run/netns").glob(f"{prefix(name)}*"))


def containers_are_starting(name: str) -> bool:
    return bool(procs.marked(name, "hub"))


@pytest.mark.parametrize("moment", [namespaces_are_there, containers_are_starting])
@pytest.mark.parametrize("repair", ["down", "up"])
def test_up_killed_midway_can_be_taken_down_or_brought_up(
    labs: Labs, moment: Callable[[str], bool], repair: str
) -> None:
    key = f"crash-{repair}-{moment.__name__[:4]}"
    name = labs.name(key)
    path = labs.write(key, SMALL)
    with subprocess.Popen(command("up", str(path), "--name", name), stderr=subprocess.PIPE) as maker:
        until = time.monotonic() + STEP_TIMEOUT_S
        # Namespaces and processes appear without an event that another process could wait for.
        while not moment(name) and maker.poll() is None and time.monotonic() < until:
            time.sleep(POLL_S)
        assert maker.poll() is None, "the lab was up before it could be killed"
        maker.kill()
    if repair == "up":
        subprocess.run(command("up", str(path), "--name", name), check=True, capture_output=True)
        assert ping(name, "home", "203.0.113.10")
    subprocess.run(command("down", "--name", name), check=True, capture_output=True)
    assert traces(name) == set()


def test_two_ups_at_once_make_one_lab(labs: Labs) -> None:
    name = labs.name("twice")
    path = labs.write("twice", SMALL)
    words = command("up", str(path), "--name", name)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: subprocess.run(words, check=False, capture_output=True), range(2)))
    assert [done.returncode for done in both] == [0, 0], [done.stderr for done in both]
    assert ping(name, "home", "203.0.113.10")
    lab.down(name)
    assert traces(name) == set()


def test_a_lab_that_is_not_up_is_named_with_the_remedy() -> None:
    done = subprocess.run(command("exec", "--name", "nowhere", "hub", "--", "true"), check=False, capture_output=True)
    assert done.returncode == 1
    assert b"there is no lab 'nowhere'" in done.stderr
    assert b"meshctl lab up" in done.stderr


@pytest.mark.parametrize("words", [["link", "hub", "up"], ["nat", "hub", "easy"], ["reboot", "hub"]], ids=" ".join)
def test_a_command_about_a_lab_that_is_not_up_leaves_nothing(words: list[str]) -> None:
    done = subprocess.run(command(*words, "--name", "nowhere"), check=False, capture_output=True)
    assert done.returncode == 1
    assert b"there is no lab 'nowhere'" in done.stderr
    assert not state_dir("nowhere").exists()
