"""Offers of candidates, sent until the peer has the newest: each is whole, so an older one is not worth sending."""

from __future__ import annotations

from meshctl.core.agent.backoff import Backoff
from meshctl.core.agent.bodies import NO_OFFER, Ack, AnchorDistance, NatSummary, Offer, Offered, Wish


class OfferSender:
    """This agent's offer to one peer. Sent when there is a session, again by `Backoff` until it is acknowledged, and
    anew when the offer or the peer's session is a new one."""

    def __init__(self) -> None:
        self._offer: Offer | None = None
        self._content: tuple[object, ...] = ()  # of the offer, but for its generation
        self._backoff = Backoff()
        self._session = False

    @property
    def due(self) -> float | None:
        """When `poll` has something to send, or to give up."""
        return self._backoff.due

    @property
    def unacknowledged(self) -> bool:
        """Whether the newest offer was sent in vain."""
        return self._backoff.exhausted

    @property
    def attempt(self) -> int:
        """Which of its round the offer is that `poll` gave last, from 0: for `Router.route`."""
        return max(0, self._backoff.sent - 1)

    def put(
        self, candidates: tuple[Offered, ...], nat: tuple[NatSummary, ...], now: float, *,
        relays: tuple[AnchorDistance, ...] = (), wish: Wish = Wish.NONE, restart: int = 0, blocked: int = 0,
        userspace: bool = False,
    ) -> None:  # fmt: skip
        """Offer these from now on. What is as it was is no new offer."""
        content = (candidates, nat, relays, wish, restart, blocked, userspace)
        if content == self._content:
            return
        self._content = content
        generation = 1 if self._offer is None else self._offer.generation + 1
        self._offer = Offer(generation, *content)
        self._begin(now)

    def renewed(self, now: float) -> None:
        """The peer's session is a new one: it knows no offer."""
        self._session = True
        self._begin(now)

    def poll(self, now: float) -> Offer | None:
        """The offer, when it is due. To be sealed anew each time: a repeated sequence number would not count."""
        return self._offer if self._backoff.take(now) else None

    def acknowledged(self, ack: Ack, now: float) -> None:
        """The newest offer is not sent again once the peer has it. A peer that has none any more is given it again."""
        if ack.generation == NO_OFFER and self._backoff.due is None:
            self._begin(now)
        if self._offer is not None and ack.generation == self._offer.generation:
            self._backoff.stop()

    def _begin(self, now: float) -> None:
        if self._session and self._offer is not None:
            self._backoff.start(now)


class OfferReceiver:
    """The newest offer of one peer, in its present session."""

    def __init__(self) -> None:
        self.offer: Offer | None = None
        self._generation = NO_OFFER

    def renewed(self) -> None:
        """The peer's session is a new one: it counts from 1 again. What it offered stays until it offers anew."""
        self._generation = NO_OFFER

    def receive(self, offer: Offer) -> tuple[bool, Ack]:
        """Whether the offer takes the place of the one before; and the acknowledgement, which is due in any case."""
        newer = offer.generation > self._generation
        if newer:
            self.offer, self._generation = offer, offer.generation
        return newer, Ack(self._generation)
