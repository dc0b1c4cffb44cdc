"""What is decided about traffic, as chains of the table: equal decisions share one, and each rule has its own."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from meshctl.core.traffic import ANY, PORTS, by_protocol
from meshctl.model.policy import Rule
from meshctl.policy.network import Piece

DENIED = "denied"
_DECIDE = "decide_"
# Protocol numbers of IANA: names need /etc/protocols, which minimal systems lack (Debian's is in the package netbase).
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_ICMP = (1, 58)  # ICMP and ICMPv6
# The upper half of a connection's mark tells its limit apart; the lower one is the exit node's (WireGuard's port).
LIMIT_MARK_SHIFT = 16


@dataclass(frozen=True)
class RuleChain:
    """The chain of one rule. `mark` is that of connections whose bandwidth it limits, 0 without such a limit."""

    name: str
    rule: Rule
    mark: int = 0

    @property
    def bytes_per_second(self) -> int:
        """The rule's bandwidth in nft's unit."""
        return (self.rule.limits.bandwidth_bps or 0) // 8


@dataclass(frozen=True)
class DecisionChain:
    """What is decided about one kind of source: elements of maps by `protocol . port` and by protocol, and the rest."""

    name: str
    ports: tuple[str, ...]
    protocols: tuple[str, ...]
    rest: str


class Verdicts:
    """Names the chains for what is decided; equal decisions share one."""

    def __init__(self) -> None:
        self._known: dict[tuple[Piece, ...], str] = {}
        self._rules: dict[str, Rule] = {}

    def of(self, pieces: tuple[Piece, ...]) -> str:
        """The verdict for a list of decisions: straight to the rule when one decides everything."""
        if not pieces:
            return f"goto {DENIED}"
        if pieces not in self._known:
            for piece in pieces:
                self._rules[piece.rule.name] = piece.rule
            whole = len(pieces) == 1 and ((pieces[0].low, pieces[0].high),) == ANY
            self._known[pieces] = chain_name(pieces[0].rule) if whole else f"{_DECIDE}{len(self._known)}"
        return f"goto {self._known[pieces]}"

    def chains(self) -> Iterable[DecisionChain]:
        """The chains of decisions in which more than one rule has a say, or none has the rest."""
        for pieces, name in self._known.items():
            if name.startswith(_DECIDE):
                yield _decision_chain(name, pieces)

    def rules(self) -> Iterable[RuleChain]:
        """The chains of the rules that decide anything."""
        taken = {0}
        for rule in self._rules.values():
            mark = _limit_mark(rule, taken) if rule.limits.bandwidth_bps else 0
            yield RuleChain(chain_name(rule), rule, mark << LIMIT_MARK_SHIFT)


def chain_name(rule: Rule) -> str:
    """The rule's chain and counter: nft's names must not start with a digit, nor be a keyword, nor hold a colon."""
    kind, colon, network = rule.name.partition(":")
    return f"{kind}_{network}" if colon else f"rule_{rule.name}"


def _limit_mark(rule: Rule, taken: set[int]) -> int:
    """A number of 16 bits that comes of the rule's name: connections keep it when the table is replaced by another."""
    mark = zlib.crc32(rule.name.encode()) & 0xFFFF
    while mark in taken:
        mark = (mark + 1) & 0xFFFF
    taken.add(mark)
    return mark


def _decision_chain(name: str, pieces: tuple[Piece, ...]) -> DecisionChain:
    ports: list[str] = []
    protocols: list[str] = []
    rest = f"goto {DENIED}"
    for low, high, rule in pieces:
        verdict = f"goto {chain_name(rule)}"
        for protocol, first, last in by_protocol(((low, high),)):
            if protocol == "other":
                rest = verdict
            elif protocol == "icmp":
                protocols += [f"{number} : {verdict}" for number in _ICMP]
            elif first == 0 and last == PORTS - 1:
                protocols.append(f"{_NUMBERS[protocol]} : {verdict}")
            else:
                ports.append(f"{_NUMBERS[protocol]} . {first if first == last else f'{first}-{last}'} : {verdict}")
    return DecisionChain(name, tuple(ports), tuple(protocols), rest)
