"""What goes wrong around agents and in them: real ones, around real WireGuards, behind real NATs.

The tests build on each other, in the order of the file: the last one ends both anchors.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from agentnode_stage import Stage, until

from meshctl.agent.node.statefile import AGAIN_S
from meshctl.core.agent.document import encode

pytestmark = pytest.mark.lab

INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  mid:  {roles: [anchor], endpoint: "203.0.113.10:51820"}
  far:  {roles: [anchor], endpoint: "far.example.net:51820"}
  ann:  {lab: {nat: easy}}
  bob:  {lab: {nat: easy}}
  cat:  {lab: {nat: easy}}
  sue:  {lab: {nat: symmetric, upnp: true}}
policies:
  - {name: ann, from: [ann], to: [bob, sue], allow: [any]}
  - {name: cat, from: [cat], to: [bob], allow: [any]}
"""
DIRECT_S = 20.0
NOISE = {
    "gone": None, "empty": b"", "noise": os.urandom(5000), "cut off": b'{"version": 1, "paths": [{"peer":',
    "not what it should be": b'{"version": 1, "paths": 7, "ports": {}, "relays": [[]]}', "nested": b"[" * 100_000,
}  # fmt: skip


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(f"pytest{os.getpid()}-fault", INVENTORY, tmp_path_factory.mktemp("agents")) as stage:
        stage.start_all()
        for one, other in (("ann", "bob"), ("cat", "bob"), ("ann", "sue")):
            until(lambda one=one, other=other: is_direct(stage, one, other), DIRECT_S, stage.logs)
            until(lambda one=one, other=other: stage.ping(one, other, 10), 12, stage.logs)
        yield stage


def outside(stage: Stage, node: str) -> str:
    """The address of the node's router."""
    return stage.outside(f"{node}-router")


def is_direct(stage: Stage, one: str, other: str) -> bool:
    """Whether each sends to the outside of the other's router. Not to which port: a router that restarts may have seen
    packets of both directions before it has the mapping again, and then shows its host the other one's port changed."""
    pairs = ((one, other), (other, one))
    return all(stage.endpoint(a, b).rpartition(":")[0] == outside(stage, b) for a, b in pairs)


def says(stage: Stage, node: str, since: int, wanted: str) -> bool:
    """Whether the node's log has that, from the place `since` on."""
    return re.search(wanted, stage.log(node)[since:]) is not None


@pytest.mark.parametrize("moment", ["", "started", "peer=mid state=direct", "peer=bob state=direct"])
def test_an_agent_may_be_killed_at_any_moment(stage: Stage, moment: str) -> None:
    stage.kill("ann")
    with stage.pinging("ann", "bob") as pings:
        since = len(stage.log("ann"))
        stage.start("ann")
        until(lambda: says(stage, "ann", since, moment), DIRECT_S, stage.logs)
        stage.kill("ann")
        assert stage.ping("ann", "bob", 10)
        since = len(stage.log("ann"))
        stage.start("ann")
        until(lambda: says(stage, "ann", since, "peer=bob state=direct"), DIRECT_S, stage.logs)
    assert pings.complaint() == ""
    assert is_direct(stage, "ann", "bob")


@pytest.mark.parametrize("state", NOISE)
def test_a_state_file_that_is_not_one_costs_nothing(stage: Stage, state: str) -> None:
    stage.kill("ann")
    content = NOISE[state]
    if content is None:
        stage.state("ann").unlink()
    else:
        stage.state("ann").write_bytes(content)
    with stage.pinging("ann", "bob") as pings:
        since = len(stage.log("ann"))
        stage.start("ann")
        for peer in ("bob", "sue"):
            until(lambda peer=peer: says(stage, "ann", since, f"peer={peer} state=direct"), DIRECT_S, stage.logs)
    assert pings.complaint() == ""
    assert "Traceback" not in stage.log("ann")


