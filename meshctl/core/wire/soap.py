"""UPnP control: the actions of a gateway's services as SOAP requests, and the answers.

UPnP Device Architecture 1.1 section 3; WANIPConnection:1 section 2.4 and :2 section 2.5; WANPPPConnection:1;
WANIPv6FirewallControl:1 section 2.5. An action that the router refuses gives a `Fault`; what cannot be read raises.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.core.wire.address import canonical_ip
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import HttpResponse, Url, encode_request, printable
from meshctl.core.wire.upnperrors import Fault
from meshctl.core.wire.xmlscan import escape, leaves

# In capitals: some routers take it in no other way.
PROTOCOL = "UDP"
_UDP_NUMBER = 17
_ENVELOPE = (
    '<?xml version="1.0"?>\r\n'
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
    ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
    '<s:Body><u:{action} xmlns:u="{service}">{arguments}</u:{action}></s:Body></s:Envelope>\r\n'
)
_MAX_WORDS = 256
# What a pinhole may be leased for (WANIPv6FirewallControl:1 section 2.3.9).
MAX_PINHOLE_S = 86400


@dataclass(frozen=True)
class Control:
    """One service of one router: where it listens and what it is called."""

    url: Url
    service_type: str


@dataclass(frozen=True)
class PortMapping:
    """A mapping to ask for. A `lease_s` of 0 is permanent, until someone deletes it or the router restarts."""

    external_port: int
    internal_host: str
    internal_port: int
    lease_s: int
    description: str


@dataclass(frozen=True)
class MappedTo:
    """An entry of the router's table: where an external port leads. `lease_s` is what is left, 0 of a permanent one."""

    internal_host: str
    internal_port: int
    enabled: bool
    description: str
    lease_s: int


def get_external_address(control: Control) -> bytes:
    """The request for GetExternalIPAddress."""
    return _request(control, "GetExternalIPAddress")


def add_port_mapping(control: Control, mapping: PortMapping) -> bytes:
    """The request for AddPortMapping: this external port or none. Raises WireError for a port out of range."""
    return _request(control, "AddPortMapping", *_mapping_arguments(mapping))


def add_any_port_mapping(control: Control, mapping: PortMapping) -> bytes:
    """The request for AddAnyPortMapping, which WANIPConnection:2 has: another port if this one is taken."""
    return _request(control, "AddAnyPortMapping", *_mapping_arguments(mapping))


def delete_port_mapping(control: Control, external_port: int) -> bytes:
    """The request for DeletePortMapping."""
    return _request(control, "DeletePortMapping", *_entry_arguments(external_port))


def get_port_mapping(control: Control, external_port: int) -> bytes:
    """The request for GetSpecificPortMappingEntry."""
    return _request(control, "GetSpecificPortMappingEntry", *_entry_arguments(external_port))


def add_pinhole(control: Control, internal_host: str, internal_port: int, lease_s: int) -> bytes:
    """The request for AddPinhole: from anyone to this IPv6 address and UDP port. Raises WireError.

    To be sent over IPv6, from that address: routers refuse to open for another host than the one that asks.
    """
    if ":" not in canonical_ip(internal_host) or not 0 < lease_s <= MAX_PINHOLE_S:
        raise WireError("a pinhole is for an IPv6 address, and for a day at most")
    return _request(
        control, "AddPinhole", ("RemoteHost", ""), ("RemotePort", "0"), ("InternalClient", internal_host),
        ("InternalPort", _port(internal_port)), ("Protocol", str(_UDP_NUMBER)), ("LeaseTime", str(lease_s)),
    )


def delete_pinhole(control: Control, unique_id: int) -> bytes:
    """The request for DeletePinhole, by the number that AddPinhole's answer gave (from 0 on). Raises WireError."""
    if not 0 <= unique_id <= 0xFFFF:
        raise WireError("a pinhole's number has 16 bits")
    return _request(control, "DeletePinhole", ("UniqueID", str(unique_id)))


