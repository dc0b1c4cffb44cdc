"""Documents that tests build on: one node of a small mesh, with every kind of resource that needs no systemd."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

from meshctl.model.keys import PublicKey, Secret
from meshctl.model.resources import File, Nftables, NodeDoc, Peer, Resource, Sysctl, WireGuard

TABLE = """table inet meshctl {
	chain input {
		type filter hook input priority filter; policy accept;
		iifname != "wgt0" accept
	}
}
"""


def key(name: str) -> PublicKey:
    """A public key for a name: any 32 bytes are one."""
    return PublicKey(base64.b64encode(hashlib.sha256(name.encode()).digest()).decode())


def psk(name: str) -> Secret:
    """A pre-shared key for a name."""
    return Secret(base64.b64encode(hashlib.sha256(b"psk" + name.encode()).digest()).decode())


def peer(name: str, number: int, endpoint: str | None = None, keepalive_s: int = 0) -> Peer:
    """A peer with one address of each family."""
    return Peer(name, key(name), (f"10.42.0.{number}/32", f"fd42::{number}/128"), endpoint, keepalive_s)


def wireguard(*peers: Peer) -> WireGuard:
    """The interface wgt0 with these peers and a pre-shared key for each."""
    return WireGuard(
        interface="wgt0", network="corp", backend="wg-quick", addresses=("10.42.0.1/16", "fd42::1/48"),
        listen_port=51901, mtu=1420, key_file="/etc/wireguard/wgt0.key", public_key=None,
        peers=peers, psks=tuple(psk(p.name) for p in peers), routes=(),
    )


def wg_quick_conf(want: WireGuard) -> str:
    """The same as wg-quick reads it."""
    lines = ["[Interface]", *(f"Address = {a}" for a in want.addresses)]
    lines += [f"ListenPort = {want.listen_port}", f"MTU = {want.mtu}"]
    lines += [f"FwMark = {want.fwmark}"] if want.fwmark else []
    lines += [f"PostUp = wg set %i private-key {want.key_file}"]
    for each, secret in zip(want.peers, want.psks, strict=True):
        lines += ["[Peer]", f"PublicKey = {each.public_key}", f"AllowedIPs = {', '.join(each.allowed_ips)}"]
        lines += [f"PresharedKey = {secret.reveal()}"] if secret else []
        lines += [f"Endpoint = {each.endpoint}"] if each.endpoint else []
        lines += [f"PersistentKeepalive = {each.keepalive_s}"] if each.keepalive_s else []
    return "\n".join(lines) + "\n"


def document(want: WireGuard, *more: Resource) -> NodeDoc:
    """A node with that interface, its config file, a sysctl and a firewall table."""
    conf = File("/etc/wireguard/wgt0.conf", content=wg_quick_conf(want).encode(), mode="0600", sensitive=True)
    sysctl = Sysctl("net.ipv4.conf.all.src_valid_mark", "1")
    return NodeDoc("web1", (conf, sysctl, want, Nftables("inet", "meshctl", TABLE), *more))


def edited(doc: NodeDoc, **fields: object) -> NodeDoc:
    """The document with fields of its interface changed; the config file follows."""
    want = replace(doc.interfaces()[0], **fields)  # type: ignore[arg-type]
    return replace(document(want), resources=(*document(want).resources, *doc.resources[4:]))
