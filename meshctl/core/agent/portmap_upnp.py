"""A mapping by UPnP: the search (SSDP), the router's description, and its actions (SOAP), one request at a time.

Each renewal begins with the search: some routers control mappings at another port or path after a restart. Only what
comes from the gateway itself counts, and only places on it are asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Optional

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import HttpReply, HttpRequest, SendMapping
from meshctl.core.agent.portmap_values import LIFETIME_S, REFUSED_S, SILENT_S, Held, Method, unusable
from meshctl.core.wire import igd, soap, ssdp
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import MAX_BODY, HttpResponse, Url, encode_request, parse_url
from meshctl.core.wire.upnperrors import Fault, Remedy

UPNP = "upnp"
DESCRIPTION = "meshctl"
# Longer than what devices are asked to spread their replies over: many are late.
SEARCH_WAIT_S = 4.0
SEARCHES = 2
HTTP_WAIT_S = 10.0
# In one round: a router has one or two descriptions and up to three services; the rest is somebody's game.
MAX_LOCATIONS = 3
MAX_REQUESTS = 24
PORT_TRIES = 4
# Of the dynamic ports (RFC 6335 section 6), when the own one is taken.
OTHER_PORTS = range(49152, 65536)
# What a router of version 2 says that has not got the action that chooses a port.
_NO_ACTION = (401, 602)

_Handler = Callable[[Optional[HttpResponse], float], None]


class Upnp(Method):
    """One IPv4 mapping. `next_id` numbers requests; no other one has that number while this one waits."""

    def __init__(
        self, gateway: str, internal: Address, dice: random.Random, next_id: Callable[[], int],
        remembered: Held | None = None,
    ) -> None:  # fmt: skip
        super().__init__(gateway, internal, dice)
        self._next_id = next_id
        known = remembered is not None and remembered.protocol == UPNP
        self._wanted = remembered.external.port if remembered is not None and known else internal.port
        self._waiting: tuple[int, _Handler] | None = None
        self._clear()

    def receive(self, data: bytes, now: float) -> None:
        """An answer to the search, from the gateway."""
        if not self.asking:
            return
        try:
            location = ssdp.decode_reply(data, self.gateway).location
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
        group = Address(ssdp.GROUP, ssdp.PORT)
        for target in ssdp.TARGETS:
            self._actions.append(SendMapping(group, ssdp.encode_search(target), self.internal.ip))

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
            self._lease_s, self._port_tries = LIFETIME_S, 0
            self._port = self.mapped.external.port if self.mapped else self._wanted
            self._any_port = self._control.service_type == igd.WAN_IP_2 and self.mapped is None
            self._soap(soap.get_external_address(self._control), self._external, now)
        elif self._locations:
            location = self._locations.pop(0)

            def described(response: HttpResponse | None, now: float) -> None:
                self._described(location, response, now)

            self._request(location, encode_request("GET", location), described, now)
        else:
            self._end(now)

    def _end(self, now: float) -> None:
        why, retry_s = self._reason, self._retry_s
        self._clear()
        self._fail(why, retry_s, now)

    def _refused(self, why: str, retry_s: float) -> None:
        self._reason, self._retry_s = why, retry_s

    # The steps, in their order

    def _described(self, location: Url, response: HttpResponse | None, now: float) -> None:
        if response is None or response.status != 200:
            self._refused("the router does not give its description", SILENT_S)
        else:
            device = igd.decode_description(response.body, location)
            self._controls = [soap.Control(url, s.service_type) for s in device.mapping for url in s.controls]
            if not self._controls:
                self._refused("the router's UPnP maps no IPv4 ports", REFUSED_S)
        self._next_place(now)

    def _external(self, response: HttpResponse | None, now: float) -> None:
        got = soap.decode_external_address(response) if response is not None else None
        if isinstance(got, Fault):
            why = got.meaning
        elif got is None:
            why = "the router does not answer" if response is None else "the router has no address outside yet"
        else:
            self._outside = got
            why = unusable(Address(got, self._port), self.internal)
        if why:
            self._refused(why, REFUSED_S)
            self._next_place(now)
        else:
            self._add(now)

    def _add(self, now: float) -> None:
        action = soap.add_any_port_mapping if self._any_port else soap.add_port_mapping
        mapping = soap.PortMapping(self._port, self.internal.ip, self.internal.port, self._lease_s, DESCRIPTION)
        self._soap(action(self._control, mapping), self._added, now)

    def _added(self, response: HttpResponse | None, now: float) -> None:
        if response is None:
            self._refused("the router does not answer", SILENT_S)
            self._next_place(now)
            return
        got = soap.decode_reserved_port(response) if self._any_port else soap.decode_done(response)
        if isinstance(got, Fault):
            self._remedy(got, now)
            return
        self._port = self._port if got is None else got
        self._soap(soap.get_port_mapping(self._control, self._port), self._verified, now)

    def _remedy(self, fault: Fault, now: float) -> None:
        self._refused(fault.meaning, SILENT_S if fault.remedy is Remedy.LATER else REFUSED_S)
        if self._any_port and fault.code in _NO_ACTION:
            self._any_port = False
            self._add(now)
        elif fault.remedy is Remedy.OTHER_PORT:
            self._other_port(now)
        elif fault.remedy is Remedy.SAME_PORT and self._port != self.internal.port:
            self._port = self.internal.port
            self._add(now)
        elif fault.remedy is Remedy.PERMANENT and self._lease_s:
            self._lease_s = 0
            self._add(now)
        else:
            self._next_place(now)

    def _other_port(self, now: float) -> None:
        self._port_tries += 1
        if self._port_tries >= PORT_TRIES:
            self._next_place(now)
            return
        self._port = self.dice.choice(OTHER_PORTS)
        self._add(now)

    def _verified(self, response: HttpResponse | None, now: float) -> None:
        """Some routers say yes to a port that leads to another host. Many cannot tell; then their word stands."""
        entry = decode_entry(response)
        if entry is not None and (entry.internal_host, entry.internal_port) != self.internal:
            self._refused("the router maps the port to another host", REFUSED_S)
            self._other_port(now)
            return
        before = self.mapped.held if self.mapped else None
        permanent = not self._lease_s or (entry is not None and not entry.lease_s)
        external = Address(self._outside, self._port)
        control = self._control
        self._wanted = self._port
        self._clear()
        self._grant(
            Held(self.gateway, self.internal, external, UPNP, b"", str(control.url), control.service_type, permanent),
            LIFETIME_S, now,
        )  # fmt: skip
        if before is not None and before.external.port != external.port:
            self._delete(before)

    # Sending

    def _soap(self, raw: bytes, handler: _Handler, now: float) -> None:
        self._request(self._control.url, raw, handler, now)

    def _request(self, url: Url, raw: bytes, handler: _Handler, now: float) -> None:
        if self._requests >= MAX_REQUESTS:
            self._end(now)
            return
        self._requests += 1
        number = self._next_id()
        self._waiting = number, handler
        self._wake = now + HTTP_WAIT_S
        self._actions.append(http_request(number, url, raw, self.internal.ip))

    def _delete(self, held: Held) -> None:
        number, control = self._next_id(), control_of(held)
        if control is not None:
            raw = soap.delete_port_mapping(control, held.external.port)
            self._actions.append(http_request(number, control.url, raw, self.internal.ip))


def decode_entry(response: HttpResponse | None) -> soap.MappedTo | None:
    """What the router's table has of a port; None when it does not tell."""
    try:
        entry = soap.decode_port_mapping(response) if response is not None else None
    except WireError:
        return None
    return None if isinstance(entry, Fault) else entry


def control_of(held: Held) -> soap.Control | None:
    """Where a mapping that is held is controlled; None unless that is on its gateway."""
    try:
        return soap.Control(parse_url(held.control, held.gateway), held.service)
    except WireError:
        return None


def http_request(number: int, url: Url, raw: bytes, source: str) -> HttpRequest:
    """A whole request, as the codecs write it, as an action."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
    return HttpRequest(number, first.partition(" ")[0], str(url), headers, body, source)
