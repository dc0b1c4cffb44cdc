"""A router's UPnP: who may speak for it, where it is controlled, and a request to it as an action."""

from __future__ import annotations

from meshctl.core.agent.address import LocalAddress, within
from meshctl.core.agent.events import HttpRequest
from meshctl.core.agent.portmap_values import Held
from meshctl.core.wire import soap
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import Url, host_of, parse_url

# An IPv6 subnet has 64 bits (RFC 4291 section 2.5.4), whatever length the host's own address was given.
_SUBNET_BITS = 64


def is_router(sender: str, gateway: str, internal_ip: str) -> bool:
    """Whether `sender` may speak for the router that this host's address has at `gateway`. All are canonical.

    Over IPv6 the gateway is known by its link-local address, and UPnP answers from another one. So whoever is in the
    host's own subnet is heard: a liar can do no more than say that a firewall is open which is not.
    """
    if sender == gateway:
        return True
    return ":" in internal_ip and sender != internal_ip and within(sender, (_subnet(internal_ip),))


def control_of(held: Held) -> soap.Control | None:
    """Where a mapping that is held is controlled; None unless that is on its router."""
    try:
        url = parse_url(held.control, host_of(held.control))
    except WireError:
        return None
    return soap.Control(url, held.service) if is_router(url.host, held.gateway, held.internal.ip) else None


def http_request(number: int, url: Url, raw: bytes, source: str) -> HttpRequest:
    """A whole request, as the codecs write it, as an action."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
    return HttpRequest(number, first.partition(" ")[0], str(url), headers, body, source)


def _subnet(ip: str) -> str:
    return LocalAddress(ip, _SUBNET_BITS, "").prefix
