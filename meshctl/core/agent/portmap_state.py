"""The mappings that are held, as bytes that outlast a crash; and deleting those of before that nobody needs now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from meshctl.core.agent.address import Address, canonical
from meshctl.core.agent.events import Action, HttpReply, SendMapping
from meshctl.core.agent.portmap_pcp import NATPMP, PCP, deletion
from meshctl.core.agent.portmap_pinhole import PINHOLE, ending
from meshctl.core.agent.portmap_router import control_of, http_request
from meshctl.core.agent.portmap_upnp import UPNP, decode_entry
from meshctl.core.agent.portmap_values import Held
from meshctl.core.wire import pcp, soap
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import MAX_BODY, HttpResponse
from meshctl.core.wire.igd import FIREWALL_6, MAPPING_SERVICES

# More than a host has; what is beyond was written by somebody else.
MAX_HELD = 32
_MAX_BYTES = 64 * 1024


def dump(held: Iterable[Held]) -> bytes:
    """What is held, in a fixed order."""
    rows = [
        [h.gateway, *h.internal, *h.external, h.protocol, h.nonce.hex(), h.control, h.service, h.permanent]
        for h in sorted(held, key=lambda h: (h.gateway, h.internal, h.external, h.protocol))
    ]
    return json.dumps(rows[:MAX_HELD], separators=(",", ":")).encode("ascii")


def load(data: bytes) -> tuple[Held, ...]:
    """What was held; what cannot be read is left out, since it does no more than save a request."""
    try:
        rows = json.loads(data.decode("ascii")) if len(data) <= _MAX_BYTES else []
    except (ValueError, RecursionError):
        return ()
    if not isinstance(rows, list):
        return ()
    return tuple(held for held in map(_held, rows[:MAX_HELD]) if held is not None)


def _held(row: Any) -> Held | None:
    try:
        gateway, ip, port, external_ip, external_port, protocol, nonce, control, service, permanent = row
        internal, external = Address.of(ip, port), Address.of(external_ip, external_port)
        held = Held(
            canonical(gateway), internal, external, str(protocol), bytes.fromhex(nonce), str(control), str(service),
            bool(permanent),
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError):
        return None
    if not isinstance(port, int) or not isinstance(external_port, int):
        return None
    nonce_fits = len(held.nonce) == (pcp.NONCE_BYTES if held.protocol == PCP else 0)
    fits = internal.port and external.port and internal.family == external.family and nonce_fits and _service_fits(held)
    return held if fits else None


def _service_fits(held: Held) -> bool:
    if held.protocol in (PCP, NATPMP):
        return True
    services = {UPNP: MAPPING_SERVICES, PINHOLE: (FIREWALL_6,)}.get(held.protocol, ())
    family = 6 if held.protocol == PINHOLE else 4
    return held.service in services and held.internal.family == family and control_of(held) is not None


class Sweeper:
    """Deletes mappings of before, each by one request: if it is lost, the lease ends by itself, or it is asked again
    at the next start. One of UPnP may be another host's by now, so the router is asked first where it leads."""

    def __init__(self, next_id: Callable[[], int]) -> None:
        self._next_id = next_id
        self._asked: dict[int, Held] = {}
        self._actions: list[Action] = []

    def actions(self) -> Iterator[Action]:
        """What is to be sent, once."""
        actions, self._actions = self._actions, []
        return iter(actions)

    def sweep(self, held: Held) -> None:
        """Delete this one."""
        control = control_of(held)
        if held.protocol in (PCP, NATPMP):
            self._actions.append(
                SendMapping(Address(held.gateway, pcp.SERVER_PORT), deletion(held), held.internal.ip)
            )
        elif held.protocol == PINHOLE and control is not None:
            raw = ending(held, control)
            self._actions.append(http_request(self._next_id(), control.url, raw, held.internal.ip))
        elif control is not None and held not in self._asked.values() and len(self._asked) < MAX_HELD:
            number = self._next_id()
            self._asked[number] = held
            raw = soap.get_port_mapping(control, held.external.port)
            self._actions.append(http_request(number, control.url, raw, ""))

    def reply(self, reply: HttpReply) -> Held | None:
        """The answer to a question of `sweep`. What has been dealt with by it: deleted, or not ours (any more)."""
        held = self._asked.pop(reply.request_id, None)
        control = control_of(held) if held is not None else None
        if held is None or control is None or not reply.status or len(reply.body) > MAX_BODY:
            return None
        response = HttpResponse(reply.status, reply.body)
        entry = decode_entry(response)
        if entry is None:
            return held if _answered(response) else None
        if (entry.internal_host, entry.internal_port) == held.internal:
            raw = soap.delete_port_mapping(control, held.external.port)
            self._actions.append(http_request(self._next_id(), control.url, raw, ""))
        return held


def _answered(response: HttpResponse) -> bool:
    """Whether the router refused in UPnP's own words, as it does of a mapping that it has not got."""
    try:
        refusal = soap.decode_done(response)
    except WireError:
        return False
    return refusal is not None and refusal.code != 0
