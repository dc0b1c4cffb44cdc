"""HTTP requests to routers, which may be anybody in the LAN that says so: bounded in size, in time, and in reach.

Only an address in a network of this host is asked, and none of its own, nor one of loopback or of the link but the
router's (clouds tell machines their secrets at a link-local address); packets leave with a hop limit of one, so that no
router can carry them further whatever routes say. There are no redirects, no proxies and no names.
"""

from __future__ import annotations

import socket
import time
from ipaddress import ip_address

from meshctl.core.agent.address import within
from meshctl.core.agent.events import HttpReply, HttpRequest, LocalAddresses
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import MAX_BODY, MAX_HEAD, Url, decode_response, host_of, parse_url, until_whole

# For all of a request: the core waits for its answer for ten seconds.
TOTAL_S = 8.0
# A body at its longest, and what comes with it when it is in chunks.
_MAX_BYTES = MAX_HEAD + 2 * MAX_BODY
_SUBNET_BITS = 64  # of IPv6, whatever length the host's own address was given (RFC 4291 section 2.5.4)


def fetch(request: HttpRequest, here: LocalAddresses, total_s: float = TOTAL_S) -> HttpReply:
    """The answer; status 0 when there is none that can be used. `here` is where this host is, without its meshes."""
    try:
        url = parse_url(request.url, host_of(request.url))
        if not _is_neighbour(url.host, here):
            raise WireError("the address is not in a network of this host")
        response = decode_response(_exchange(url, _encode(request, url), request.source, time.monotonic() + total_s))
    except (OSError, WireError, ValueError):
        return HttpReply(request.request_id, 0, b"")
    return HttpReply(request.request_id, response.status, response.body)


def _is_neighbour(host: str, here: LocalAddresses) -> bool:
    own, address = here.addresses, ip_address(host)
    if address.is_loopback or address.is_unspecified or host in {a.ip for a in own}:
        return False
    if address.is_link_local:
        return host in {gateway.partition("%")[0] for gateway in here.gateways}
    subnets = (a._replace(prefix_length=min(a.prefix_length, _SUBNET_BITS)) if ":" in a.ip else a for a in own)
    return within(host, tuple(a.prefix for a in subnets))


def _encode(request: HttpRequest, url: Url) -> bytes:
    lines = [f"{request.method} {url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers)]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + request.body


def _exchange(url: Url, raw: bytes, source: str, ends_at: float) -> bytes:
    """What the server sends until that is a whole response, or the connection ends. Raises OSError, and WireError when
    it is too much."""
    family = socket.AF_INET6 if ":" in url.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        if source:
            sock.bind((source, 0))
        _wait(sock, ends_at)
        sock.connect((url.host, url.port))
        _wait(sock, ends_at)
        sock.sendall(raw)
        received = bytearray()
        for _ in until_whole(received):
            _wait(sock, ends_at)
            piece = sock.recv(1 << 14)
            if not piece:
                break
            received += piece
            if len(received) > _MAX_BYTES:
                raise WireError("the response is too long")
        return bytes(received)


def _wait(sock: socket.socket, ends_at: float) -> None:
    """The next call takes no longer than there is time. Raises TimeoutError."""
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError("the server takes too long")
    sock.settimeout(left)
