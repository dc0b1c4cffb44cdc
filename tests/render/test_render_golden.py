"""Golden files: the demo, byte for byte. `UPDATE_GOLDEN=1 pytest tests/render` rewrites them; read the diff."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from render_meshes import SECRET, mesh, node, renderer, rule, without_key

from meshctl.model.keys import Secret
from meshctl.model.mesh import Mesh
from meshctl.model.resources import File, Nftables, NodeDoc, Service, Sysctl, WireGuard
from meshctl.render.client import render_client

GOLDEN = Path(__file__).parent / "golden"
CLIENT_KEY = Secret("cHJpdmF0ZSBrZXkgb2YgdGhlIGdvbGRlbiBmaWxlcyE=")


def check(name: str, content: bytes) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert content.decode() == path.read_text()


def file(doc: NodeDoc, path: str) -> bytes:
    found = next(r for r in doc.resources if isinstance(r, File) and r.path == path)
    assert found.content is not None
    return found.content


def table(doc: NodeDoc) -> str:
    return next(r for r in doc.resources if isinstance(r, Nftables)).text


def nft_accepts(text: str) -> subprocess.CompletedProcess[str]:
    """Load the text into a network namespace of its own."""
    return subprocess.run(["unshare", "-n", "nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("name", ["fra1", "home1", "office"])
def test_wg_quick_config(demo: Mesh, name: str) -> None:
    check(f"{name}.wg0.conf", file(renderer(demo).node(name), "/etc/wireguard/wg0.conf"))


@pytest.mark.parametrize("suffix", ["netdev", "network"])
def test_systemd_networkd_files(demo: Mesh, suffix: str) -> None:
    networkd = replace(demo.nodes["home1"], backend="systemd-networkd")
    doc = renderer(replace(demo, nodes={**demo.nodes, "home1": networkd})).node("home1")
    check(f"home1.{suffix}", file(doc, f"/etc/systemd/network/50-meshctl-wg0.{suffix}"))
    assert Service("systemd-networkd", "started", True) in doc.resources
    assert not any(isinstance(r, File) and r.path.endswith(".conf") for r in doc.resources)
    assert next(iter(doc.interfaces())).key_group == "systemd-network"


@pytest.mark.parametrize("name", ["fra1", "home1", "office"])
def test_nftables_table(demo: Mesh, name: str) -> None:
    text = table(renderer(demo).node(name))
    check(f"{name}.nft", text.encode())
    loaded = nft_accepts(text)
    assert loaded.returncode == 0, loaded.stderr


def test_stock_client_config(demo: Mesh) -> None:
    check("phone.conf", render_client(renderer(demo), "phone", "corp", CLIENT_KEY).reveal().encode())


def exit_mesh() -> Mesh:
    return mesh(
        node("exit", 4, endpoint=True, roles=("gateway",), exit_node=True, routes=("192.168.20.0/24", "fd99::/64")),
        node("user", 5, exit_via="exit", networks=("corp", "lab")),
        node("fra", 1, endpoint=True, roles=("anchor",)),
        rules=(rule("user", "exit internet 192.168.20.0/24 fd99::/64"),),
    )


@pytest.mark.parametrize("name", ["exit", "user"])
def test_nftables_table_of_an_exit_node_and_of_its_user(name: str) -> None:
    text = table(renderer(exit_mesh()).node(name))
    check(f"exit-{name}.nft", text.encode())
    loaded = nft_accepts(text)
    assert loaded.returncode == 0, loaded.stderr


def test_systemd_networkd_has_the_policy_routing_of_an_exit_node_s_user() -> None:
    made = exit_mesh()
    user = replace(made.nodes["user"], backend="systemd-networkd")
    doc = renderer(replace(made, nodes={**made.nodes, "user": user})).node("user")
    check("exit-user.network", file(doc, "/etc/systemd/network/50-meshctl-wg0.network"))
    assert Sysctl("net.ipv4.conf.all.src_valid_mark", "1") in doc.resources


def test_the_boot_file_replaces_the_table_in_one_transaction(demo: Mesh) -> None:
    doc = renderer(demo).node("fra1")
    boot = file(doc, "/etc/meshctl/firewall.nft").decode()
    assert boot.endswith(table(doc))
    loaded = nft_accepts(boot + boot.replace("40000-49999", "40000-40001"))
    assert loaded.returncode == 0, loaded.stderr


def test_a_gateway_without_masquerade_masquerades_for_the_way_to_the_internet_alone() -> None:
    made = exit_mesh()
    plain = replace(made.nodes["exit"], vars={"gateway_masquerade": False})
    text = table(renderer(replace(made, nodes={**made.nodes, "exit": plain})).node("exit"))
    chain = text.split("chain postrouting")[1]
    assert chain.index("ip daddr { 192.168.20.0/24 } accept") < chain.index("masquerade")
    assert nft_accepts(text).returncode == 0


def test_an_anchor_and_a_gateway_forward_now_and_after_a_reboot(demo: Mesh) -> None:
    for name in ("fra1", "office"):
        doc = renderer(demo).node(name)
        assert {Sysctl("net.ipv4.ip_forward", "1"), Sysctl("net.ipv6.conf.all.forwarding", "1")} <= {
            r for r in doc.resources if isinstance(r, Sysctl)
        }
        assert b"net.ipv4.ip_forward = 1" in file(doc, "/etc/sysctl.d/90-meshctl.conf")
    assert not any(isinstance(r, Sysctl) for r in renderer(demo).node("home1").resources)


def test_no_private_key_is_in_any_file_but_its_place_is(demo: Mesh) -> None:
    doc = renderer(demo).node("home1")
    assert b"PostUp = wg set %i private-key /etc/wireguard/wg0.key" in file(doc, "/etc/wireguard/wg0.conf")
    assert not any(isinstance(r, File) and r.content and b"PrivateKey =" in r.content for r in doc.resources)


def test_files_with_pre_shared_keys_are_private_and_nothing_prints_them(demo: Mesh) -> None:
    doc = renderer(demo).node("home1")
    psks = [psk.reveal() for r in doc.resources if isinstance(r, WireGuard) for psk in r.psks if psk]
    assert psks
    assert not any(psk in repr(doc) + str(doc) for psk in psks)
    for resource in doc.resources:
        if isinstance(resource, File) and any(psk.encode() in (resource.content or b"") for psk in psks):
            assert (resource.sensitive, resource.mode) == (True, "0600")


def test_peers_without_a_key_are_left_out_of_the_files_and_kept_in_the_document(demo: Mesh) -> None:
    made = replace(demo, nodes={**demo.nodes, "fra1": without_key(demo.nodes["fra1"])})
    doc = renderer(made).node("home1")
    assert "# fra1" not in file(doc, "/etc/wireguard/wg0.conf").decode()
    (interface,) = doc.interfaces()
    assert [p.name for p in interface.peers] == ["cafe1", "cafe2", "fra1", "home2", "nyc1", "office"]
    assert [p.name for p, psk in zip(interface.peers, interface.psks, strict=True) if psk is None] == ["fra1"]


def test_a_node_that_declines_pre_shared_keys_has_none_from_either_side(demo: Mesh) -> None:
    made = replace(demo, nodes={**demo.nodes, "fra1": replace(demo.nodes["fra1"], psk=False)})
    render = renderer(made)
    assert set(render.node("fra1").interfaces()[0].psks) == {None}
    home = render.node("home1").interfaces()[0]
    assert [p.name for p, psk in zip(home.peers, home.psks, strict=True) if psk is None] == ["fra1"]


def test_config_gives_the_files_of_the_whole_document(demo: Mesh) -> None:
    render = renderer(demo)
    expected = {"/etc/wireguard/wg0.conf": file(render.node("home1"), "/etc/wireguard/wg0.conf")}
    assert render.config("home1") == expected


DIGEST = """
import hashlib, sys, tempfile
from pathlib import Path
from render_meshes import demo_mesh, renderer
with tempfile.TemporaryDirectory() as folder:
    render = renderer(demo_mesh(Path(folder)))
    out = hashlib.sha256()
    for n in render.mesh.managed():
        doc = render.node(n.name)
        out.update(repr(doc).encode())
        out.update(b"".join(getattr(r, "content", None) or b"" for r in doc.resources))
print(out.hexdigest())
"""


def test_rendering_does_not_depend_on_the_hash_seed() -> None:
    folder = Path(__file__).parent
    digests = set()
    for seed in ("0", "1", "77", "4242"):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{folder}:{folder.parents[1]}"}
        done = subprocess.run([sys.executable, "-c", DIGEST], env=environ, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_mesh_secret_is_in_nothing_that_is_rendered(demo: Mesh) -> None:
    doc = renderer(demo).node("home1")
    everything = repr(doc).encode() + b"".join(r.content or b"" for r in doc.resources if isinstance(r, File))
    assert SECRET.reveal().encode() not in everything


def test_an_interface_whose_name_nft_does_not_take_has_a_chain_all_the_same(demo: Mesh) -> None:
    home = demo.nodes["home1"]
    odd = replace(home, attachments=(replace(home.attachments[0], interface="wg+1"),))
    loaded = nft_accepts(table(renderer(replace(demo, nodes={**demo.nodes, "home1": odd})).node("home1")))
    assert loaded.returncode == 0, loaded.stderr
