"""Inventories of any size, all nodes public: full meshes, or stars around a few hubs."""

from __future__ import annotations

import base64
import random
from pathlib import Path

from meshctl import inventory
from meshctl.model.keys import PublicKey

LISTEN_PORT = 51820
# Fits 8,192 hosts; every node has one address of each family, like the example inventories.
CIDRS = ("10.42.0.0/16", "fd42:42::/48")
# As meshctl demands of it: 32 bytes of randomness. It protects nothing here.
SECRET = base64.b64encode(random.Random(1).randbytes(48)).decode()


def public_address(index: int) -> str:
    """The `index`th public address: 203.0.113.0/24 would hold only 254."""
    return f"198.18.{index // 250}.{index % 250 + 1}"


def text(count: int, *, hubs: int = 0, delay_ms: float = 0.0, ssh: str = "{user: root}") -> str:
    """The inventory of `count` nodes that may all talk to each other, or (with `hubs`) to the first few alone. Without
    agents: what is measured against has none."""
    lab = f", lab: {{nat: none, delay: {delay_ms:g}ms}}" if delay_ms else ""
    nodes = "\n".join(
        f'  n{i:04}: {{ssh: {{host: {public_address(i)}}}, endpoint: "{public_address(i)}:{LISTEN_PORT}"{lab}}}'
        for i in range(count)
    )
    names = ", ".join(f"n{i:04}" for i in range(hubs))
    policies = f'policies:\n  - {{name: hubs, from: ["*"], to: [{names}], allow: [any]}}\n' if hubs else ""
    is_open = "" if hubs else ", policy: open"
    return f"""version: 1
defaults: {{ssh: {ssh}, agent: false}}
networks:
  corp: {{cidr: [{CIDRS[0]}, "{CIDRS[1]}"]{is_open}}}
nodes:
{nodes}
{policies}"""


def write(folder: Path, count: int) -> Path:
    """An inventory with its lock, all keys known, as after a first apply. The keys are those of nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inventory.yml"
    path.write_text(text(count), encoding="utf-8")
    found = inventory.read(path)
    dice = random.Random(count)
    keys = {
        (node.name, attachment.network): PublicKey(base64.b64encode(dice.randbytes(32)).decode())
        for node in found.mesh.nodes.values()
        for attachment in node.attachments
    }
    inventory.write_lock(found.with_keys(keys))
    return path
