"""WireGuard's side of one peer: what its counters were last, where it is told to send, and that the way stays open."""

from __future__ import annotations

from meshctl.core.agent.address import Address
from meshctl.core.agent.blockage import Came
from meshctl.core.agent.events import PeerStatus, SendProbe, SetEndpoint, SetKeepalive
from meshctl.core.agent.interfacecontext import InterfaceContext
from meshctl.core.agent.lifetime import LATE
from meshctl.core.agent.liveness import Liveness, has_session
from meshctl.core.agent.negotiation import Negotiation
from meshctl.core.agent.probes import signed
from meshctl.core.wire import stun
from meshctl.model.keys import PublicKey

# So long the controlled side waits for the handshake that the controlling side begins, and so many round trips.
SECOND_S, SECOND_RTTS = 1.0, 1.5
# Both ends try one each REKEY_TIMEOUT (5 s, and a third of a second by chance). Where they are in step, the other end's
# next try has to come before ours can leave, or the two cross again and again. A userspace WireGuard may have tried
# some for packets that came before the endpoint: traffic that began at both ends at once puts them in step.
SECOND_IN_STEP_S = 6.0
# Where only the other end's is a userspace one, the first try is the only one that may cross by chance: on a path of a
# shorter round trip the third of a second parts those after it. So it does where the other end's try has come and our
# answer was lost: who has answered one begins none for REKEY_TIMEOUT, as who has sent it.
CROSSING_RTT_S = 0.15
# Keepalives begin anew with each packet that comes, so that those of both ends leave at the same moments. So do the
# handshakes of an idle tunnel, which cross on a path as long as this, until chance parts them: not soon, for who has
# answered one does not repeat its own. Keepalives so far apart that the keys have expired between two of them begin a
# handshake each time, at both ends, and two hosts whose kernels' ticks happen to agree cross on any path. There the
# controlled side's keepalive is longer, and as a rule is never sent: by more than the kernel's timers of such intervals
# are late (2 s with 250 ticks a second, 4 s with 1,000, 5 s with 100).
APART_RTT_S, APART_KEEPALIVE_S, APART_S = 0.3, 60, 6
# An endpoint is set again and again for a while. A packet that was under way on the old path makes WireGuard go back
# there. So does every answer to a packet that left by the old path: where each end waits for the other's packet, only
# an endpoint that is set between an answer's arrival and the next packet stays. Irregularly, so as to meet that moment.
INSIST_S, INSIST_AGAIN_S = 0.6, (0.03, 0.08)
# More often while the path is used: at 100 packets a second many exchanges are under way, each answer takes the path of
# the packet that it answers, and setting the endpoint once moves but one of them.
INSIST_BUSY_S = (0.003, 0.008)
INSIST_RTTS = 3.0


