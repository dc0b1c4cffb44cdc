"""While a node's rotation is pending, each of its peers has it twice: the next key without prefixes or endpoint."""

from __future__ import annotations

from dataclasses import replace

from render_meshes import SECRET, key, mesh, node

from meshctl.core.psk import PskRing
from meshctl.model.mesh import Mesh, Node
from meshctl.policy import compile_mesh
from meshctl.render import Renderer
from meshctl.render.agentdoc import agent_document

NEXT = key("web1", "the next one")
RING = PskRing(SECRET)


def rotating(n: Node) -> Node:
    return replace(n, attachments=tuple(replace(a, next_public_key=NEXT) for a in n.attachments))


def pending(**more: bool) -> Mesh:
    hub = node("hub", 1, endpoint=True, roles=("anchor",))
    return mesh(hub, rotating(node("web1", 2, endpoint=True, **more)), node("web10", 3))


def renderer(of: Mesh) -> Renderer:
    return Renderer(compile_mesh(of), RING)


def test_a_peer_has_the_next_key_beside_the_one_that_counts() -> None:
    (wg,) = renderer(pending()).node("hub").interfaces()
    assert [p.name for p in wg.peers] == ["web1", "web1 (next key)", "web10"]
    awaited = wg.peers[1]
    assert (awaited.public_key, awaited.allowed_ips, awaited.endpoint, awaited.keepalive_s) == (NEXT, (), None, 0)
    assert wg.psks[1] == RING.psk(NEXT, key("hub"))


def test_the_file_for_the_boot_has_both() -> None:
    text = renderer(pending()).config("hub")["/etc/wireguard/wg0.conf"].decode()
    assert f"# web1 (next key)\n[Peer]\nPublicKey = {NEXT}\nPresharedKey = " in text
    assert f"PublicKey = {key('web1')}\nAllowedIPs = 10.42.0.2/32" in text


def test_the_node_itself_works_with_the_key_that_counts_and_knows_the_next() -> None:
    (wg,) = renderer(pending()).node("web1").interfaces()
    assert (wg.public_key, wg.next_public_key) == (key("web1"), NEXT)
    assert [p.name for p in wg.peers] == ["hub", "web10"]


def test_a_node_without_pre_shared_keys_has_none_under_its_next_key() -> None:
    (wg,) = renderer(pending(psk=False)).node("hub").interfaces()
    assert [p.name for p, psk in zip(wg.peers, wg.psks, strict=True) if psk is None] == ["web1", "web1 (next key)"]


def test_agents_are_told_of_the_key_that_counts_alone() -> None:
    document = agent_document(compile_mesh(pending()), RING, "hub")
    assert [p.public_key for p in document.config.networks[0].peers] == [key("web1"), key("web10")]
