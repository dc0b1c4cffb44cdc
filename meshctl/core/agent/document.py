"""The agent's document: what the inventory says, as one JSON file on the node (schemas/agent.schema.json).

It holds the keys of pairs, so it is for root alone. Who may reach whom is written as sets that peers share: in a mesh
of a thousand nodes few of them differ.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from meshctl.core.agent.address import Address, NamedEndpoint, canonical
from meshctl.core.agent.config import (
    KINDS,
    OVERRIDES,
    PAIR_KEY_BYTES,
    AgentConfig,
    Endpoint,
    InterfaceConfig,
    PeerConfig,
)
from meshctl.core.agent.jsonreader import BAD, Field, Parser, Reader, flag, listed, number, one_of, text
from meshctl.errors import Diagnostic, MeshctlError
from meshctl.model.keys import PublicKey
from meshctl.model.mesh import INTERFACE_NAME_MAX

VERSION = 1
# UDP, on mesh addresses alone. Of the ports that IANA has not assigned, near WireGuard's own.
SIGNALLING_PORT = 51871
# WireGuard's own limit of a persistent keepalive (wg(8)).
_KEEPALIVE_MAX_S = 65535
# 999,999 Gbit/s, the most that the inventory can say.
RELAY_LIMIT_MAX = 125_000_000_000_000


class DocumentError(MeshctlError):
    """The document cannot be used. Carries every finding."""

    def __init__(self, findings: tuple[Diagnostic, ...]) -> None:
        super().__init__("\n".join(map(str, findings)), hint="`meshctl apply` writes the document anew")
        self.findings = findings


@dataclass(frozen=True)
class AgentDocument:
    """What the core needs, and what only the service needs."""

    config: AgentConfig
    signalling_port: int = SIGNALLING_PORT
    relay_limit: int = 0  # bytes a second that an anchor relays for a pair, each way; 0 for any number


def load(content: bytes, file: str = "") -> AgentDocument:
    """The document. Raises DocumentError with all findings; `file` is what they call it."""
    reader = Reader(file)
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):  # says where, and quotes nothing: there are keys in it
        reader.wrong("", "this is not JSON", "document-json")
        raise DocumentError(tuple(reader.findings)) from None
    found = reader.value(_document, value, "")
    if reader.findings:
        raise DocumentError(tuple(reader.findings))
    assert isinstance(found, AgentDocument)  # noqa: S101 - nothing was found wrong
    return found


def encode(document: AgentDocument) -> bytes:
    """The same as a file, a line a peer: equal documents are equal bytes."""
    config = document.config
    head = {
        "version": VERSION,
        "node": config.name,
        "signalling_port": document.signalling_port,
        "stun": [_endpoint_text(e) for e in config.stun_servers],
    }
    if document.relay_limit:
        head["relay_limit"] = document.relay_limit
    return (_with_list(head, "networks", map(_network_text, config.networks)) + "\n").encode()


# Reading


def _document(reader: Reader, value: Any, path: str) -> Any:
    found = reader.members(value, path, _DOCUMENT)
    if found is None:
        return BAD
    for member in ("network", "interface", "listen_port"):
        values = [getattr(network, member) for network in found["networks"]]
        for twice in sorted({v for v in values if values.count(v) > 1}):
            reader.wrong("networks", f"two networks have the {member} {twice}")
    config = AgentConfig(found["node"], found["networks"], found["stun"])
    return AgentDocument(config, found["signalling_port"], found["relay_limit"])


def _network(reader: Reader, value: Any, path: str) -> Any:
    found = reader.members(value, path, _NETWORK)
    if found is None:
        return BAD
    reaches = [frozenset(names) for names in found.pop("reaches")]
    peers = []
    for i, peer in enumerate(found.pop("peers")):
        index = peer.pop("reaches")
        if index is not None and index >= len(reaches):
            return reader.wrong(f"{path}.peers[{i}].reaches", f"there are {len(reaches)} sets in `{path}.reaches`")
        peers.append(PeerConfig(**peer, reaches=frozenset() if index is None else reaches[index]))
    is_anchor = found.pop("anchor")
    return InterfaceConfig(**found, peers=tuple(peers), is_anchor=is_anchor)


def _peer(reader: Reader, value: Any, path: str) -> Any:
    found = reader.members(value, path, _PEER)
    return BAD if found is None else found


def _public_key(_reader: Reader, value: Any, _path: str) -> PublicKey:
    try:
        return PublicKey(value)
    except (ValueError, TypeError):
        raise ValueError("a WireGuard public key is expected") from None


def _pair_key(_reader: Reader, value: Any, _path: str) -> bytes:
    try:
        key = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        key = b""
    if len(key) != PAIR_KEY_BYTES:
        raise ValueError(f"{PAIR_KEY_BYTES} bytes in base64 are expected")
    return key


def _address(_reader: Reader, value: Any, _path: str) -> str:
    try:
        return canonical(value)
    except (ValueError, TypeError):
        raise ValueError("an IP address is expected") from None


def _prefix(_reader: Reader, value: Any, _path: str) -> str:
    try:
        return str(ip_network(value if isinstance(value, str) else "", strict=True))
    except ValueError:
        raise ValueError("a prefix is expected, such as 10.42.0.0/16") from None


def _endpoint(_reader: Reader, value: Any, _path: str) -> Endpoint:
    return parse_endpoint(value)


def parse_endpoint(value: Any) -> Endpoint:
    """Of `ADDRESS:PORT`, `[ADDRESS]:PORT`, `NAME:PORT`, or a name alone, whose SRV record has the port.

    Raises ValueError.
    """
    wrong = ValueError("an endpoint is expected: ADDRESS:PORT, [ADDRESS]:PORT, NAME:PORT, or a name with an SRV record")
    if not isinstance(value, str) or not value or len(value) > 260:  # 253 of the longest name, a colon and a port
        raise wrong
    try:
        return Address.parse(value)
    except ValueError:
        host, colon, port = value.rpartition(":")
    if not colon:
        host, port = value, "0"
    # A name's last label is never digits alone (RFC 3696 section 2), so this is a bad address.
    labels = host.rstrip(".").split(".")
    plain = all(label.replace("-", "").replace("_", "").isalnum() and label.isascii() for label in labels)
    if not plain or labels[-1].isdigit() or not (port.isascii() and port.isdigit()):
        raise wrong
    if int(port) > 0xFFFF or (colon and not int(port)):
        raise wrong
    return NamedEndpoint(host, int(port))


_PORT: Parser = number(1, 0xFFFF)


def _interface(_reader: Reader, value: Any, _path: str) -> str:
    named = isinstance(value, str) and 0 < len(value) <= INTERFACE_NAME_MAX
    if not named or "/" in value or any(c.isspace() for c in value):
        raise ValueError(f"an interface's name of up to {INTERFACE_NAME_MAX} characters is expected")
    return str(value)


_PEER = {
    "name": Field(text, required=True),
    "public_key": Field(_public_key, required=True),
    "mesh_addresses": Field(listed(_address, 1), required=True),
    "pair_key": Field(_pair_key, required=True),
    "kind": Field(one_of(*KINDS), "node"),
    "endpoints": Field(listed(_endpoint), ()),
    "permitted": Field(flag, True),
    "override": Field(one_of(*OVERRIDES), ""),
    "reaches": Field(number(0, 1 << 20), None),
}
_NETWORK = {
    "network": Field(text, required=True),
    "interface": Field(_interface, required=True),
    "public_key": Field(_public_key, required=True),
    "mesh_addresses": Field(listed(_address, 1), required=True),
    "listen_port": Field(_PORT, required=True),
    "mesh_ranges": Field(listed(_prefix, 1), required=True),
    "keepalive_s": Field(number(0, _KEEPALIVE_MAX_S), 25),
    "anchor": Field(flag, False),
    "reaches": Field(listed(listed(text)), ()),
    "peers": Field(listed(_peer), ()),
}
_DOCUMENT = {
    "version": Field(number(VERSION, VERSION), required=True),
    "node": Field(text, required=True),
    "signalling_port": Field(_PORT, SIGNALLING_PORT),
    "relay_limit": Field(number(1, RELAY_LIMIT_MAX), 0),
    "stun": Field(listed(_endpoint), ()),
    "networks": Field(listed(_network, 1), required=True),
}

# Writing


_text = json.JSONEncoder(ensure_ascii=False).encode


def _with_list(members: dict[str, Any], name: str, items: Iterable[str]) -> str:
    """A JSON object with one more member: a list with a line for each of its items, which are JSON already."""
    lines = ",\n".join(items)
    return f'{_text(members)[:-1]}, "{name}": [\n{lines}\n]}}'


def _network_text(network: InterfaceConfig) -> str:
    sets = {names: i for i, names in enumerate(dict.fromkeys(p.reaches for p in network.peers if p.reaches))}
    members = {
        "network": network.network,
        "interface": network.interface,
        "public_key": network.public_key.text,
        "mesh_addresses": list(network.mesh_addresses),
        "listen_port": network.listen_port,
        "mesh_ranges": list(network.mesh_ranges),
        "keepalive_s": network.keepalive_s,
        "anchor": network.is_anchor,
        "reaches": [sorted(names) for names in sets],
    }
    return _with_list(members, "peers", (_text(_peer_value(peer, sets)) for peer in network.peers))


def _peer_value(peer: PeerConfig, sets: dict[frozenset[str], int]) -> dict[str, Any]:
    value = {
        "name": peer.name,
        "public_key": peer.public_key.text,
        "mesh_addresses": list(peer.mesh_addresses),
        "pair_key": base64.b64encode(peer.pair_key).decode(),
        "kind": peer.kind,
        "endpoints": [_endpoint_text(e) for e in peer.endpoints],
        "permitted": peer.permitted,
        "override": peer.override,
    }
    return {**value, "reaches": sets[peer.reaches]} if peer.reaches else value


def _endpoint_text(endpoint: Endpoint) -> str:
    if isinstance(endpoint, Address):
        return str(endpoint)
    return f"{endpoint.host}:{endpoint.port}" if endpoint.port else endpoint.host