class Tunnel:
    """The tunnel to one peer. `status` is the last reading of the counters; `missing`: that had no such peer;
    `insist_at`: when the endpoint is to be set once more; `peer_userspace`: what `userspace` says at the other end."""

    def __init__(self, key: PublicKey, context: InterfaceContext, negotiation: Negotiation, liveness: Liveness) -> None:
        self.status: PeerStatus | None = None
        self.missing = False
        self.insist_at: float | None = None
        self.peer_userspace = False
        self._key, self._context = key, context
        self._negotiation, self._liveness = negotiation, liveness
        self._place: Address | None = None  # where WireGuard is to send
        self._put_off_at: float | None = None  # so that the other end goes first
        self._has_come = False  # and it has begun, and had no answer yet
        self._insist_until = 0.0
        self._has_set = False  # since the last reading
        self._opened_at = 0.0  # when something was sent for the NAT's sake

    @property
    def alive(self) -> bool:
        """Whether WireGuard has a session with the peer."""
        return has_session(self.status)

    @property
    def userspace(self) -> bool:
        """Whether this end's WireGuard is not in the kernel, so that it may have tried handshakes with nowhere to send
        to; one that has a session has not."""
        return self.status is not None and self.status.userspace and not self.alive

    @property
    def endpoint(self) -> Address | None:
        """Where WireGuard sends, which may have followed the peer since it was set."""
        return self.status.endpoint if self.status is not None else None

    def set_endpoint(self, address: Address, now: float) -> None:
        """Have WireGuard send there, and keep the way open.

        Two ends that begin a handshake at the same time fail both, and wait five seconds (REKEY_TIMEOUT). So where
        there is no session yet, the controlling side goes first, and the other learns the endpoint from WireGuard.
        """
        self._place = address
        if self.alive or self._negotiation.controlling:
            self._set(now)
        elif self._put_off_at is None:
            self._put_off_at, self._has_come = now, False

    def adopt(self, address: Address) -> None:
        """WireGuard sends there already: have the way kept open."""
        self._place = address

    def read(self, status: PeerStatus, *, by_relay: bool) -> Came:
        """Take one reading. Returns how the newest packet has come: WireGuard moves the endpoint to where it came from,
        unless this end has set it since the reading before."""
        self._has_come = self._has_come or (self.status is not None and status.rx_bytes > self.status.rx_bytes)
        self.status, has_set, self._has_set, self.missing = status, self._has_set, False, False
        if by_relay:
            return Came.BY_RELAY
        return Came.UNKNOWN if has_set else Came.BY_PATH

    def miss(self) -> None:
        """A reading has no such peer: the interface is gone, or the peer is."""
        self.status, self.missing, self.insist_at, self._put_off_at = None, True, None, None

    def maintain(self, now: float) -> None:
        """After each reading of the counters: what was put off, and the keepalive."""
        if self._put_off_at is not None:
            if self.alive or now >= self._put_off_at + self._second_s():
                self._set(now)
        elif self._place is not None:
            self._keep_alive()
            self._keep_open_if_due(self._place, now)

    def insist(self, now: float) -> None:
        """Set the endpoint once more, unless it was done often enough."""
        self.insist_at = None
        if self._place is not None:
            self._has_set = True
            self._context.act(SetEndpoint(self._key, self._place))
            if now < self._insist_until:
                again_s = INSIST_BUSY_S if self._liveness.busy(now) else INSIST_AGAIN_S
                self.insist_at = now + self._context.dice.uniform(*again_s)

    def keep_open(self, place: Address, now: float) -> None:
        """Send something that wants no answer (RFC 8445 section 11) to where WireGuard was told to send: on the
        selected pair, or to a relay, whose anchor takes no notice of it."""
        selected, credentials = self._negotiation.selected, self._negotiation.credentials
        local = selected.local if selected is not None else self._context.own.base(place.family)
        if credentials is not None and local is not None:
            transaction = self._context.transactions.new()
            message = stun.Message(stun.Class.INDICATION, transaction, username=credentials.username)
            self._context.nat.sent(local, place, now)
            self._context.act(SendProbe(local, place, signed(message, credentials.key)))

    # Inside

    def _set(self, now: float) -> None:
        self._put_off_at = None
        self._insist_until = now + max(INSIST_S, INSIST_RTTS * self._liveness.rtt_s)
        self.insist(now)
        self._keep_alive()

    def _second_s(self) -> float:
        rtt_s = self._liveness.rtt_s
        in_step = self.userspace or ((self.peer_userspace or self._has_come) and rtt_s > CROSSING_RTT_S)
        return (SECOND_IN_STEP_S if in_step else SECOND_S) + SECOND_RTTS * rtt_s

    def _keep_alive(self) -> None:
        interval_s = self._context.lifetime.keepalive_s
        in_step = self._liveness.rtt_s >= APART_RTT_S or interval_s > APART_KEEPALIVE_S
        if interval_s and in_step and not self._negotiation.controlling:
            interval_s += APART_S
        if self.status is None or self.status.keepalive_s != interval_s:
            self._context.act(SetKeepalive(self._key, interval_s))

    def _keep_open_if_due(self, place: Address, now: float) -> None:
        """WireGuard's keepalive begins anew with each packet that comes, too: of two ends, one may send them all. But a
        NAT may forget who sends nothing (RFC 4787 REQ-6), and a path that is never heard is checked again and again.
        """
        interval_s = self._context.lifetime.keepalive_s
        if interval_s and now >= max(self._liveness.sent_at, self._opened_at) + interval_s * LATE:
            self._opened_at = now
            self.keep_open(place, now)
