"""The description of a UPnP Internet Gateway Device: which services it has, and where they are controlled.

UPnP Device Architecture 1.1 section 2.3; InternetGatewayDevice:1 and :2, WANIPConnection:1 and :2, WANPPPConnection:1,
WANIPv6FirewallControl:1.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import MAX_BODY, Url, parse_url, printable
from meshctl.core.wire.xmlscan import leaves

_UPNP = "urn:schemas-upnp-org:service:"
# The DSL Forum's names (TR-064) of the same services, which some routers give to UPnP too.
_LEGACY = "urn:dslforum-org:service:"

WAN_IP_2 = f"{_UPNP}WANIPConnection:2"
FIREWALL_6 = f"{_UPNP}WANIPv6FirewallControl:1"
# Services that map ports, the one that chooses a free port by itself first.
MAPPING_SERVICES = (
    WAN_IP_2,
    f"{_UPNP}WANIPConnection:1",
    f"{_UPNP}WANPPPConnection:1",
    f"{_LEGACY}WANIPConnection:1",
    f"{_LEGACY}WANPPPConnection:1",
)

# A router has one to three of a kind; each one costs requests.
MAX_SERVICES = 8
_MAX_WORD = 64
_MAX_LINK = 512


@dataclass(frozen=True)
class Service:
    """A service and where it is controlled: one place, or two where the description's base URL is in doubt."""

    service_type: str
    controls: tuple[Url, ...]


@dataclass(frozen=True)
class Device:
    """A router. `mapping` is in order of preference, `firewall` holds IPv6 pinholes; the words are for people."""

    mapping: tuple[Service, ...]
    firewall: tuple[Service, ...]
    name: str
    manufacturer: str
    model: str


def decode_description(body: bytes, location: Url) -> Device:
    """The description that was at `location`. Raises WireError, also when it has no service that is of use.

    A service on another host is left out. All places are to be asked in turn, since URLBase, which goes before the
    location, has the wrong port on some routers.
    """
    if len(body) > MAX_BODY:
        raise WireError("the description is too long")
    words: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    current: dict[str, str] = {}
    for tag, text in leaves(body):
        if tag == "service":
            current = {}
        elif tag == "/service":
            found.append((current.get("servicetype", ""), current.get("controlurl", "")))
        elif tag in ("/servicetype", "/controlurl"):
            current.setdefault(tag[1:], text[:_MAX_LINK])
        elif tag in ("/urlbase", "/friendlyname", "/manufacturer", "/modelname"):
            # The root device comes first; those inside it have words of their own.
            words.setdefault(tag[1:], text)
    bases = _bases(words.get("urlbase", ""), location)
    mapping = [service for wanted in MAPPING_SERVICES for service in _services(found, wanted, bases)]
    firewall = _services(found, FIREWALL_6, bases)
    if not mapping and not firewall:
        raise WireError("the device has no service that maps ports")
    return Device(
        tuple(mapping[:MAX_SERVICES]), tuple(firewall[:MAX_SERVICES]),
        *(printable(words.get(tag, ""), _MAX_WORD) for tag in ("friendlyname", "manufacturer", "modelname")),
    )


def _bases(url_base: str, location: Url) -> tuple[Url, ...]:
    """What links are relative to: URLBase if it is on this host, then the location."""
    try:
        return (parse_url(url_base, location.host), location)
    except WireError:
        return (location,)


def _services(found: list[tuple[str, str]], wanted: str, bases: tuple[Url, ...]) -> list[Service]:
    """The services of a type, in the description's order, each once."""
    places = [_places(link, bases) for service_type, link in found if service_type.lower() == wanted.lower()]
    return [Service(wanted, controls) for controls in dict.fromkeys(places) if controls]


def _places(link: str, bases: tuple[Url, ...]) -> tuple[Url, ...]:
    """Where the link may lead, less what is on another host."""
    places: dict[Url, None] = {}
    for base in bases:
        with suppress(WireError):
            places[base.join(link)] = None
    return tuple(places)
