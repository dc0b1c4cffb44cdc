"""What a node's agent is told, from the inventory."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from render_meshes import CORP, SECRET, key, mesh, node, rule

from meshctl.core.agent.address import Address, NamedEndpoint
from meshctl.core.agent.config import PeerConfig, pair_key
from meshctl.core.agent.document import AgentDocument, encode, load
from meshctl.core.psk import PskRing
from meshctl.errors import RenderError
from meshctl.model.mesh import Mesh
from meshctl.policy import compile_mesh
from meshctl.render.agentdoc import agent_document

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "agent.schema.json").read_text())
MESH = mesh(
    node("fra1", 1, endpoint=True, roles=("anchor",)),
    node("web1", 2, nat="easy"),
    node("web2", 3),
    node("pg1", 4),
    node("phone", 5, client=True),
    rules=(rule("web1 web2", "pg1"), rule("phone", "fra1")),
)


def told(name: str, of: Mesh = MESH) -> AgentDocument:
    return agent_document(compile_mesh(of), PskRing(SECRET), name)


def peers(document: AgentDocument) -> dict[str, PeerConfig]:
    return {peer.name: peer for peer in document.config.networks[0].peers}


def test_a_node_is_told_of_those_whom_it_has_to_do_with_and_of_the_anchors() -> None:
    found = peers(told("web1"))
    assert {name: peer.kind for name, peer in found.items()} == {"fra1": "anchor", "pg1": "node"}
    assert [name for name, peer in found.items() if peer.permitted] == ["pg1"], "the anchor is there for signalling"
    assert found["fra1"].endpoints == (Address("203.0.113.1", 51820),)
    assert found["pg1"].endpoints == ()


def test_an_anchor_is_told_whom_its_peers_may_reach() -> None:
    document = told("fra1")
    assert document.config.networks[0].is_anchor
    reaches = {name: set(peer.reaches) for name, peer in peers(document).items()}
    assert reaches["web1"] == {"pg1"}
    assert peers(document)["phone"].kind == "client"
    assert reaches["web2"] == {"pg1"}
    assert reaches["pg1"] == {"web1", "web2"}


def test_an_anchor_is_told_what_it_relays_at_most_for_a_pair_and_others_have_no_use_for_it() -> None:
    nodes = {name: replace(of, relay_limit=125_000) for name, of in MESH.nodes.items()}
    limited = replace(MESH, nodes=nodes)
    assert [told(name, limited).relay_limit for name in ("fra1", "web1")] == [125_000, 0]
    text = encode(told("fra1", limited))
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
    assert load(text) == told("fra1", limited)
    assert b"relay_limit" not in encode(told("fra1")), "agents of before know no such member"


def test_nobody_is_told_of_a_node_that_is_no_peer_of_its_own() -> None:
    assert "web2" not in encode(told("web1")).decode()


def test_both_ends_of_a_pair_are_told_the_same_key_which_is_not_wireguards() -> None:
    one, other = peers(told("web1"))["pg1"].pair_key, peers(told("pg1"))["web1"].pair_key
    psk = base64.b64decode(PskRing(SECRET).psk(key("web1"), key("pg1")).reveal())
    assert one == other == pair_key(psk)
    assert psk not in base64.b64decode(base64.b64encode(one))
    assert len({peer.pair_key for peer in peers(told("fra1")).values()}) == 4


def test_the_document_fits_its_schema_and_is_read_as_it_was_meant() -> None:
    for name in ("fra1", "web1", "pg1"):
        document = told(name)
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(encode(document)))
        assert load(encode(document)) == document


def test_what_the_inventory_says_of_the_node_is_in_it() -> None:
    network = told("web1").config.networks[0]
    assert (network.network, network.interface, network.listen_port) == ("corp", "wg0", 51820)
    assert network.mesh_addresses == ("10.42.0.2", "fd42:42::2")
    assert network.mesh_ranges == CORP.cidrs


def test_stun_servers_are_told_with_a_port_and_those_that_speak_tls_are_not() -> None:
    uris = ("stun:stun.example.net", "stun:192.0.2.1:3479", "stun:[2001:db8::1]", "stuns:stun.example.net:5349")
    assert told("web1", replace(MESH, stun=uris)).config.stun_servers == (
        NamedEndpoint("stun.example.net", 3478), Address("192.0.2.1", 3479), Address("2001:db8::1", 3478),
    )  # fmt: skip


def test_a_peer_whose_key_is_not_known_yet_is_left_out() -> None:
    pg1 = MESH.nodes["pg1"]
    keyless = replace(pg1, attachments=tuple(replace(a, public_key=None) for a in pg1.attachments))
    assert set(peers(told("web1", replace(MESH, nodes={**MESH.nodes, "pg1": keyless})))) == {"fra1"}


def test_agents_need_the_meshs_secret_and_a_key_of_their_own() -> None:
    with pytest.raises(RenderError, match="secret"):
        agent_document(compile_mesh(MESH), None, "web1")
    web1 = MESH.nodes["web1"]
    keyless = replace(web1, attachments=tuple(replace(a, public_key=None) for a in web1.attachments))
    with pytest.raises(RenderError, match="not known yet"):
        told("web1", replace(MESH, nodes={**MESH.nodes, "web1": keyless}))
