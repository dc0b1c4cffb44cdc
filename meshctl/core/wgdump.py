"""`wg show all dump` as data, in the form in which the facts script sends it: without the private key.

Lines of interfaces: name, public key, listen port, fwmark. Lines of peers: name, public key, pre-shared key, endpoint,
allowed IPs, latest handshake, bytes received, bytes sent, keepalive. Fields are separated by tabs (wg(8), `dump`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from meshctl.model.facts import InterfaceFacts, PeerFacts
from meshctl.model.keys import PublicKey, Secret

INTERFACE_FIELDS = 4
PEER_FIELDS = 9
# What the facts script puts in place of a pre-shared key that is none of our business.
HIDDEN = "(hidden)"
NONE = "(none)"
OFF = "off"
_NUMBER = re.compile("[0-9]{1,20}")  # of 64 bits at most
_MARK = re.compile("0x[0-9a-f]{1,8}")


def parse_dump(lines: Iterable[str]) -> dict[str, InterfaceFacts]:
    """Interfaces by name, without what `ip` knows of them. Raises ValueError with the place, never the content:
    a malformed line may hold a secret."""
    interfaces: dict[str, InterfaceFacts] = {}
    peers: dict[str, dict[PublicKey, PeerFacts]] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        try:
            if len(fields) == INTERFACE_FIELDS:
                interfaces[fields[0]] = _interface(fields)
                peers[fields[0]] = {}
            elif len(fields) == PEER_FIELDS:
                peer = _peer(fields[1:])
                peers[fields[0]][peer.public_key] = peer
            else:
                raise ValueError("unexpected number of fields")
        except (ValueError, KeyError):
            raise ValueError(f"line {number} of the WireGuard dump is malformed") from None
    return {name: replace(facts, peers=peers[name]) for name, facts in interfaces.items()}


def _interface(fields: list[str]) -> InterfaceFacts:
    """One interface line: name, public key, listen port, fwmark. Raises ValueError."""
    name, public_key, port, fwmark = fields
    return InterfaceFacts(
        name=name,
        public_key=None if public_key == NONE else PublicKey(public_key),
        listen_port=_number(port),
        fwmark=0 if fwmark == OFF else _mark(fwmark),
        peers={},
    )


def _peer(fields: list[str]) -> PeerFacts:
    """One peer line without the interface's name. Raises ValueError."""
    key, psk, endpoint, allowed_ips, handshake, received, sent, keepalive = fields
    return PeerFacts(
        public_key=PublicKey(key),
        psk=_secret(psk),
        endpoint=None if endpoint == NONE else endpoint,
        allowed_ips=() if allowed_ips == NONE else tuple(allowed_ips.split(",")),
        latest_handshake=_number(handshake),
        rx_bytes=_number(received),
        tx_bytes=_number(sent),
        keepalive_s=0 if keepalive == OFF else _number(keepalive),
    )


def _number(text: str) -> int:
    """As `wg` prints one, where `int` would take `1_0`, `+1` and the digits of other scripts too."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")  # whose text is not repeated: a line of another form may have a key here
    return int(text)


def _mark(text: str) -> int:
    if not _MARK.fullmatch(text):
        raise ValueError("not a firewall mark")
    return int(text, 16)


def _secret(text: str) -> Secret | None:
    return None if text in (NONE, HIDDEN) else Secret(text)
