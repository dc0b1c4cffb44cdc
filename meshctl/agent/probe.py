"""`meshctl-agent probe`: which peers of this host are heard, once something was sent to each.

WireGuard itself is asked, by its counters, so that no policy and no firewall inside the mesh has a say: a peer that
gets a packet has something to count, and one that has nothing to answer with sends a keepalive 10 s later. Two ends
that probe one after the other hear one another at once all the same, when what counts is what had come before both.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Optional

from meshctl.agent import process
from meshctl.agent.node.wgread import Line, read_device

AGAIN_S = 0.5
# When is looked in between: answers come within a round trip (20 ms within a country, 300 ms around the world), or once
# the peer asks, too, or not before a keepalive. The pauses grow, for each look reads all peers of an interface.
_LOOK_S = (0.02, 0.06, 0.12, 0.2, 0.3, AGAIN_S)
# A WireGuard that does nothing else any more is asked for so long after that, until who asked waits no longer.
_BUSY_S = 5.0
# A session older than this is none (REJECT_AFTER_TIME): there was nothing that could break. Only where nobody has
# looked before the change is it the clock that says so, for it may be set meanwhile.
SESSION_S = 180.0
_DISCARD_PORT = 9
# Of one peer: whether to wait in any case, the bytes that had come, the time of its last handshake before the change.
Asked = tuple[bool, Optional[int], Optional[int]]
_SO_BINDTODEVICE = 25  # asm-generic/socket.h


def probe() -> int:
    """Entry point. Whom to ask, and for how long at most, comes on standard input: `{"for_s": SECONDS, "peers":
    {INTERFACE: {PUBLIC KEY: [true|false, BYTES|null, TIME|null]}}}`: whether to wait in any case, how many bytes had
    come before anybody asked, and when the last handshake was before the change, as far as these are known. Who is not
    waited for in any case is when there was a handshake since, or, if it is not known, a session. One JSON document on
    standard output: `{"silent": {INTERFACE: [PUBLIC KEY…]}, "endpoints": {INTERFACE: {PUBLIC KEY: ADDRESS:PORT}}}`: who
    was waited for and not heard, and where WireGuard sends to each now."""
    try:
        asked = json.loads(sys.stdin.read())
        found = _probe(asked["peers"], time.monotonic() + asked["for_s"])
    except (OSError, ValueError) as error:
        print(f"meshctl-agent: WireGuard does not say what its peers do: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


def _probe(asked: Mapping[str, Mapping[str, Asked]], until: float) -> dict[str, Any]:
    interfaces = [_Interface(name, keys, until + _BUSY_S) for name, keys in asked.items()]
    for interface in interfaces:
        interface.greet()
    while any(interface.waiting for interface in interfaces) and time.monotonic() < until:
        for interface in interfaces:
            interface.send()
        _pause_until_heard(interfaces)
    silent = {interface.name: sorted(interface.waiting) for interface in interfaces if interface.waiting}
    return {"silent": silent, "endpoints": {interface.name: interface.endpoints() for interface in interfaces}}


def _pause_until_heard(interfaces: list[_Interface]) -> None:
    began = time.monotonic()
    for at_s in _LOOK_S:
        time.sleep(max(0.0, began + at_s - time.monotonic()))
        for interface in interfaces:
            interface.look()
        if not any(interface.waiting for interface in interfaces):
            return


def _is_waited_for(asked: Asked, handshake: int, now: float) -> bool:
    always, _, before = asked
    if before is None:
        return always or now - handshake < SESSION_S
    return always or handshake not in (0, before)


class _Interface:
    """`waiting`: the peers that have not been heard yet, and an address to reach each by. WireGuard is read until the
    time `until` (`time.monotonic`). Each method raises OSError and ValueError when it cannot be."""

    def __init__(self, name: str, asked: Mapping[str, Asked], until: float) -> None:
        self.name, self._until = name, until
        now, lines = time.time(), list(self._peers())
        known = {key: received for key, (_, received, _) in asked.items() if received is not None}
        self._before = {**{line.public_key.text: line.rx_bytes for line in lines}, **known}
        last = {line.public_key.text: line.handshake for line in lines}
        places = {key: to for key, to in addresses(name) if key in asked}
        self.waiting = {key: to for key, to in places.items() if _is_waited_for(asked[key], last.get(key, 0), now)}
        self._others = [to for key, to in places.items() if key not in self.waiting]

    def greet(self) -> None:
        """One packet to those that are not waited for: who was started anew is waited for by the others."""
        send_to(self.name, self._others)

    def send(self) -> None:
        """One packet to each peer that is waited for; it is nobody's at the other end, unless that end lets it be."""
        send_to(self.name, self.waiting.values())

    def look(self) -> None:
        """Who has been heard since the start."""
        for line in self._peers():
            if line.rx_bytes > self._before.get(line.public_key.text, 0):
                self.waiting.pop(line.public_key.text, None)

    def endpoints(self) -> dict[str, str]:
        """Where WireGuard sends, by public key."""
        return {line.public_key.text: str(line.endpoint) for line in self._peers() if line.endpoint is not None}

    def _peers(self) -> Iterable[Line]:
        while True:
            try:
                device = read_device(self.name, {})
            except TimeoutError:
                if time.monotonic() >= self._until:
                    raise
                continue
            return device.peers.values() if device is not None else ()


def send_to(interface: str, addresses: Iterable[str]) -> None:
    """One packet to each, by this interface: WireGuard then has a reason to speak with that peer."""
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock, suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode())
            sock.sendto(b"meshctl probe", (address, _DISCARD_PORT))


def addresses(interface: str) -> Iterator[tuple[str, str]]:
    """Each peer's key and an address that only it may have: of its longest prefix."""
    for line in process.run(["wg", "show", interface, "allowed-ips"]).stdout.splitlines():
        key, _, allowed = line.partition("\t")
        networks = [ipaddress.ip_network(prefix) for prefix in allowed.split() if "/" in prefix]
        if networks:
            longest = max(networks, key=lambda n: (n.prefixlen - n.max_prefixlen, n.version == 4))
            yield key, str(longest.network_address if longest.num_addresses == 1 else longest.network_address + 1)
