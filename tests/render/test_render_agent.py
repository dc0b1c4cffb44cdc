"""The role `agent`: what a node gets, and what it does not."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from render_meshes import SECRET, mesh, node, renderer, without_key
from test_render_golden import check, file

from meshctl.core.agent.document import encode, load
from meshctl.core.psk import PskRing
from meshctl.model.mesh import Mesh
from meshctl.model.resources import File, Nftables, NodeDoc, Service, Sysctl
from meshctl.policy import compile_mesh
from meshctl.render import Renderer, zipapp
from meshctl.render.agentdoc import agent_document

DOCUMENT = "/etc/meshctl/agent.json"
UNIT = "/etc/systemd/system/meshctl-agent.service"
TWO = mesh(node("fra1", 1, endpoint=True, roles=("anchor",)), node("web1", 2))


def told(doc: NodeDoc) -> File:
    return next(r for r in doc.resources if isinstance(r, File) and r.path == DOCUMENT)


@pytest.mark.parametrize("backend", ["wg-quick", "systemd-networkd"])
def test_unit_of_the_agent(demo: Mesh, backend: str) -> None:
    made = replace(demo, nodes={**demo.nodes, "fra1": replace(demo.nodes["fra1"], backend=backend)})
    check(f"agent.{backend}.service", file(renderer(made).node("fra1"), UNIT))


def test_every_managed_node_runs_the_agent_after_all_else() -> None:
    for name in ("fra1", "web1"):
        assert renderer(TWO).node(name).resources[-1] == Service(
            "meshctl-agent", "started", enabled=True, cleanup=("/usr/local/bin/meshctl-agent", "cleanup")
        )  # fmt: skip


def test_the_document_is_roots_alone_and_nothing_prints_or_shows_it() -> None:
    doc = renderer(TWO).node("web1")
    found = told(doc)
    document = agent_document(compile_mesh(TWO), PskRing(SECRET), "web1")
    assert found.content == encode(document)
    assert (found.mode, found.owner, found.sensitive) == ("0600", "root", True)
    (peer,) = document.config.networks[0].peers
    assert base64.b64encode(peer.pair_key).decode() not in repr(doc) + str(doc)


def test_a_new_document_restarts_nothing_and_another_version_or_unit_does() -> None:
    doc = renderer(TWO).node("web1")
    link = File("/opt/meshctl/meshctl-agent.pyz", "link", target=zipapp.build().path, notify=("restart meshctl-agent",))
    assert link in doc.resources
    notifying = {r.path for r in doc.resources if isinstance(r, File) and r.notify}
    assert notifying == {link.path, UNIT}
    assert [(h.service, h.action) for h in doc.handlers] == [("meshctl-agent", "restarted")]


def test_a_node_without_the_agent_has_nothing_of_it_and_others_take_it_for_a_stock_client() -> None:
    made = replace(TWO, nodes={**TWO.nodes, "web1": node("web1", 2, agent=False)})
    resources = renderer(made).node("web1").resources
    names = {r.path for r in resources if isinstance(r, File)} | {r.name for r in resources if isinstance(r, Service)}
    assert not [name for name in names if "agent" in name]
    assert "51871" not in next(r for r in resources if isinstance(r, Nftables)).text
    document = load(told(renderer(made).node("fra1")).content or b"")
    assert [peer.kind for peer in document.config.networks[0].peers] == ["client"]


def test_an_anchor_keeps_its_relay_ports_from_other_programs_and_may_have_more_of_its_own() -> None:
    ports = Sysctl("net.ipv4.ip_local_reserved_ports", "40000-49999")
    assert ports in renderer(TWO).node("fra1").resources
    assert ports not in renderer(TWO).node("web1").resources
    more = replace(TWO.nodes["fra1"], vars={"reserved_ports": "30000-32767,40000-49999"})
    doc = renderer(replace(TWO, nodes={**TWO.nodes, "fra1": more})).node("fra1")
    assert replace(ports, value="30000-32767,40000-49999") in doc.resources
    assert b"= 30000-32767,40000-49999\n" in file(doc, "/etc/sysctl.d/90-meshctl-relay.conf")


def test_the_tables_that_the_agent_makes_go_with_the_role() -> None:
    runtime = {r.table for r in renderer(TWO).node("web1").resources if isinstance(r, Nftables) and r.text is None}
    assert runtime == {"meshctl_splices", "meshctl_relays"}


def test_before_a_node_has_its_key_or_where_there_is_no_secret_the_document_is_not_known() -> None:
    keyless = replace(TWO, nodes={**TWO.nodes, "web1": without_key(TWO.nodes["web1"])})
    assert told(renderer(keyless).node("web1")).content == b""
    assert told(Renderer(compile_mesh(TWO)).node("web1")).content == b""
    alone = mesh(node("web1", 2))
    assert load(told(Renderer(compile_mesh(alone)).node("web1")).content or b"").config.networks[0].peers == ()
