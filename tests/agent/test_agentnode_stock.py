"""Stock clients, plain WireGuard with nothing of ours, and a device behind a NAT that they reach with its agent's help.

The tests build on each other, in the order of the file: the phone is there, moves, and leaves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from agentnode_stage import Stage, until

from meshctl.core.agent.clients import SILENT_S
from meshctl.lab import nat

pytestmark = pytest.mark.lab

DEVICE = "11.7.7.7:51820"
INVENTORY = f"""
version: 1
networks:
  corp: {{cidr: [10.42.0.0/16]}}
nodes:
  mid:   {{roles: [anchor], endpoint: "203.0.113.10:51820"}}
  dev:   {{endpoint: "{DEVICE}", lab: {{nat: easy}}}}
  phone: {{client: true, peers: [dev], lab: {{behind: home}}}}
  slate: {{client: true, peers: [dev], lab: {{nat: symmetric}}, vars: {{client_profile: routed}}}}
lab:
  routers: {{home: {{}}, cafe: {{}}}}
policies:
  - {{name: all, from: ["*"], to: ["*"], allow: [any]}}
"""
KEEPALIVE_S = 25
PINGS, PING_BYTES = 50, 84


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(f"pytest{os.getpid()}-stock", INVENTORY, tmp_path_factory.mktemp("agents")) as stage:
        router = stage.router("dev-router")
        # The lab forwards an endpoint's port; this one is what the NAT shows, and is closed to strangers.
        nat.apply(stage.name, replace(router, forwards=()), router.nat)
        (tunnel,) = (t for t in stage.scene().tunnels if t.node == "dev")
        stage.run("dev", "wg", "setconf", tunnel.interface, "/dev/stdin", text=tunnel.config)  # it has heard the phone
        stage.start_all()
        yield stage


def keepalive(stage: Stage, node: str, peer: str) -> str:
    """How often, in s, the node's WireGuard sends one to the peer; "off" for never."""
    shown = stage.run(node, "wg", "show", stage.interface(node), "persistent-keepalive")
    return dict(line.split("\t") for line in shown.splitlines())[stage.key(peer)]


def decrypted(stage: Stage, anchor: str, peer: str) -> int:
    """Bytes that the anchor's WireGuard has received from the peer."""
    shown = stage.run(anchor, "wg", "show", stage.interface(anchor), "transfer")
    rows = (line.split("\t") for line in shown.splitlines())
    return int({key: received for key, received, _ in rows}[stage.key(peer)])


def is_direct(stage: Stage, router: str) -> bool:
    """Whether the phone's pings are answered, the device sends to that router, and the anchor sees nothing of them."""
    before = decrypted(stage, "mid", "phone")
    answered = stage.ping("phone", "dev", PINGS)
    seen = decrypted(stage, "mid", "phone") - before
    return answered and seen < PINGS * PING_BYTES and stage.endpoint("dev", "phone").startswith(stage.outside(router))


def test_a_client_behind_an_easy_nat_reaches_a_device_behind_one_directly(stage: Stage) -> None:
    until(lambda: is_direct(stage, "home"), 2 * KEEPALIVE_S, stage.logs)
    assert stage.endpoint("phone", "dev") == DEVICE
    assert keepalive(stage, "dev", "phone") == str(KEEPALIVE_S)


def test_it_goes_on_to_when_the_client_moves(stage: Stage) -> None:
    stage.move("phone", behind="cafe")
    # As WireGuard's apps do when the network changes: opens its sockets anew, and shows its peers that it is there.
    # Or else wireguard-go's packets to the anchor leave from the address that is gone.
    stage.run("phone", "wg", "set", stage.interface("phone"), "listen-port", "51820")
    until(lambda: stage.ping("phone", "mid"), 15, stage.logs)
    until(lambda: is_direct(stage, "cafe"), 15, stage.logs)


def test_a_client_behind_a_symmetric_nat_is_routed_by_its_anchor(stage: Stage) -> None:
    until(lambda: stage.ping("slate", "dev", 10), 15, stage.logs)
    before = decrypted(stage, "mid", "slate")
    assert stage.ping("slate", "dev", PINGS)
    assert decrypted(stage, "mid", "slate") - before >= PINGS * PING_BYTES


def test_a_client_that_has_left_is_sent_no_more_keepalives_after_two_minutes(stage: Stage) -> None:
    assert stage.ping("phone", "dev", 10)
    stage.run("phone", "ip", "link", "set", "eth0", "down")
    left = time.monotonic()
    until(lambda: keepalive(stage, "dev", "phone") == "off", SILENT_S + KEEPALIVE_S, stage.logs)
    assert time.monotonic() - left > SILENT_S - 2 * KEEPALIVE_S
    assert "Traceback" not in stage.logs()
