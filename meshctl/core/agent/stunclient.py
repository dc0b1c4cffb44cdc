"""STUN questions to servers (RFC 8489): where they see this node, and how far away they are.

An anchor answers on WireGuard's own port, to nodes that it knows: its requests are signed with a key of the pair. Any
other server may lie: its answer must come from where it was asked, and says at most one more address to be checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.config import purpose_key
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.probes import LATEST_S, Transactions, signed
from meshctl.core.wire import stun

# When a question is sent again, and how long the last one has: quicker than RFC 8489 section 6.2.1, whose half a second
# before the first repetition is a quarter of all the time there is to find a path.
SCHEDULE_S = (0.0, 0.15, 0.45, 1.05)
ANSWER_S = 1.0
# Between two questions of one node.
PACE_S = 0.005
PURPOSE = b"stun"
# USERNAME of a question to an anchor: this, the asking node's id, and its session with the anchor.
USERNAME = "node:"


class Server(NamedTuple):
    """Where to ask. `username` and `key` are an anchor's; "" and b"" for a server that wants none."""

    address: Address
    username: str = ""
    key: bytes = b""


def anchor_server(address: Address, own_id: bytes, session: bytes, pair_key: bytes) -> Server:
    """An anchor's, for the node with this id, in its session with the anchor (which may not know it yet)."""
    return Server(address, f"{USERNAME}{own_id.hex()}:{session.hex()}", purpose_key(pair_key, PURPOSE))


def read_username(username: str) -> tuple[bytes, bytes]:
    """Who asks an anchor, in which session. Raises ValueError for what is no question's."""
    node, session = username[len(USERNAME) :].split(":")
    return bytes.fromhex(node), bytes.fromhex(session)


class Seen(NamedTuple):
    """The server has answered: it sees `base` as `mapped`."""

    base: Address
    server: Address
    mapped: Address
    rtt_s: float


@dataclass
class _Question:
    server: Server
    began_at: float
    due_at: float
    asked: int = 0
    sent: dict[bytes, float] = field(default_factory=dict)


class StunClient:
    """All questions of one interface that are under way: one for each own address and server."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._questions: dict[tuple[Address, Address], _Question] = {}
        self._free_at = 0.0

    def ask(self, base: Address, server: Server, now: float) -> None:
        """Ask that server from that address, unless a question is under way there."""
        if base.family == server.address.family:
            self._questions.setdefault((base, server.address), _Question(server, now, now))

    def begin_anew(self, server: Server) -> None:
        """What was asked there in vain counts no more: who was not there then is there now."""
        for key in [key for key in self._questions if key[1] == server.address]:
            del self._questions[key]

    def forget(self) -> None:
        """Nothing is asked any more, and no answer counts."""
        self._questions.clear()

    def keep(self, bases: Iterable[Address]) -> None:
        """Only these own addresses are there any more."""
        kept = set(bases)
        self._questions = {key: q for key, q in self._questions.items() if key[0] in kept}

    def due(self) -> float | None:
        """When `poll` has something to do."""
        first = min((q.due_at for q in self._questions.values()), default=None)
        return None if first is None else max(first, self._free_at)

    def poll(self, now: float) -> SendProbe | None:
        """The question that is due, if any is."""
        if now < self._free_at:
            return None
        for (base, address), question in sorted(self._questions.items()):
            if question.due_at <= now and question.asked < len(SCHEDULE_S):
                self._free_at = now + PACE_S
                return self._send(question, base, address, now)
        return None

    def silent(self, now: float) -> Iterator[tuple[Address, Address]]:
        """Base and server of each question that was not answered in its time; it is over."""
        for key, question in sorted(self._questions.items()):
            if question.due_at <= now and question.asked == len(SCHEDULE_S):
                del self._questions[key]
                yield key

    def receive(self, received: stun.Received, base: Address, remote: Address, now: float) -> Seen | None:
        """An answer; None when nobody asked for it, it is not authentic, says no address, or has waited."""
        question = self._questions.get((base, remote))
        message = received.message
        if question is None or message.transaction not in question.sent:
            return None
        rtt_s = now - question.sent[message.transaction]
        if message.message_class is not stun.Class.SUCCESS or rtt_s > LATEST_S:
            return None
        mapped = message.reflexive_address
        if mapped is None or (question.server.key and not received.is_authentic(question.server.key)):
            return None
        del self._questions[base, remote]
        return Seen(base, remote, Address.of(*mapped), rtt_s)

    def _send(self, question: _Question, base: Address, address: Address, now: float) -> SendProbe:
        question.asked += 1
        last = question.asked == len(SCHEDULE_S)
        question.due_at = now + ANSWER_S if last else question.began_at + SCHEDULE_S[question.asked]
        transaction = self._transactions.new()
        question.sent[transaction] = now
        server = question.server
        request = stun.Message(stun.Class.REQUEST, transaction, username=server.username or None)
        data = signed(request, server.key or None)
        return SendProbe(base, address, data)
