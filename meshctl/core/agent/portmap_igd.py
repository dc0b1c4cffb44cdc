"""What the ways of UPnP have in common: the search for the router (SSDP), its description, and one request at a time.

Each renewal begins with the search: some routers control mappings at another port or path after a restart. Only what
comes from the router counts, and only places on it are asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Optional

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import HttpReply, SendMapping
from meshctl.core.agent.portmap_router import http_request
from meshctl.core.agent.portmap_values import REFUSED_S, SILENT_S, Method
from meshctl.core.wire import igd, soap, ssdp
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import MAX_BODY, HttpResponse, Url, encode_request

# Longer than what devices are asked to spread their replies over: many are late.
SEARCH_WAIT_S = 4.0
SEARCHES = 2
HTTP_WAIT_S = 10.0
# In one round: a router has one or two descriptions and up to three services; the rest is somebody's game.
MAX_LOCATIONS = 3
MAX_REQUESTS = 24

Handler = Callable[[Optional[HttpResponse], float], None]


class IgdMethod(Method):
    """One mapping or pinhole by UPnP. `next_id` numbers requests; no other one has that number while this one waits.

    The ways themselves say what is searched for, which of a router's services are of use, and what is asked of one.
    """

    group = ssdp.GROUP
    targets: tuple[str, ...] = ssdp.TARGETS
    useless = "the router's UPnP maps no IPv4 ports"

    def __init__(
        self, gateway: str, internal: Address, dice: random.Random, next_id: Callable[[], int]
    ) -> None:
        super().__init__(gateway, internal, dice)
        self._next_id = next_id
        self._waiting: tuple[int, Handler] | None = None
        self._clear()

    def receive(self, data: bytes, sender: str, now: float) -> None:
        """An answer to the search, from the router."""
        if not self.asking:
            return
        try:
            location = ssdp.decode_reply(data, sender).location
        except WireError:
            return
        if location not in self._seen and len(self._seen) < MAX_LOCATIONS:
            self._seen.append(location)
            self._locations.append(location)
            if self._waiting is None:
                self._next_place(now)

    def reply(self, reply: HttpReply, now: float) -> None:
        """The answer to a request; one that was not asked for counts for nothing."""
        if self._waiting is None or self._waiting[0] != reply.request_id:
            return
        readable = reply.status and len(reply.body) <= MAX_BODY
        self._answer(HttpResponse(reply.status, reply.body) if readable else None, now)

    def stop(self) -> None:
        """Ask no more, and forget."""
        super().stop()
        self._clear()

    # For the ways themselves

    def _services(self, device: igd.Device) -> tuple[igd.Service, ...]:
        raise NotImplementedError

    def _begin(self, now: float) -> None:
        """Ask at `self._control`."""
        raise NotImplementedError

    # A round

    def _clear(self) -> None:
        self._waiting = None
        self._searches = self._requests = 0
        self._seen: list[Url] = []
        self._locations: list[Url] = []
        self._controls: list[soap.Control] = []
        self._reason, self._retry_s = "no router answers UPnP", SILENT_S

    def _ask(self, now: float) -> None:
        self._clear()
        self._search(now)

    def _search(self, now: float) -> None:
        self._searches += 1
        self._wake = now + SEARCH_WAIT_S
        group = Address(self.group, ssdp.PORT)
        for target in self.targets:
            self._actions.append(SendMapping(group, ssdp.encode_search(target, self.group), self.internal.ip))

    def _unanswered(self, now: float) -> None:
        if self._waiting is not None:
            self._answer(None, now)
        elif self._searches < SEARCHES:
            self._search(now)
        else:
            self._end(now)

    def _answer(self, response: HttpResponse | None, now: float) -> None:
        if self._waiting is None:
            return
        handler = self._waiting[1]
        self._waiting = None
        try:
            handler(response, now)
        except WireError:
            self._refused("the router's UPnP cannot be understood", REFUSED_S)
            self._next_place(now)

    def _next_place(self, now: float) -> None:
        """The next service, else the next description, else the end of the round."""
        if self._controls:
            self._control = self._controls.pop(0)
            self._begin(now)
        elif self._locations:
            location = self._locations.pop(0)

            def described(response: HttpResponse | None, now: float) -> None:
                self._described(location, response, now)

            self._request(location, encode_request("GET", location), described, now)
        else:
            self._end(now)

    def _described(self, location: Url, response: HttpResponse | None, now: float) -> None:
        if response is None or response.status != 200:
            self._refused("the router does not give its description", SILENT_S)
        else:
            services = self._services(igd.decode_description(response.body, location))
            self._controls = [soap.Control(url, s.service_type) for s in services for url in s.controls]
            if not self._controls:
                self._refused(self.useless, REFUSED_S)
        self._next_place(now)

    def _end(self, now: float) -> None:
        why, retry_s = self._reason, self._retry_s
        self._clear()
        self._fail(why, retry_s, now)

    def _refused(self, why: str, retry_s: float) -> None:
        self._reason, self._retry_s = why, retry_s

    # Sending

    def _soap(self, raw: bytes, handler: Handler, now: float) -> None:
        self._request(self._control.url, raw, handler, now)

    def _request(self, url: Url, raw: bytes, handler: Handler, now: float) -> None:
        if self._requests >= MAX_REQUESTS:
            self._end(now)
            return
        self._requests += 1
        number = self._next_id()
        self._waiting = number, handler
        self._wake = now + HTTP_WAIT_S
        self._actions.append(http_request(number, url, raw, self.internal.ip))

    def _send_last(self, url: Url, raw: bytes) -> None:
        """Send without waiting for the answer."""
        self._actions.append(http_request(self._next_id(), url, raw, self.internal.ip))