def decode_external_address(response: HttpResponse) -> str | Fault | None:
    """The address outside, canonical; None where the router has none. Ask `address.reach` what it is worth."""
    values = _values(response)
    if isinstance(values, Fault):
        return values
    text = _required(values, "NewExternalIPAddress")
    try:
        return canonical_ip(text)
    except WireError:
        if text:
            raise
        return None


def decode_done(response: HttpResponse) -> Fault | None:
    """The answer to AddPortMapping, DeletePortMapping and DeletePinhole: done or refused."""
    values = _values(response)
    return values if isinstance(values, Fault) else None


def decode_reserved_port(response: HttpResponse) -> int | Fault:
    """The answer to AddAnyPortMapping: the external port."""
    values = _values(response)
    if isinstance(values, Fault):
        return values
    return _port_number(_required(values, "NewReservedPort"))


def decode_port_mapping(response: HttpResponse) -> MappedTo | Fault:
    """The answer to GetSpecificPortMappingEntry."""
    values = _values(response)
    if isinstance(values, Fault):
        return values
    lease = values.get("newleaseduration", "")
    return MappedTo(
        canonical_ip(_required(values, "NewInternalClient")),
        _port_number(_required(values, "NewInternalPort")),
        values.get("newenabled", "1").lower() in ("1", "true", "yes"),
        printable(values.get("newportmappingdescription", ""), _MAX_WORDS),
        int(lease) if _is_number(lease) else 0,
    )


def decode_pinhole(response: HttpResponse) -> int | Fault:
    """The answer to AddPinhole: the number by which it is deleted."""
    values = _values(response)
    if isinstance(values, Fault):
        return values
    return _port_number(_required(values, "UniqueID"), least=0)


def _request(control: Control, action: str, *arguments: tuple[str, str]) -> bytes:
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in arguments)
    body = _ENVELOPE.format(action=action, service=control.service_type, arguments=inside).encode("utf-8")
    headers = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{control.service_type}#{action}"'}
    return encode_request("POST", control.url, headers, body)


def _mapping_arguments(mapping: PortMapping) -> tuple[tuple[str, str], ...]:
    """In the order of the specification, all of them: routers read by position, and refuse when one is missing."""
    if not 0 <= mapping.lease_s <= 0xFFFFFFFF or ":" in canonical_ip(mapping.internal_host):
        raise WireError("a mapping is for an IPv4 address, and its lease has 32 bits")
    return (
        *_entry_arguments(mapping.external_port),
        ("NewInternalPort", _port(mapping.internal_port)), ("NewInternalClient", mapping.internal_host),
        ("NewEnabled", "1"), ("NewPortMappingDescription", mapping.description),
        ("NewLeaseDuration", str(mapping.lease_s)),
    )


def _entry_arguments(external_port: int) -> tuple[tuple[str, str], ...]:
    return ("NewRemoteHost", ""), ("NewExternalPort", _port(external_port)), ("NewProtocol", PROTOCOL)


def _port(number: int) -> str:
    """Port 0 would be a wildcard: every port of the router."""
    if not 0 < number <= 0xFFFF:
        raise WireError("port is out of range")
    return str(number)


def _values(response: HttpResponse) -> dict[str, str] | Fault:
    """The answer's arguments by name in small letters, or why there are none. HTTP's status is not to be relied on:
    there are faults with 200, and a 500 may have no fault."""
    values: dict[str, str] = {}
    for tag, text in leaves(response.body):
        if tag.startswith("/"):
            values.setdefault(tag[1:], text)
    if "errorcode" in values:
        code = values["errorcode"]
        return Fault(int(code) if _is_number(code) else 0, printable(values.get("errordescription", ""), _MAX_WORDS))
    if response.status != 200 or "fault" in values:
        return Fault(0, f"HTTP status {response.status}")
    if not any(name.endswith("response") for name in values):
        raise WireError("not an answer to an action")
    return values


def _required(values: dict[str, str], name: str) -> str:
    try:
        return values[name.lower()]
    except KeyError:
        raise WireError(f"the answer has no {name}") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _port_number(text: str, least: int = 1) -> int:
    if not _is_number(text) or not least <= int(text) <= 0xFFFF:
        raise WireError("the answer has an impossible port")
    return int(text)
