"""What a scenario may do, and what is written down of it: the same on the model and on real WireGuards.

Standard library alone: a virtual machine plays scenarios too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any

PORT = 51820
OUTER = {"a": "203.0.113.1", "b": "203.0.113.2"}
INNER = {"a": "10.0.0.1", "b": "10.0.0.2"}
# Of `a`, and not among what `b` allows it.
NOT_ALLOWED = "10.0.0.77"
# One way between any two hosts: longer than two commands in a row take, so that packets can cross.
DELAY_S = 0.05
# Of an inner packet: IPv4 and UDP.
INNER_HEADERS = 28
INITIATION, RESPONSE, DATA = ALL = 1, 2, 4


@dataclass(frozen=True)
class Sent:
    """A message of WireGuard, as it left: seconds from the start, addresses, its type, bytes of UDP payload."""

    at: float
    source: str
    destination: str
    kind: int
    size: int


@dataclass(frozen=True)
class Got:
    """An inner packet that came out of a node's interface: its inner source and its bytes with inner headers."""

    at: float
    node: str
    source: str
    size: int


@dataclass(frozen=True)
class Shown:
    """What `wg show dump` says of a node's one peer; `handshake` in seconds from the start."""

    at: float
    node: str
    endpoint: str
    handshake: float | None
    rx: int
    tx: int


@dataclass
class Record:
    """All that was seen of one run. `sent` is by node. `tick_s` is that of the timers' clock, 0 for exact timers."""

    tick_s: float = 0.0
    sent: dict[str, list[Sent]] = field(default_factory=lambda: {"a": [], "b": []})
    got: list[Got] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Record:
        """What `as_json` gave."""
        sent = {node: [Sent(**one) for one in many] for node, many in raw["sent"].items()}
        return cls(raw["tick_s"], sent, [Got(**one) for one in raw["got"]], [Shown(**one) for one in raw["shown"]])


class Stage(ABC):
    """Two hosts `a` and `b` on one internet, each the other's peer. Times are seconds from the start.

    `b` knows no endpoint of `a` in the beginning, `a` knows that of `b`.
    """

    def __init__(self) -> None:
        self.record = Record()

    @abstractmethod
    def until(self, when: float) -> None:
        """Let time pass."""

    @abstractmethod
    def send(self, node: str, size: int, source: str = "") -> None:
        """Send an inner packet of `size` bytes with its headers to the other node, from its own inner address."""

    @abstractmethod
    def set_endpoint(self, node: str, ip: str) -> None:
        """`wg set … endpoint`; "" is none, and only for who has never had one."""

    @abstractmethod
    def set_keepalive(self, node: str, seconds: int) -> None:
        """`wg set … persistent-keepalive`."""

    @abstractmethod
    def move(self, node: str, ip: str) -> None:
        """The node has this outer address alone, or none."""

    @abstractmethod
    def add_address(self, node: str, ip: str) -> None:
        """The node has this outer address too; the one that it had before is what it sends from by itself."""

    @abstractmethod
    def rebind(self, node: str, ip: str) -> None:
        """From now on, a NAT in front of the node gives its messages this source, and no other is led to it."""

    @abstractmethod
    def lose(self, node: str, *kinds: int) -> None:
        """From now on the node's messages of these types are lost on the way; none, when no type is named."""

    @abstractmethod
    def hold_next(self, node: str) -> None:
        """The node's next message stays on the way until it is released."""

    @abstractmethod
    def release(self, node: str) -> None:
        """Let the held message arrive, after what was sent later."""

    @abstractmethod
    def replay(self, node: str, kind: int, source: str) -> None:
        """Send the first message of this type that the node ever sent to the other again, from another address."""

    @abstractmethod
    def show(self, node: str) -> None:
        """Write down `wg show`."""

    def show_both(self) -> None:
        """Of `a` and `b`."""
        for node in OUTER:
            self.show(node)


def other(node: str) -> str:
    """The other one."""
    return "b" if node == "a" else "a"
