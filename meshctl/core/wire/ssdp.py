"""SSDP, the search of UPnP for routers (UPnP Device Architecture 1.1, sections 1.2 and 1.3): what is asked, the
replies, and what devices announce without being asked.

Anyone on the LAN may reply, so a reply says only where its own sender has a description. Many devices reply to searches
that are not for them: only the description tells whether it is a router.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import Url, parse_head, parse_notify, parse_url, printable

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
    """A device that replied: where its description is, what it says it is (may be empty), and its software. `boot` is
    another one after each restart, "" where the device does not say."""

    location: Url
    target: str
    server: str
    boot: str = ""


class Notice(Enum):
    """What a device announces of itself."""

    ALIVE = "ssdp:alive"  # again and again, and when it has started
    BYEBYE = "ssdp:byebye"  # it stops, or was just started and takes back what it said before
    UPDATE = "ssdp:update"  # its boot number changes though it was not restarted


@dataclass(frozen=True)
class Announcement:
    """An announcement for one of the device's targets, with the boot number from now on."""

    notice: Notice
    target: str
    boot: str


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
        printable(headers.get("server", ""), _MAX_WORD), _boot(headers),
    )


def decode_announcement(raw: bytes) -> Announcement:
    """A NOTIFY of SSDP. Raises WireError. Its location is not read: who wants it searches."""
    if len(raw) > MAX_REPLY:
        raise WireError("the announcement is too long")
    headers = parse_notify(raw)
    try:
        notice = Notice(headers.get("nts", "").lower())
    except ValueError:
        raise WireError("not an announcement of SSDP") from None
    boot = headers.get("nextbootid.upnp.org", "") if notice is Notice.UPDATE else ""
    return Announcement(notice, printable(headers.get("nt", ""), _MAX_WORD), boot[:_MAX_WORD] or _boot(headers))


def _boot(headers: dict[str, str]) -> str:
    """Of UPnP 1.1, or of the older extension by which some devices say the same."""
    return (headers.get("bootid.upnp.org") or headers.get("01-nls", ""))[:_MAX_WORD]