def test_a_document_or_a_state_that_is_a_pipe_costs_nothing_and_what_takes_its_place_is_taken(stage: Stage) -> None:
    """To open one, or to read from one, takes for ever."""
    document, good = stage.document("ann"), encode(stage.content("ann"))
    stage.kill("ann")
    stage.state("ann").unlink()
    os.mkfifo(stage.state("ann"))
    with stage.pinging("ann", "bob") as pings:
        since = len(stage.log("ann"))
        stage.start("ann")
        until(lambda: says(stage, "ann", since, "peer=bob state=direct"), DIRECT_S, stage.logs)
        until(stage.state("ann").is_file, 10, stage.logs)
        os.mkfifo(document.with_suffix(".pipe"))
        document.with_suffix(".pipe").replace(document)
        until(lambda: says(stage, "ann", since, "error document .*not a regular file"), 5, stage.logs)
        stage.put(document, good.replace(b'"keepalive_s": 25', b'"keepalive_s": 24'))
        until(lambda: says(stage, "ann", since, "info reloaded"), 5, stage.logs)
        stage.put(document, good)
    assert pings.complaint() == ""


@contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system without a free byte over the folder; the file that makes it so."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        with suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        yield folder / "ballast"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_agent_whose_disk_is_full_does_its_work_and_says_so(stage: Stage) -> None:
    stage.kill("ann")
    with full_disk(stage.state("ann").parent) as ballast, stage.pinging("ann", "bob") as pings:
        since = len(stage.log("ann"))
        stage.start("ann")
        until(lambda: says(stage, "ann", since, "No space left on device"), DIRECT_S, stage.logs)
        until(lambda: says(stage, "ann", since, "peer=bob state=direct"), DIRECT_S, stage.logs)
        assert stage.stop("ann") == 0
        assert re.search("^error SaveState .*No space left on device", stage.log("ann")[since:], re.MULTILINE)
        since = len(stage.log("ann"))
        stage.start("ann")
        until(lambda: says(stage, "ann", since, "peer=bob state=direct"), DIRECT_S, stage.logs)
        until(lambda: says(stage, "ann", since, "No space left on device"), DIRECT_S, stage.logs)
        ballast.unlink()
        until(stage.state("ann").exists, 2 * AGAIN_S, stage.logs)
    assert pings.complaint() == ""


def test_without_a_resolver_nodes_go_on_by_the_addresses_that_they_have(stage: Stage) -> None:
    before = stage.endpoint("ann", "far")
    with stage.pinging("ann", "far") as anchor, stage.pinging("ann", "bob") as peer:
        stage.names_resolve(())
        since = len(stage.log("ann"))
        assert stage.agent("ann", "rebind").returncode == 0
        until(lambda: says(stage, "ann", since, "peer=bob state=direct"), DIRECT_S, stage.logs)
        stage.kill("ann")
        since = len(stage.log("ann"))
        stage.start("ann")
        until(lambda: says(stage, "ann", since, "peer=far state=direct"), DIRECT_S, stage.logs)
    assert (anchor.complaint(), peer.complaint()) == ("", "")
    assert stage.endpoint("ann", "far") == before
    stage.names_resolve(stage.scene().blueprint.hosts_file)


def test_a_router_that_restarts_and_has_lost_its_leases_is_asked_again(stage: Stage) -> None:
    def mapped() -> bool:
        return "dnat" in stage.run("sue-router", "nft", "list", "chain", "inet", "lab", "upnp_prerouting")

    port = f"{outside(stage, 'sue')}:51820"
    assert mapped(), "or else this would show nothing"
    assert stage.endpoint("ann", "sue") == port
    with stage.pinging("ann", "sue"):
        stage.restart_router("sue-router")
        until(mapped, DIRECT_S, stage.logs)
        until(lambda: is_direct(stage, "ann", "sue") and stage.endpoint("ann", "sue") == port, DIRECT_S, stage.logs)
        until(lambda: stage.ping("ann", "sue", 10), DIRECT_S, stage.logs)


def test_without_any_anchor_direct_pairs_stay_and_new_ones_meet_by_a_common_peer(stage: Stage) -> None:
    def permit(document: dict[str, Any]) -> None:
        document["policies"].append({"name": "new", "from": ["ann"], "to": ["cat"], "allow": ["any"]})

    with stage.pinging("ann", "bob") as pings:
        for anchor in ("mid", "far"):
            stage.kill(anchor)
            stage.run(anchor, "ip", "link", "set", "eth0", "down")
        stage.apply(permit, "ann", "bob", "cat")
        until(lambda: is_direct(stage, "ann", "cat"), DIRECT_S, stage.logs)
        until(lambda: stage.ping("ann", "cat", 10), 12, stage.logs)
    assert pings.complaint() == ""
    assert "Traceback" not in stage.logs()
