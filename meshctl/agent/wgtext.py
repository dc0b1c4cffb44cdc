"""`wg showconf` taken apart, and put together again as `netstate.in_order` has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# As wg says them, in this order.
PEER, PUBLIC_KEY = "[Peer]", "PublicKey"
HEAD, PRIVATE_KEY = "[Interface]", "PrivateKey"
_HEAD_ORDER = ("ListenPort", "FwMark", PRIVATE_KEY)
# What the kernel or the agent changes by itself.
MOVING = ENDPOINT, KEEPALIVE = "Endpoint", "PersistentKeepalive"
_PEER_ORDER = (PUBLIC_KEY, "PresharedKey", "AllowedIPs", *MOVING)
_ALLOWED = re.compile(r"[0-9a-f.:]+/\d+")

Fields = Mapping[str, str]


@dataclass(frozen=True)
class Config:
    """One interface's; peers by public key, each with all of its fields."""

    head: Fields
    peers: Mapping[str, Fields] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Config:
        """From its text."""
        head, *peers = text.split(PEER)
        by_key = {peer[PUBLIC_KEY]: peer for peer in map(_fields, peers)}
        return cls(_fields(head), by_key)

    @property
    def private_key(self) -> Fields:
        """That line alone, if it is there."""
        return {name: value for name, value in self.head.items() if name == PRIVATE_KEY}

    def text(self) -> str:
        """The inverse of `of`."""
        peers = ("\n".join(_lines(peer, _PEER_ORDER)) for peer in self.peers.values())
        head = "\n".join([HEAD, *_lines(self.head, _HEAD_ORDER)])
        return in_order(PEER.join([head, *(f"\n{peer}\n" for peer in peers)]))


def moved_as(wanted: str, now: str) -> str:
    """`wanted`, with where each peer is and how often it is sent to as `now` has it."""
    want, have = Config.of(wanted), Config.of(now)
    peers = {
        key: {**{n: v for n, v in peer.items() if n not in MOVING or key not in have.peers},
              **{n: v for n, v in have.peers.get(key, {}).items() if n in MOVING}}
        for key, peer in want.peers.items()
    }  # fmt: skip
    return Config(want.head, peers).text()


def in_order(config: str) -> str:
    """`wg showconf` with its peers, and what each may send from, in an order that means nothing: that is how two are
    told apart. A userspace WireGuard says them in any order."""
    head, *peers = config.split(PEER)
    lines = (
        "\n".join("AllowedIPs = " + ", ".join(sorted(_ALLOWED.findall(line))) if line.startswith("AllowedIPs") else line
                  for line in peer.strip().splitlines()) for peer in peers
    )  # fmt: skip
    return PEER.join([head.rstrip() + "\n", *(f"\n{text}\n" for text in sorted(lines))])


def _lines(fields: Fields, order: Iterable[str]) -> list[str]:
    return [f"{name} = {fields[name]}" for name in order if name in fields]


def _fields(stanza: str) -> dict[str, str]:
    lines = (line.partition(" = ") for line in stanza.splitlines())
    return {name: value for name, separator, value in lines if separator}
