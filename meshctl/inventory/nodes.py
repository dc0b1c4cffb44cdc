"""One node of the inventory: its settings to a model.mesh.Node, every value checked on its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshctl.data_files import data_folder
from meshctl.inventory.addresses import HIGHEST_PORT, Address, Ranges, is_host, join_endpoint
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.names import Names
from meshctl.inventory.places import PlaceReader
from meshctl.inventory.settings import Setting, Settings
from meshctl.inventory.suggest import did_you_mean
from meshctl.model.mesh import AGENT_ROLE, DEFAULT_MTU, INTERFACE_NAME_MAX, IPV6_MIN_MTU, LabSettings, SshSettings

BUILT_IN_ROLES = ("wireguard", "firewall", "anchor", "gateway", "agent", "client")
# Every managed node has these first, and the agent last: it is started when all that it needs is there.
FIRST_ROLES = ("wireguard", "firewall")
DEFAULT_INTERFACE = "wg0"
DEFAULT_PORT = 51820
# RFC 791: every internet module must forward 68 octets and receive 576; nothing useful runs below.
IPV4_MIN_MTU = 576
# The largest IP packet less WireGuard's 80 octets over IPv6 (40 + 8 + 32).
MAX_MTU = 65535 - 80


@dataclass
class Interface:
    """An attachment in the making, with the places that later findings point to."""

    network: str
    name: str
    port: int
    mtu: int
    keepalive: int
    given: tuple[Address, ...] = ()
    endpoint: tuple[str, int] | None = None
    endpoint_path: Path = ()


@dataclass
class Draft:
    """A node in the making."""

    name: str
    path: Path
    settings: Settings
    interfaces: list[Interface] = field(default_factory=list)
    roles: tuple[str, ...] = ()
    routes: list[tuple[str, Path]] = field(default_factory=list)
    client: bool = False


class NodeReader:
    """Reads nodes against the networks and roles of one inventory."""

    def __init__(self, networks: Mapping[str, Ranges], names: Names, roles: frozenset[str], findings: Findings) -> None:
        self._networks = networks
        self._names = names
        self._roles = roles
        self._findings = findings
        self._places = PlaceReader(networks, findings)

    def draft(self, name: str, settings: Settings) -> Draft:
        """Everything about one node but its allocated addresses."""
        draft = Draft(name, ("nodes", name), settings, client=bool(settings.value("client", False)))
        draft.roles = self._read_roles(draft)
        used: dict[str, dict[Any, str]] = {"interface": {}, "listen_port": {}}
        for index, network in enumerate(settings.networks):
            interface = Interface(
                network,
                self._interface_name(settings, network, index),
                self._port(draft, network, index),
                self._mtu(settings, network),
                settings_int(settings.in_network("keepalive", network), 25),
            )
            self._check_clashes(draft, interface, used)
            draft.interfaces.append(interface)
        self._places.read(draft)
        self._check_network_keys(draft)
        return draft

    def _check_clashes(self, draft: Draft, interface: Interface, used: dict[str, dict[Any, str]]) -> None:
        """Name and port differ from those of the node's other interfaces; `used` is key -> value -> network."""
        network = interface.network
        for key, value in (("interface", interface.name), ("listen_port", interface.port)):
            other = used[key].setdefault(value, network)
            if other != network:
                found = draft.settings.in_network(key, network)
                self._findings.error(
                    f"{'interface' if key == 'interface' else 'port'}-clash",
                    found[1] if found else draft.path,
                    f"node `{draft.name}` has {key} {value} in both {other} and {network}",
                    f"give each network its own: {key}: {{{other}: …, {network}: …}}",
                )

    def _read_roles(self, draft: Draft) -> tuple[str, ...]:
        given = draft.settings.added("roles")
        for role, path in given.items():
            if role not in self._roles:
                hint = did_you_mean(role, self._roles) or "make a folder roles/NAME beside the inventory"
                self._findings.error("unknown-role", path, f"there is no role `{role}`", hint)
        if draft.client:
            return ()
        wanted = [*FIRST_ROLES, *given]
        if draft.settings.value("agent", True):
            wanted.append(AGENT_ROLE)
        return tuple(dict.fromkeys(wanted))

    def _interface_name(self, settings: Settings, network: str, index: int) -> str:
        found = settings.in_network("interface", network)
        base, path = found if found else (DEFAULT_INTERFACE, ())
        if index == 0 or (path and path[-1] == network) or path[:1] == ("networks",):
            return str(base)
        stem, digits = re.fullmatch(r"(.*?)([0-9]*)", base).groups()  # type: ignore[union-attr]
        name = f"{stem}{int(digits or 0) + index}"
        if len(name) > INTERFACE_NAME_MAX:
            self._findings.error(
                "bad-interface",
                path,
                f"`{name}` (for network {network}) is longer than {INTERFACE_NAME_MAX} characters",
                "give each network a name: interface: {NETWORK: NAME}",
            )
        return name

    def _port(self, draft: Draft, network: str, index: int) -> int:
        found = draft.settings.in_network("listen_port", network)
        base, path = found if found else (DEFAULT_PORT, ())
        if index == 0 or (path and path[-1] == network) or path[:1] == ("networks",):
            return int(base)
        if base + index > HIGHEST_PORT:
            self._findings.error(
                "out-of-range",
                path,
                f"port {base + index} (for network {network}) is above {HIGHEST_PORT}",
                "give each network a port: listen_port: {NETWORK: PORT}",
            )
        return int(base) + index

    def _mtu(self, settings: Settings, network: str) -> int:
        found = settings.in_network("mtu", network)
        if found is None or found[0] == "auto":
            return DEFAULT_MTU
        mtu, path = int(found[0]), found[1]
        if mtu < IPV4_MIN_MTU:
            self._findings.error("bad-mtu", path, f"an MTU of {mtu} is below {IPV4_MIN_MTU}", "leave it at auto")
        elif mtu > MAX_MTU:
            self._findings.error("bad-mtu", path, f"an MTU of {mtu} is above {MAX_MTU}", "leave it at auto")
        elif mtu < IPV6_MIN_MTU and self._networks[network].v6:
            self._findings.error(
                "bad-mtu",
                path,
                f"an MTU of {mtu} cannot carry IPv6, which network `{network}` has",
                f"use at least {IPV6_MIN_MTU}, or remove the IPv6 prefix from the network",
            )
        return mtu

    def _check_network_keys(self, draft: Draft) -> None:
        """`{NETWORK: …}` must name networks that the node is in."""
        members = {i.network for i in draft.interfaces}
        for mapping, path in draft.settings.own:
            for key in ("interface", "listen_port", "address", "endpoint"):
                value = mapping.get(key)
                for network in value if isinstance(value, dict) else ():
                    if network not in self._names.networks:
                        hint = did_you_mean(network, self._names.networks)
                        message = f"there is no network `{network}`"
                        self._findings.error("unknown-network", (*path, key, network), message, hint, key=True)
                    elif network not in members and path == draft.path:
                        message = f"node `{draft.name}` is not in network `{network}`"
                        hint = "add it to the node's networks, or remove this"
                        self._findings.error("unknown-network", (*path, key, network), message, hint, key=True)

    def ssh(self, draft: Draft) -> SshSettings:
        """The SSH settings; `host` defaults to the node's name."""
        merged = draft.settings.merged("ssh")
        if "host" in merged and not is_host(merged["host"][0]):
            text, path = merged["host"]
            self._findings.error("bad-host", path, f"`{text}` is neither a host name nor an address", "")

        def value(key: str, default: Any) -> Any:
            return merged[key][0] if key in merged else default

        jump = value("jump", ())
        return SshSettings(
            host=value("host", draft.name),
            port=value("port", None),
            user=value("user", ""),
            key=value("key", ""),
            jump=(jump,) if isinstance(jump, str) else tuple(jump),
            sudo=value("sudo", False),
            config=value("config", ""),
            known_hosts=value("known_hosts", ""),
            connect_timeout_s=value("connect_timeout", None),
            command_timeout_s=float(value("command_timeout", 300.0)),
            keepalive_s=value("keepalive", 15),
        )


