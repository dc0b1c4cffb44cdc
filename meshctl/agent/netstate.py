"""What the network of a host is, as data: links, addresses, routes, rules, WireGuard, nftables and sysctls.

What the kernel, a DHCP client or a routing daemon sees to by itself is left out, and so are the agents' tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from meshctl.agent import process
from meshctl.agent.failure import ApplyError, redact
from meshctl.agent.sysctls import values
from meshctl.agent.wgtext import in_order
from meshctl.model.places import RELAYS_TABLE, SPLICES_TABLE

# Kinds of links that are WireGuard's: the kernel's, and what a userspace implementation makes.
KINDS = WIREGUARD, USERSPACE = "wireguard", "tun"
AGENTS_TABLES = frozenset(f"inet {name}" for name in (RELAYS_TABLE, SPLICES_TABLE))
# What `ip route` says of a route's state, which nobody can set.
_STATES = frozenset({"linkdown", "dead", "offload", "trap"})
# Who sees to a route by itself (rtnetlink(7), /etc/iproute2/rt_protos): what such a daemon has withdrawn meanwhile must
# not come back, nor go what it has just found out. A DHCP client notices no loss for hours: its routes are put back.
_DAEMONS = frozenset({
    "kernel", "ra", "gated", "mrt", "zebra", "bird", "dnrouted", "xorp", "ntk", "keepalived", "babel", "openr", "bgp",
    "isis", "ospf", "rip", "eigrp",
})  # fmt: skip
# What ip and nft say where the kernel has no such family or no nf_tables: then it has none of it. Any other failure
# would have a host that goes back lose all that it could not list.
_NOT_SUPPORTED = re.compile(r"(?:Operation|Protocol|Address family) not supported")
# What they and wg say of a thing that has gone since it was listed.
_GONE = re.compile(r"No such (?:device|file or directory)|does not exist", re.I)
# What nobody can read at the moment: the field of NetState, and the name in it (its family; "" for all of the field).
Unread = Mapping[tuple[str, str], str]
T = TypeVar("T")


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
    state, unread = look(sysctls)
    for what in unread.values():
        raise ApplyError("command", f"the state of the network cannot be read: {what}")
    return state


def look(sysctls: Iterable[str] = ()) -> tuple[NetState, Unread]:
    """As `capture`, with what cannot be read left out, and why, in words, for each."""
    reading = _Reading()
    links = reading.of("links", "", _links) or {}
    interfaces = reading.of("wireguard", "", _interfaces) or []
    for name in interfaces:
        if name in links and not links[name].kind:
            links[name] = Link(USERSPACE, links[name].mtu, links[name].up, links[name].addresses)
    configs = reading.texts("wireguard", interfaces, "wg", "showconf")
    state = NetState(
        links,
        {family: reading.of("routes", family, _routes, family) or () for family in "46"},
        {family: reading.of("rules", family, _rules, family) or () for family in "46"},
        {name: in_order(text) for name, text in configs.items()},
        reading.texts("tables", reading.of("tables", "", _tables) or [], "nft", "-s", "list", "table"),
        values(sysctls),
    )
    return state, reading.unread


class _Reading:
    """Each part by itself: one that fails keeps no other from being read."""

    def __init__(self) -> None:
        self.unread: dict[tuple[str, str], str] = {}

    def of(self, part: str, name: str, read: Callable[..., T], *arguments: Any) -> T | None:
        """What the function returns, None when it fails."""
        try:
            return read(*arguments)
        except ApplyError as error:
            self.unread[part, name] = error.message
        except (OSError, ValueError, KeyError, TypeError) as error:  # a program did not say what it should
            self.unread[part, name] = f"{part} {name}".strip() + f" cannot be read ({type(error).__name__})"
        return None

    def texts(self, part: str, names: Iterable[str], *command: str) -> dict[str, str]:
        """What the command says of each that is still there."""
        found = {name: self.of(part, name, _text, *command, *name.split()) for name in names}
        return {name: text for name, text in found.items() if text is not None}


def as_unread(wanted: NetState, now: NetState, unread: Unread) -> NetState:
    """`wanted`, but as `now` where that could not be read: nothing is to be done about it."""
    parts: dict[str, Any] = {}
    for part, name in unread:
        have = getattr(now, part)
        if not name:
            parts[part] = have
            continue
        some = dict(parts.get(part, getattr(wanted, part)))
        some.pop(name, None)
        parts[part] = {**some, name: have[name]} if name in have else some
    return replace(wanted, **parts)


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
    """One a line, with all its next hops (`-o`), which come last as `ip route add` wants them."""
    lines = _listing("ip", "-o", f"-{family}", "route", "show", "table", "all")
    words = [[word for word in line.replace("\\", " ").split() if word not in _STATES] for line in lines]
    return tuple(sorted(" ".join(w) for w in words if w and "expires" not in w and _protocol(w) not in _DAEMONS))


def _protocol(route: list[str]) -> str:
    return route[route.index("proto") + 1] if "proto" in route[:-1] else ""


def _rules(family: str) -> tuple[str, ...]:
    """`100:  from all lookup 7` as `pref 100 from all lookup 7`."""
    lines = _listing("ip", f"-{family}", "rule", "show")
    return tuple(sorted("pref {} {}".format(*map(str.strip, line.split(":", 1))) for line in lines if ":" in line))


def _interfaces() -> list[str]:
    return _output("wg", "show", "interfaces").split() if process.find("wg") else []


def _tables() -> list[str]:
    if process.find("nft") is None:
        return []
    names = (line.partition(" ")[2].strip() for line in _listing("nft", "list", "tables"))
    return [name for name in names if name not in AGENTS_TABLES]


def _listing(*argv: str) -> list[str]:
    """The lines of a list, none where the kernel has nothing of the kind. Raises ApplyError for any other failure."""
    ran = process.run(argv)
    if ran.status != 0 and _NOT_SUPPORTED.search(ran.output):
        return []
    return _checked(argv, ran).splitlines()


def _text(*argv: str) -> str | None:
    """What a program says of a thing that was listed, None when that has gone meanwhile. Raises ApplyError."""
    ran = process.run(argv)
    return None if ran.status != 0 and _GONE.search(ran.output) else _checked(argv, ran)


def _output(*argv: str) -> str:
    return _checked(argv, process.run(argv))


def _checked(argv: Iterable[str], ran: process.Ran) -> str:
    if ran.status != 0:
        raise ApplyError("command", f"{' '.join(argv)}: {redact(ran.output) or f'exit status {ran.status}'}")
    return ran.stdout
