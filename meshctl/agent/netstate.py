"""What the network of a host is, as data: links, addresses, routes, rules, WireGuard, nftables and sysctls.

What the kernel or a DHCP client sees to by itself is left out, and so are the tables that agents keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from meshctl.agent import process
from meshctl.agent.failure import ApplyError, redact
from meshctl.agent.node.relays import TABLE as RELAYS
from meshctl.agent.node.splices import TABLE as SPLICES
from meshctl.agent.wgtext import in_order

# Kinds of links that are WireGuard's: the kernel's, and what a userspace implementation makes.
KINDS = WIREGUARD, USERSPACE = "wireguard", "tun"
AGENTS_TABLES = frozenset(f"inet {name}" for name in (RELAYS, SPLICES))
# What `ip route` says of a route's state, which nobody can set.
_STATES = frozenset({"linkdown", "dead", "offload", "trap"})


@dataclass(frozen=True)
class Link:
    """`kind` is "" for what is no WireGuard's. `addresses` are as `ip address add` takes them, sorted."""

    kind: str
    mtu: int
    up: bool
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetState:
    """Routes and rules are by family, 4 and 6, as `ip route add` and `ip rule add` take them. `wireguard`: what
    `wg showconf` says of each interface, which holds keys; `tables`: `nft -s list table`, by `FAMILY NAME`; `sysctls`:
    the content of files below /proc/sys."""

    links: Mapping[str, Link] = field(default_factory=dict)
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wireguard: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The state as it is kept on the node, for root alone."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> NetState:
        """The inverse of `to_json`. Raises ValueError for anything else."""
        try:
            raw: dict[str, Any] = json.loads(text)
            links = {
                name: Link(**{**link, "addresses": tuple(link["addresses"])}) for name, link in raw.pop("links").items()
            }
            for what in ("routes", "rules"):
                raw[what] = {family: tuple(lines) for family, lines in raw[what].items()}
            return cls(links, **raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a state of a network: {error!r}") from None


def capture(sysctls: Iterable[str] = ()) -> NetState:
    """The state now, with those sysctls, by path, that there are. Raises ApplyError when a program fails: a state that
    is not known cannot be come back to. A kernel without IPv6 or nftables has nothing of them."""
    links = _links()
    interfaces = _output("wg", "show", "interfaces").split() if process.find("wg") else []
    for name in interfaces:
        if name in links and not links[name].kind:
            links[name] = Link(USERSPACE, links[name].mtu, links[name].up, links[name].addresses)
    return NetState(
        links,
        {family: _routes(family) for family in "46"},
        {family: _rules(family) for family in "46"},
        {name: in_order(_output("wg", "showconf", name)) for name in interfaces},
        _tables(),
        _sysctls(sysctls),
    )


def _links() -> dict[str, Link]:
    found = {}
    for link in json.loads(_output("ip", "-j", "-d", "address", "show")):
        kind = link.get("linkinfo", {}).get("info_kind", "")
        addresses = sorted(_address(a) for a in link["addr_info"] if _is_set(a))
        up = "UP" in link["flags"]
        found[link["ifname"]] = Link(kind if kind == WIREGUARD else "", link["mtu"], up, tuple(addresses))
    return found


def _is_set(address: Mapping[str, Any]) -> bool:
    """Whether somebody has set it: not the kernel, and no client whose lease it is."""
    return not address.get("dynamic") and not str(address.get("protocol", "")).startswith("kernel")


def _address(address: Mapping[str, Any]) -> str:
    words = f"{address['local']} peer {address['address']}" if "address" in address else address["local"]
    words = f"{words}/{address['prefixlen']}"
    words += f" broadcast {address['broadcast']}" if "broadcast" in address else ""
    words += " noprefixroute" if address.get("noprefixroute") else ""
    return words


def _routes(family: str) -> tuple[str, ...]:
    lines = process.run(("ip", f"-{family}", "route", "show", "table", "all")).stdout.splitlines()
    words = [[word for word in line.split() if word not in _STATES] for line in lines]
    return tuple(sorted(" ".join(w) for w in words if w and "kernel" not in w and "ra" not in w and "expires" not in w))


def _rules(family: str) -> tuple[str, ...]:
    """`100:  from all lookup 7` as `pref 100 from all lookup 7`."""
    lines = process.run(("ip", f"-{family}", "rule", "show")).stdout.splitlines()
    return tuple(sorted("pref {} {}".format(*map(str.strip, line.split(":", 1))) for line in lines if ":" in line))


def _tables() -> dict[str, str]:
    if process.find("nft") is None:
        return {}
    names = [line.partition(" ")[2].strip() for line in process.run(("nft", "list", "tables")).stdout.splitlines()]
    return {name: _output("nft", "-s", "list", "table", *name.split()) for name in names if name not in AGENTS_TABLES}


def _sysctls(paths: Iterable[str]) -> dict[str, str]:
    return {path: Path(path).read_text() for path in sorted(paths) if Path(path).is_file()}


def _output(*argv: str) -> str:
    ran = process.run(argv)
    if ran.status != 0:
        raise ApplyError("command", f"{' '.join(argv)}: {redact(ran.output) or f'exit status {ran.status}'}")
    return ran.stdout
