"""Stock clients: what `meshctl client` shows, once, and what it keeps."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zxingcpp
from jsonschema import Draft202012Validator
from render_meshes import DEMO, SECRET, mesh, node, renderer, rule, without_key

from meshctl import inventory
from meshctl.cli import run
from meshctl.cli.client import _pin as pin
from meshctl.core.psk import PskRing
from meshctl.errors import MeshctlError, UsageError
from meshctl.inventory.schema import load_schema
from meshctl.model.keys import PublicKey, Secret, is_key_text
from meshctl.render.client import check_profile, find_network, listen_port, new_key_pair, render_client

FRA = node("fra", 1, endpoint=True, roles=("anchor",))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """The demo, every node but the phone with a key in the lock."""
    path = tmp_path / "inventory.yml"
    path.write_bytes(DEMO.read_bytes())
    read = inventory.read(path)
    pairs = [(n.name, a.network) for n in read.mesh.nodes.values() for a in n.attachments if not n.client]
    inventory.write_lock(read.with_keys({pair: new_key_pair()[1] for pair in pairs}))
    return tmp_path


@pytest.fixture(name="client")
def _client(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("MESHCTL_SECRET", SECRET.reveal())

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["client", *arguments, "-i", str(folder / "inventory.yml")])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def field(config: str, name: str) -> str:
    return next(line.split(" = ", 1)[1] for line in config.splitlines() if line.startswith(f"{name} = "))


def test_show_prints_a_config_once_and_keeps_the_public_half_alone(client: Any, folder: Path) -> None:
    code, config, _ = client("show", "phone", "--conf")
    assert code == 0
    private = field(config, "PrivateKey")
    lock = (folder / "inventory.lock.yml").read_text()
    assert private not in lock
    read = inventory.read(folder / "inventory.yml")
    public = read.mesh.nodes["phone"].attachments[0].public_key
    assert public_of(private) == public
    fra = read.mesh.nodes["fra1"].attachments[0].public_key
    assert PskRing(SECRET).psk(public, fra).reveal() in config
    code, out, err = client("show", "phone", "--conf")
    assert (code, out) == (1, "")
    assert "--rekey" in err
    code, again, _ = client("show", "phone", "--conf", "--rekey")
    assert code == 0
    assert field(again, "PrivateKey") != private


def public_of(private: str) -> PublicKey:
    from base64 import b64decode, b64encode

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = X25519PrivateKey.from_private_bytes(b64decode(private)).public_key()
    return PublicKey(b64encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode())


def test_a_png_is_private_to_its_owner_and_a_qr_code_prints_no_key(client: Any, folder: Path) -> None:
    picture = folder / "phone.png"
    code, out, err = client("show", "phone", "--png", str(picture))
    assert (code, out) == (0, "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600
    assert "PrivateKey" not in err
    code, out, _ = client("show", "phone", "--qr", "--rekey")
    assert code == 0
    assert "▀" in out or "▄" in out
    assert "PrivateKey" not in out


def scanned(rows: list[list[bool]], scale: int = 1) -> str:
    """What a scanner reads from a code with its quiet zone (True is dark), each dot drawn `scale` pixels wide."""
    lines = [bytes(0 if dark else 255 for dark in row for _ in range(scale)) for row in rows for _ in range(scale)]
    picture = memoryview(b"".join(lines)).cast("B", shape=[len(lines), len(lines[0])])
    (found,) = zxingcpp.read_barcodes(picture)
    return found.text


def modules_of_png(data: bytes) -> list[list[bool]]:
    """Pixels of a one-bit greyscale PNG as segno writes it (0 is black)."""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert (depth, colour) == (1, 0)
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        packed += data[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    raw, stride = zlib.decompress(packed), 1 + (width + 7) // 8
    lines = [bytes(stride - 1)]
    for y in range(height):
        kind, line = raw[y * stride], raw[y * stride + 1:(y + 1) * stride]
        assert kind in (0, 2)  # none, or the difference to the line above
        lines.append(bytes((a + b) % 256 for a, b in zip(line, lines[-1], strict=True)) if kind else line)
    return [[not line[x // 8] >> (7 - x % 8) & 1 for x in range(width)] for line in lines[1:]]


def test_a_scanner_reads_the_config_from_the_png_and_from_the_terminal(client: Any, folder: Path) -> None:
    picture = folder / "phone.png"
    client("show", "phone", "--png", str(picture))
    config = scanned(modules_of_png(picture.read_bytes()))
    known = inventory.read(folder / "inventory.yml").mesh.nodes["phone"].attachments[0].public_key
    assert public_of(field(config, "PrivateKey")) == known
    _, out, _ = client("show", "phone", "--qr", "--rekey")
    config = scanned(modules_of_terminal(out), scale=3)
    known = inventory.read(folder / "inventory.yml").mesh.nodes["phone"].attachments[0].public_key
    assert public_of(field(config, "PrivateKey")) == known


def modules_of_terminal(text: str) -> list[list[bool]]:
    """Modules of a code drawn with half blocks on a dark terminal: what is drawn is light."""
    rows: list[list[bool]] = []
    for line in text.rstrip("\n").split("\n"):
        drawn = re.sub(r"\x1b\[[0-9;]*m", "", line)
        rows.append([c not in "▀█" for c in drawn])
        rows.append([c not in "▄█" for c in drawn])
    return rows


def test_a_png_that_cannot_be_written_leaves_the_lock_as_it_was(client: Any, folder: Path) -> None:
    before = (folder / "inventory.lock.yml").read_bytes()
    code, _, err = client("show", "phone", "--png", str(folder / "no" / "such" / "phone.png"))
    assert code == 1
    assert "cannot write" in err
    assert (folder / "inventory.lock.yml").read_bytes() == before


@pytest.mark.parametrize("how", ["--conf", "--qr", "-o json"])
def test_a_config_that_could_not_be_printed_is_not_pinned(folder: Path, how: str) -> None:
    before = (folder / "inventory.lock.yml").read_bytes()
    words = [sys.executable, "-m", "meshctl", "client", "show", "phone", *how.split()]
    words += ["-i", str(folder / "inventory.yml")]
    env = {**os.environ, "MESHCTL_SECRET": SECRET.reveal()}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=env, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "Error: standard output: No space left on device\n")
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(words, stdout=write_end, stderr=subprocess.PIPE, env=env, check=False, timeout=60)
    os.close(write_end)
    assert done.returncode == 1
    assert (folder / "inventory.lock.yml").read_bytes() == before


def test_a_client_that_is_revoked_while_its_config_is_shown_is_told_so_and_the_new_key_is_nobodys(folder: Path) -> None:
    shown = new_key_pair()[1]
    showing = inventory.read(folder / "inventory.yml").with_keys({("phone", "corp"): shown})
    inventory.write_lock(inventory.read(folder / "inventory.yml").revoking(["phone"]))
    with pytest.raises(MeshctlError, match="revoked meanwhile; the config of phone that was just shown will not work"):
        pin(showing, "phone", None)
    lock = inventory.read(folder / "inventory.yml").lock
    assert (lock.is_revoked("phone"), lock.revoked["phone"].keys) == (True, (shown,))


def test_json_has_the_config_and_what_it_is_about(client: Any) -> None:
    code, out, _ = client("show", "phone", "-o", "json")
    shown = json.loads(out)
    Draft202012Validator(load_schema("client")).validate(shown)
    assert code == 0
    assert shown["client"] == "phone"
    assert is_key_text(shown["public_key"])
    assert "[Interface]" in shown["config"]


def test_list_says_who_has_a_key(client: Any) -> None:
    assert "no key yet" in client("list")[1]
    client("show", "phone", "--conf")
    listed = json.loads(client("list", "-o", "json")[1])
    Draft202012Validator(load_schema("client")).validate(listed)
    (row,) = listed["clients"]
    assert is_key_text(row["public_key"])
    assert row["profile"] == "direct"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "phone"), "choose how to show"),
        (("show", "phone", "--conf", "--qr"), "choose how to show"),
        (("show", "office", "--conf"), "office is not a stock client; clients: phone"),
        (("show", "nobody", "--conf"), "nobody is not in the inventory"),
        (("show", "phone", "--conf", "--network", "other"), "phone is not in network other"),
    ],
)
def test_wrong_usage_is_explained(client: Any, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = client(*arguments)
    assert (code, out) == (64, "")
    assert words in err


def test_a_peer_without_a_key_is_named_with_the_remedy() -> None:
    m = mesh(without_key(FRA), node("phone", 9, client=True))
    with pytest.raises(MeshctlError, match=r"fra is not known yet; run `meshctl apply`"):
        render_client(renderer(m), "phone", "corp", Secret("x"))


def test_a_client_that_reaches_nobody_is_told_what_is_missing() -> None:
    with pytest.raises(MeshctlError, match="no peer that it could reach"):
        render_client(renderer(mesh(node("phone", 9, client=True), node("a", 5))), "phone", "corp", Secret("x"))


def test_direct_peers_stand_beside_the_anchor_that_has_all_the_rest() -> None:
    m = mesh(
        FRA, node("open", 5, endpoint=True), node("hidden", 6), node("phone", 9, client=True, peers=("hidden",)),
        rules=(rule("phone", "open hidden"),),
    )
    config = render_client(renderer(m), "phone", "corp", Secret("x")).reveal()
    assert "AllowedIPs = 10.42.0.0/16, fd42:42::/48\nEndpoint = 203.0.113.1:51820\nPersistentKeepalive = 25" in config
    assert "AllowedIPs = 10.42.0.5/32, fd42:42::5/128\nEndpoint = 203.0.113.5:51820" in config
    assert "hidden" not in config


def test_the_routed_profile_is_refused_while_peers_expect_the_client_directly() -> None:
    phone = node("phone", 9, client=True)
    m = mesh(FRA, node("open", 5, endpoint=True), phone)
    link = renderer(m).topology.interfaces("phone")[0]
    with pytest.raises(UsageError, match="open would still answer phone directly"):
        check_profile(m, phone, link, "routed")
    routed = replace(phone, vars={"client_profile": "routed"})
    m = replace(m, nodes={**m.nodes, "phone": routed})
    check_profile(m, routed, renderer(m).topology.interfaces("phone")[0], "routed")


def test_every_client_has_a_listen_port_of_its_own_and_keeps_it_when_others_come() -> None:
    clients = [node(f"c{i}", i, client=True) for i in range(2, 200)]
    m = mesh(FRA, *clients)
    ports = {c.name: listen_port(m, c.name, "corp") for c in clients}
    assert len(set(ports.values())) == len(ports)
    assert 51820 not in ports.values()
    assert all(1024 <= port <= 65535 for port in ports.values())
    fewer = mesh(FRA, *clients[:20])
    assert all(listen_port(fewer, c.name, "corp") == ports[c.name] for c in clients[:20])


def test_a_port_in_the_inventory_is_kept_and_two_that_collide_are_told_apart() -> None:
    span = 65535 - 51820
    one, other, own = node("one", 9, client=True), node("other", 10, client=True), node("own", 11, client=True)
    far = f"10.42.{(span + 9) // 256}.{(span + 9) % 256}"
    other = replace(other, attachments=(replace(other.attachments[0], addresses=(far, "fd42:42::a")),))
    own = replace(own, attachments=(replace(own.attachments[0], listen_port=4500),))
    m = mesh(one, other, own)
    assert listen_port(m, "own", "corp") == 4500
    assert listen_port(m, "one", "corp") == 51830
    assert listen_port(m, "other", "corp") == 51831


def test_a_client_in_two_networks_must_say_which() -> None:
    phone = node("phone", 9, client=True, networks=("corp", "lab"))
    assert find_network(phone, "lab") == "lab"
    with pytest.raises(UsageError, match="several networks; give --network, one of corp, lab"):
        find_network(phone, None)


def test_a_key_pair_is_a_pair() -> None:
    private, public = new_key_pair()
    assert public_of(private.reveal()) == public
    assert private.reveal() not in repr(private) + str(private) + f"{private}"
