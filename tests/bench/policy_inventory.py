"""Inventories with as many nodes, groups and rules as asked for: gateways with LANs, and rules between groups."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import bench_meshes

# One node in fifty is a gateway with two prefixes behind it.
_GATEWAY_EVERY = 50
_GROUPS_OF_NODE = 3
_DENY_EVERY = 10
_PREFIX_EVERY = 8
# Every other rule is about one of these, so that rules meet in their ports too.
_COMMON_PORTS = (22, 80, 443, 5432)


def text(nodes: int, groups: int, rules: int) -> str:
    """The same mesh for the same three numbers."""
    dice = random.Random(f"{nodes}/{groups}/{rules}")
    members: dict[int, list[str]] = {}
    for i in range(nodes):
        for group in dice.sample(range(groups), min(_GROUPS_OF_NODE, groups)):
            members.setdefault(group, []).append(f"n{i:04}")
    return "\n".join([
        "version: 1",
        f'networks: {{corp: {{cidr: [{bench_meshes.CIDRS[0]}, "{bench_meshes.CIDRS[1]}"]}}}}',
        "nodes:",
        *map(_node, range(nodes)),
        "groups:",
        *(f"  g{group:03}: {{nodes: [{', '.join(names)}]}}" for group, names in sorted(members.items())),
        "policies:",
        *_rules(dice, sorted(members), -(-nodes // _GATEWAY_EVERY), rules),
        "",
    ])


def _node(i: int) -> str:
    address, gateway = bench_meshes.public_address(i), i // _GATEWAY_EVERY
    routes = f", roles: [gateway], routes: [172.20.{gateway}.0/24, 172.21.{gateway}.0/24]"
    endpoint = f'endpoint: "{address}:{bench_meshes.LISTEN_PORT}"'
    return f"  n{i:04}: {{ssh: {{host: {address}}}, {endpoint}{'' if i % _GATEWAY_EVERY else routes}}}"


def _rules(dice: random.Random, groups: list[int], gateways: int, count: int) -> Iterator[str]:
    for rule in range(count):
        source, destination = dice.choice(groups), dice.choice(groups)
        port = dice.choice(_COMMON_PORTS) if rule % 2 else dice.randrange(1, 60000)
        prefix = f"172.{20 + rule % 2}.{dice.randrange(gateways)}.0/24"
        target = f"g{destination:03}" if rule % _PREFIX_EVERY else prefix
        kind = "allow" if (rule + 1) % _DENY_EVERY else "priority: 10, deny"
        traffic = f"[tcp/{port}, udp/{port}-{port + 100}]"
        yield f"  - {{name: r{rule:04}, from: [g{source:03}], to: [{target}], {kind}: {traffic}}}"


def write(folder: Path, nodes: int, groups: int, rules: int) -> Path:
    """The inventory's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inventory.yml"
    path.write_text(text(nodes, groups, rules), encoding="utf-8")
    return path