def endpoint_text(interface: Interface) -> str | None:
    """The endpoint as the model keeps it."""
    return join_endpoint(*interface.endpoint) if interface.endpoint else None


def settings_int(found: Setting | None, default: int) -> int:
    """An integer setting's value."""
    return default if found is None else int(found[0])


def lab_settings(raw: Mapping[str, Any]) -> LabSettings:
    """A `lab:` block that the schema has accepted."""
    ipv6 = raw.get("ipv6")
    return LabSettings(
        nat=raw.get("nat"),
        behind=raw.get("behind"),
        upnp=bool(raw.get("upnp", False)),
        ipv6={True: "native", False: "none", None: None}.get(ipv6, ipv6),
        delay_ms=_milliseconds(raw.get("delay", "0ms")),
        jitter_ms=_milliseconds(raw.get("jitter", "0ms")),
        loss_percent=float(raw.get("loss", "0%").rstrip("%")),
        debian=raw.get("debian", ""),
    )


def _milliseconds(text: str) -> float:
    return float(text[:-2]) if text.endswith("ms") else float(text[:-1]) * 1000.0


def known_roles(base_dir: str) -> frozenset[str]:
    """Role folders: the user's beside the inventory, the packaged ones, and the built-in names."""
    from pathlib import Path as FilePath

    names = set(BUILT_IN_ROLES)
    names.update(entry.name for entry in data_folder("roles").iterdir() if entry.is_dir())
    own = FilePath(base_dir) / "roles"
    if own.is_dir():
        names.update(entry.name for entry in own.iterdir() if entry.is_dir())
    return frozenset(n for n in names if not n.startswith(("_", ".")))
