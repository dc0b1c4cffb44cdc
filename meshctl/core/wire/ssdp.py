"""SSDP, the search of UPnP for routers (UPnP Device Architecture 1.1, section 1.3): what is asked, and the replies.

Anyone on the LAN may reply, so a reply says only where its own sender has a description. Many devices reply to searches
that are not for them: only the description tells whether it is a router.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import Url, parse_head, parse_url, printable

# A router opens its IPv6 firewall only for the host that asks over IPv6, so it must be searched for there too, from a
# global address: to others it may name a link-local one, which is refused.
GROUP = "239.255.255.250"
GROUP_6 = "ff02::c"
PORT = 1900
# Seconds within which devices spread their replies; the least that the architecture allows.
MAX_WAIT_S = 1
# Replies are one datagram, of a few hundred bytes.
MAX_REPLY = 2048
_MAX_WORD = 256

# What is searched for. Some routers answer only for a service, some only for version 1.
TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)


@dataclass(frozen=True)
class Reply:
    """A device that replied: where its description is, what it says it is (may be empty), and its software."""

    location: Url
    target: str
    server: str


def encode_search(target: str, group: str = GROUP) -> bytes:
    """The search for one target in one of the two groups."""
    host = f"[{group}]" if ":" in group else group
    lines = [
        "M-SEARCH * HTTP/1.1", f"HOST: {host}:{PORT}", 'MAN: "ssdp:discover"', f"MX: {MAX_WAIT_S}",
        f"ST: {target}", "", "",
    ]
    return "\r\n".join(lines).encode("ascii")


def decode_reply(raw: bytes, sender: str) -> Reply:
    """A reply that came from `sender`, a canonical address. Raises WireError."""
    if len(raw) > MAX_REPLY:
        raise WireError("the reply is too long")
    status, headers = parse_head(raw)
    if status != 200:
        raise WireError("the reply is not a success")
    if "location" not in headers:
        raise WireError("the reply has no location")
    # Where ST is missing, USN ends in the same words: `uuid:…::urn:…`.
    target = headers.get("st") or headers.get("usn", "").partition("::")[2]
    return Reply(
        parse_url(headers["location"], sender), printable(target, _MAX_WORD),
        printable(headers.get("server", ""), _MAX_WORD),
    )
