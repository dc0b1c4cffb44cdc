"""UPnP: the requests that we send, and answers that were made to hurt: wrong hosts, redirects, smuggled headers,
entities, endless documents. No answer, whatever its bytes, raises anything but WireError."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_fixtures import FIXTURES
from wire_strategies import damaged

from meshctl.core.wire import igd, soap, ssdp, xmlscan
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import (
    MAX_BODY,
    MAX_HEADERS,
    HttpResponse,
    Url,
    decode_response,
    encode_request,
    parse_url,
    until_whole,
)
from meshctl.core.wire.upnperrors import MAPPING_ERRORS, PINHOLE_ERRORS, Fault, Remedy

ROUTERS = FIXTURES / "routers"
GATEWAY = "192.168.1.1"
LOCATION = Url(GATEWAY, 5000, "/rootDesc.xml")
IP = "urn:schemas-upnp-org:service:WANIPConnection:1"
CONTROL = soap.Control(Url(GATEWAY, 5000, "/ctl/IPConn"), IP)
FIREWALL = soap.Control(Url(GATEWAY, 5000, "/ctl/IP6FCtl"), igd.FIREWALL_6)
MAPPING = soap.PortMapping(51820, "192.168.1.5", 51820, 7200, "meshctl <a> & b")
DECODERS = (
    soap.decode_external_address, soap.decode_done, soap.decode_reserved_port,
    soap.decode_port_mapping, soap.decode_pinhole,
)


def reply(*headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *headers, "", ""]).encode("latin-1")


def description(controls: str, before: str = "", types: str = IP) -> bytes:
    service = f"<service><serviceType>{types}</serviceType><controlURL>{controls}</controlURL></service>"
    return f'<?xml version="1.0"?>{before}<root><device><modelName>x</modelName>{service}</device></root>'.encode()


def ok(arguments: str, status: int = 200) -> HttpResponse:
    return HttpResponse(status, f"<Envelope><Body><Response>{arguments}</Response></Body></Envelope>".encode())


# Searching


def test_a_search_over_ipv6_names_its_group_in_brackets() -> None:
    assert b"\r\nHOST: [ff02::c]:1900\r\n" in ssdp.encode_search(ssdp.TARGETS[0], ssdp.GROUP_6)


@pytest.mark.parametrize(
    "location", ["http://[fe80::1]/", "http://[2001:db8::2]/", "http://2001:db8::1/", "http://[2001:db8::1/", "http://192.0.2.1/"],
)
def test_a_reply_over_ipv6_may_not_lead_away_either(location: str) -> None:
    with pytest.raises(WireError):
        ssdp.decode_reply(reply(f"LOCATION: {location}"), "2001:db8::1")


def test_a_reply_over_ipv6_may_spell_its_address_in_its_own_way() -> None:
    answer = ssdp.decode_reply(reply("LOCATION: http://[2001:DB8:0::1]:5000/x"), "2001:db8::1")
    assert encode_request("GET", answer.location).startswith(b"GET /x HTTP/1.1\r\nHost: [2001:db8::1]:5000\r\n")


@pytest.mark.parametrize("target", ssdp.TARGETS)
def test_a_search_has_the_form_that_routers_insist_on(target: str) -> None:
    assert ssdp.encode_search(target).decode() == (
        "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n"
        f"ST: {target}\r\n\r\n"
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\r\n", b"NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.1.1/\r\n\r\n", reply(), reply("ST: x"),
        reply("LOCATION: http://192.168.1.1/", status="HTTP/1.1 404 Not Found"),
        reply("LOCATION: http://192.168.1.1/", status="HTTP/2 200 OK"),
        reply("LOCATION: http://192.168.1.2/"), reply("LOCATION: http://10.0.0.1:80/x"),
        reply("LOCATION: https://192.168.1.1/"), reply("LOCATION: file:///etc/passwd"),
        reply("LOCATION: //192.168.1.1/"), reply("LOCATION: /rootDesc.xml"),
        reply("LOCATION: http://router.lan/"), reply("LOCATION: http://localhost/"),
        reply("LOCATION: http://192.168.1.1@10.0.0.1/"), reply("LOCATION: http://a:b@192.168.1.1/"),
        reply("LOCATION: http://192.168.1.1.example/"), reply("LOCATION: http://192.168.001.001/"),
        reply("LOCATION: http://3232235777/"), reply("LOCATION: http://0xc0a80101/"), reply("LOCATION: http://[::1]/"),
        reply("LOCATION: http://192.168.1.1:0/"), reply("LOCATION: http://192.168.1.1:65536/"),
        reply("LOCATION: http://192.168.1.1:80x/"), reply("LOCATION: http://192.168.1.1/a b"),
        reply("LOCATION: http://192.168.1.1/a\tHost: x"), reply("LOCATION: http://192.168.1.1/\xe4"),
        reply("LOCATION: http://192.168.1.1/" + "x" * 600), reply("LOCATION: http://192.168.1.1/a\rX: y"),
        reply("LOCATION: http://192.168.1.1/a\0"), reply("LOCATION: http://192.168.1.1/\x7f"),
        reply("LOCATION: http://192.168.1.1/a", "LOCATION: http://192.168.1.1/b"),
        reply("LOCATION : http://192.168.1.1/a", "location: http://192.168.1.1/b"),
        reply("LOCATION: http://192.168.1.1/", " folded: line"), reply("LOCATION: http://192.168.1.1/", "no colon"),
        reply("LOCATION: http://192.168.1.1/", "na me: x"), reply("LOCATION: http://192.168.1.1/", ": x"),
        reply("LOCATION: http://192.168.1.1/", *(f"X-{n}: y" for n in range(MAX_HEADERS))),
        reply("LOCATION: http://192.168.1.1/", "X: " + "y" * ssdp.MAX_REPLY),
    ],
    ids=lambda raw: raw[:80].decode("latin-1").encode("unicode_escape").decode(),
)
def test_a_hostile_reply_to_a_search_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        ssdp.decode_reply(raw, GATEWAY)


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("name", ["LOCATION", "location", "Location", "lOcAtIoN"])
@pytest.mark.parametrize("value", [":http://192.168.1.1:5000/rootDesc.xml", ":  HTTP://192.168.1.1:5000/rootDesc.xml "])
@pytest.mark.parametrize("end", ["", "\r\n\r\n", "\nST: x"])
def test_a_reply_may_be_spelled_as_routers_spell_it(line_end: str, name: str, value: str, end: str) -> None:
    raw = f"HTTP/1.1 200 OK{line_end}{name}{value}{end}".encode()
    assert ssdp.decode_reply(raw, GATEWAY).location == LOCATION


def test_long_words_in_a_reply_are_cut() -> None:
    raw = reply("LOCATION: http://192.168.1.1/", "SERVER: " + "x" * 900, "ST: " + "y" * 900)
    answer = ssdp.decode_reply(raw, GATEWAY)
    assert max(len(answer.server), len(answer.target)) <= 256


# Announcements


def notify(*headers: str, first: str = "NOTIFY * HTTP/1.1") -> bytes:
    return reply(*headers, status=first)


@pytest.mark.parametrize(
    ("raw", "notice", "boot"),
    [
        (notify("NTS: ssdp:alive", "NT: x", "BOOTID.UPNP.ORG: 7"), ssdp.Notice.ALIVE, "7"),
        (notify("nts:SSDP:ALIVE", "nt:x", "01-NLS: 8", first="NOTIFY * HTTP/1.0"), ssdp.Notice.ALIVE, "8"),
        (notify("NTS: ssdp:byebye", "NT: x"), ssdp.Notice.BYEBYE, ""),
        (notify("NTS: ssdp:update", "NT: x", "BOOTID.UPNP.ORG: 7", "NEXTBOOTID.UPNP.ORG: 9"), ssdp.Notice.UPDATE, "9"),
        (notify("NTS: ssdp:alive", "NT: x", "BOOTID.UPNP.ORG: 7", "NEXTBOOTID.UPNP.ORG: 9"), ssdp.Notice.ALIVE, "7"),
    ],
)
def test_an_announcement_says_what_it_is_and_the_boot_number(raw: bytes, notice: ssdp.Notice, boot: str) -> None:
    assert ssdp.decode_announcement(raw) == ssdp.Announcement(notice, "x", boot)


@pytest.mark.parametrize(
    "raw",
    [
        b"", notify("NT: x"), notify("NTS: upnp:propchange", "NT: upnp:event"), notify("NTS: ssdp:alive", "no colon"),
        notify("NTS: ssdp:alive", first="NOTIFY /x HTTP/1.1"), notify("NTS: ssdp:alive", first="HTTP/1.1 200 OK"),
        notify("NTS: ssdp:alive", first="M-SEARCH * HTTP/1.1"), notify("NTS: ssdp:alive", "X: " + "y" * ssdp.MAX_REPLY),
        notify("NTS: ssdp:alive", *(f"X-{n}: y" for n in range(MAX_HEADERS))),
    ],
    ids=lambda raw: raw[:60].decode("latin-1").encode("unicode_escape").decode(),
)
def test_what_is_no_announcement_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        ssdp.decode_announcement(raw)


def test_an_announcement_is_no_reply_and_a_reply_no_announcement() -> None:
    alive = (ROUTERS / "debian-miniupnpd.alive.notify").read_bytes()
    assert ssdp.decode_announcement(alive).target == "urn:schemas-upnp-org:device:InternetGatewayDevice:2"
    with pytest.raises(WireError):
        ssdp.decode_reply(alive, "192.168.77.1")
    with pytest.raises(WireError):
        ssdp.decode_announcement((ROUTERS / "debian-miniupnpd.ssdp").read_bytes())


# Places


@pytest.mark.parametrize(
    ("link", "place"),
    [
        ("/ctl", "http://192.168.1.1:5000/ctl"), ("ctl?x=1", "http://192.168.1.1:5000/a/ctl?x=1"),
        ("./ctl", "http://192.168.1.1:5000/a/ctl"), (" /ctl\n", "http://192.168.1.1:5000/ctl"),
        ("http://192.168.1.1/ctl", "http://192.168.1.1:80/ctl"), ("HTTP://192.168.1.1:81/", "http://192.168.1.1:81/"),
        ("?ctl", "http://192.168.1.1:5000/a/?ctl"), ("/a:b/c", "http://192.168.1.1:5000/a:b/c"),
    ],
)
def test_a_link_leads_to_a_place_on_the_same_host(link: str, place: str) -> None:
    assert str(Url(GATEWAY, 5000, "/a/desc.xml?q=/b/").join(link)) == place


@pytest.mark.parametrize(
    "link",
    [
        "", " ", "//10.0.0.1/x", "http://10.0.0.1/x", "https://192.168.1.1/x", "ftp://192.168.1.1/x", "javascript:x",
        "/a b", "/a\r\nX: y", "/\x00", "/ü", "http://fritz.box/x", "/" + "x" * 600,
    ],
)
def test_a_link_that_leads_away_is_refused(link: str) -> None:
    with pytest.raises(WireError):
        LOCATION.join(link)


@pytest.mark.parametrize("port", [1, 80, 65535])
def test_every_port_can_be_named(port: int) -> None:
    assert parse_url(f"http://192.168.1.1:{port}/x", GATEWAY) == Url(GATEWAY, port, "/x")


def test_a_url_without_a_path_is_the_root_and_a_fragment_is_none_of_the_servers_business() -> None:
    assert parse_url("http://192.168.1.1", GATEWAY) == Url(GATEWAY, 80, "/")
    assert parse_url("http://192.168.1.1/a#b", GATEWAY) == Url(GATEWAY, 80, "/a")


# HTTP


def test_a_request_is_one_piece_with_the_host_that_it_goes_to() -> None:
    assert encode_request("GET", LOCATION) == (
        b"GET /rootDesc.xml HTTP/1.1\r\nHost: 192.168.1.1:5000\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", b"HTTP/1.0 200 OK\n\nbody", b"HTTP/1.1 200\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody and more",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n4\nbody\n0\n\n",
    ],
)
def test_a_body_is_found_however_it_is_framed(raw: bytes) -> None:
    assert decode_response(raw) == HttpResponse(200, b"body")


HELD_OPEN = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", b"HTTP/1.1 200 OK\nContent-Length: 4\n\nbody",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n",
    b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n4\nbody\n0\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("raw", HELD_OPEN)
def test_a_response_is_whole_with_its_last_byte_though_the_connection_stays(raw: bytes) -> None:
    received = bytearray()
    steps = 0
    for _ in until_whole(received):
        received += raw[steps : steps + 1]
        steps += 1
    assert steps == len(raw)
    assert decode_response(bytes(received)).status == 200


@given(st.sampled_from(HELD_OPEN), st.data())
def test_whatever_can_be_read_at_the_connections_end_is_the_same_when_it_is_taken_for_whole(
    raw: bytes, data: st.DataObject
) -> None:
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        wanted = decode_response(bytes(changed))
    except WireError:
        wanted = None
    received = bytearray()
    with suppress(WireError) if wanted is None else nullcontext():
        for _ in until_whole(received):
            if len(received) == len(changed):
                break
            received += changed[len(received) :][:1]
    assert wanted is None or decode_response(bytes(received)) == wanted


@pytest.mark.parametrize("status", [200, 299, 400, 401, 500])
def test_a_status_that_is_no_redirect_is_the_callers_to_judge(status: int) -> None:
    assert decode_response(b"HTTP/1.1 %d X\r\n\r\n<a/>" % status) == HttpResponse(status, b"<a/>")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 300 X\r\n\r\n", b"HTTP/1.1 399 X\r\n\r\n",
        b"", b"HTTP/1.1 200 OK\r\n", b"<html>", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nbody", "HTTP/1.1 200 OK\r\nContent-Length: ²\r\n\r\nx".encode(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nbody",
        b"HTTP/1.1 301 Moved\r\nLocation: http://10.0.0.1/\r\n\r\n", b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\nbody\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nbody\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3000 + b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_BODY + 1),
    ],
    ids=lambda raw: raw[:60].decode("latin-1").encode("unicode_escape").decode(),
)
def test_a_hostile_response_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        decode_response(raw)


# Descriptions


@pytest.mark.parametrize(
    "before",
    [
        '<!DOCTYPE r [<!ENTITY a "b">]>', '<!doctype html>', '<! DOCTYPE r>', '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>', "<!ELEMENT a ANY>",
    ],
)
def test_a_document_that_declares_anything_is_refused(before: str) -> None:
    with pytest.raises(WireError, match="declares"):
        igd.decode_description(description("/ctl", before), LOCATION)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<root/>", b"\0" * 100, description("/ctl", types="urn:schemas-upnp-org:service:Layer3Forwarding:1"),
        description("/ctl", types=""), description(""), description("http://10.0.0.1/ctl"),
        description("http://fritz.box/ctl"), description("https://192.168.1.1/ctl"), description("/a b"),
        b"x" * (MAX_BODY + 1), b"<a>" * (xmlscan.MAX_ELEMENTS + 1),
        b"\xff\xfe\x00", b"<service></service>", b"<!-- " + description("/ctl"),
    ],
    ids=lambda body: f"{len(body)} bytes",
)
def test_a_description_without_a_usable_service_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        igd.decode_description(body, LOCATION)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_a_description_may_come_in_any_encoding_that_routers_use(encoding: str) -> None:
    text = description("/ctl").decode().replace("<modelName>x<", "<friendlyName>Büro</friendlyName><modelName>x<")
    device = igd.decode_description(text.encode(encoding), LOCATION)
    assert (device.name, str(device.mapping[0].controls[0])) == ("Büro", "http://192.168.1.1:5000/ctl")


@pytest.mark.parametrize("url_base", ["http://10.0.0.1/", "http://fritz.box:49000", "ftp://192.168.1.1/", "nonsense"])
def test_a_base_url_on_another_host_is_passed_over(url_base: str) -> None:
    device = igd.decode_description(description("ctl", f"<URLBase>{url_base}</URLBase>"), LOCATION)
    assert device.mapping[0].controls == (Url(GATEWAY, 5000, "/ctl"),)


def test_the_service_that_is_tried_first_is_the_one_that_chooses_a_port_by_itself() -> None:
    services = "".join(
        f"<service><serviceType>{kind}</serviceType><controlURL>/{n}</controlURL></service>"
        for n, kind in enumerate(reversed(igd.MAPPING_SERVICES))
    )
    device = igd.decode_description(f"<root>{services}{services}</root>".encode(), LOCATION)
    assert [service.service_type for service in device.mapping] == list(igd.MAPPING_SERVICES)
    assert device.mapping[0].service_type == igd.WAN_IP_2


def test_many_services_are_cut_to_a_few() -> None:
    services = "".join(
        f"<service><serviceType>{IP}</serviceType><controlURL>/{n}</controlURL></service>" for n in range(1000)
    )
    assert len(igd.decode_description(f"<root>{services}</root>".encode(), LOCATION).mapping) == igd.MAX_SERVICES


def test_a_routers_name_cannot_play_with_a_terminal() -> None:
    text = description("/ctl").decode().replace(">x<", ">\x1b[31m&#27;[2Jevil&#x202e;&lt;b&gt;" + "x" * 200 + "<")
    device = igd.decode_description(text.encode(), LOCATION)
    assert device.model.isprintable()
    assert "<b>" in device.model
    assert len(device.model) <= 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a &amp; b", "a & b"), ("&lt;&gt;&quot;&apos;", "<>\"'"), ("&#65;&#x42;", "AB"), ("&nbsp;", "&nbsp;"),
        ("AT&T", "AT&T"), ("&#0;&#xd800;&#xdfff;&#1114112;", ""),
        ("&#xd7ff;&#xe000;&#1;&#x10ffff;", "\ud7ff\ue000\x01\U0010ffff"), ("&amp;lt;", "&lt;"),
    ],
)
def test_entities_are_replaced_once_and_unknown_ones_left(text: str, expected: str) -> None:
    assert dict(xmlscan.leaves(f"<a>{text}</a>".encode()))["/a"] == expected


def test_what_stands_in_a_comment_is_not_there() -> None:
    assert [tag for tag, _ in xmlscan.leaves(b"<a><!-- <b> --><c/><!-- <d> -- > <e></a>")] == ["a", "c", "/c"]


@pytest.mark.parametrize(
    "piece",
    [
        b"<!--", b"<", b"<a", b"<a ", b"</", b"&#", b"<a:", b"<!", b"a:", b"<service>", b"\n",
        f"<service><serviceType>{IP}</serviceType><controlURL>/?</controlURL></service>".encode(),
    ],
)
def test_a_large_document_of_any_one_piece_takes_no_time(piece: bytes) -> None:
    body = b"".join(piece.replace(b"?", b"%d" % n) for n in range(MAX_BODY // (len(piece) + 5)))
    started = time.process_time()
    with suppress(WireError):
        igd.decode_description(body, LOCATION)
    # A linear scan takes some milliseconds; a quadratic one of 128 kB takes minutes.
    assert time.process_time() - started < 5


# Actions


def test_a_request_to_map_a_port_is_what_routers_expect_to_the_byte() -> None:
    head, _, body = soap.add_port_mapping(CONTROL, MAPPING).partition(b"\r\n\r\n")
    assert body.decode() == (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f'<s:Body><u:AddPortMapping xmlns:u="{IP}"><NewRemoteHost></NewRemoteHost>'
        "<NewExternalPort>51820</NewExternalPort><NewProtocol>UDP</NewProtocol>"
        "<NewInternalPort>51820</NewInternalPort><NewInternalClient>192.168.1.5</NewInternalClient>"
        "<NewEnabled>1</NewEnabled>"
        "<NewPortMappingDescription>meshctl &lt;a&gt; &amp; b</NewPortMappingDescription>"
        "<NewLeaseDuration>7200</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>\r\n"
    )
    assert head.decode().split("\r\n") == [
        "POST /ctl/IPConn HTTP/1.1", "Host: 192.168.1.1:5000", "Connection: close",
        'Content-Type: text/xml; charset="utf-8"', f'SOAPAction: "{IP}#AddPortMapping"', f"Content-Length: {len(body)}",
    ]


@pytest.mark.parametrize(
    ("request_bytes", "action", "arguments"),
    [
        (soap.get_external_address(CONTROL), "GetExternalIPAddress", ""),
        (
            soap.delete_port_mapping(CONTROL, 51820), "DeletePortMapping",
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>51820</NewExternalPort><NewProtocol>UDP</NewProtocol>",
        ),
        (
            soap.get_port_mapping(CONTROL, 51820), "GetSpecificPortMappingEntry",
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>51820</NewExternalPort><NewProtocol>UDP</NewProtocol>",
        ),
        (
            soap.add_pinhole(FIREWALL, "2001:db8::5", 51820, 3600), "AddPinhole",
            "<RemoteHost></RemoteHost><RemotePort>0</RemotePort><InternalClient>2001:db8::5</InternalClient>"
            "<InternalPort>51820</InternalPort><Protocol>17</Protocol><LeaseTime>3600</LeaseTime>",
        ),
        (soap.delete_pinhole(FIREWALL, 7), "DeletePinhole", "<UniqueID>7</UniqueID>"),
    ],
)
def test_each_action_has_its_arguments_in_order(request_bytes: bytes, action: str, arguments: str) -> None:
    text = request_bytes.decode()
    assert f'#{action}"\r\n' in text
    assert f">{arguments}</u:{action}>" in text


def test_add_any_port_mapping_has_the_arguments_of_add_port_mapping() -> None:
    one, other = soap.add_port_mapping(CONTROL, MAPPING), soap.add_any_port_mapping(CONTROL, MAPPING)
    body = one.partition(b"\r\n\r\n")[2].replace(b"AddPortMapping", b"AddAnyPortMapping")
    assert other.partition(b"\r\n\r\n")[2] == body


@pytest.mark.parametrize(
    "mapping",
    [
        soap.PortMapping(0, "192.168.1.5", 1, 0, ""), soap.PortMapping(65536, "192.168.1.5", 1, 0, ""),
        soap.PortMapping(1, "192.168.1.5", 0, 0, ""), soap.PortMapping(1, "2001:db8::5", 1, 0, ""),
        soap.PortMapping(1, "host", 1, 0, ""), soap.PortMapping(1, "192.168.1.5", 1, -1, ""),
        soap.PortMapping(1, "192.168.1.5", 1, 2**32, ""),
    ],
)
def test_a_mapping_that_would_open_too_much_is_refused(mapping: soap.PortMapping) -> None:
    with pytest.raises(WireError):
        soap.add_port_mapping(CONTROL, mapping)


@pytest.mark.parametrize("lease_s", [0, 2**32 - 1])
def test_a_lease_has_32_bits(lease_s: int) -> None:
    request = soap.add_port_mapping(CONTROL, soap.PortMapping(1, "192.168.1.5", 65535, lease_s, ""))
    assert f"<NewLeaseDuration>{lease_s}</NewLeaseDuration>".encode() in request


@pytest.mark.parametrize(
    ("host", "port", "lease_s"),
    [("192.168.1.5", 1, 60), ("2001:db8::5", 0, 60), ("2001:db8::5", 1, 0), ("2001:db8::5", 1, soap.MAX_PINHOLE_S + 1)],
)
def test_a_pinhole_that_would_open_too_much_is_refused(host: str, port: int, lease_s: int) -> None:
    with pytest.raises(WireError):
        soap.add_pinhole(FIREWALL, host, port, lease_s)


@pytest.mark.parametrize("number", [-1, 0x10000])
def test_a_pinhole_has_a_number_of_16_bits(number: int) -> None:
    assert b"<UniqueID>0<" in soap.delete_pinhole(FIREWALL, 0)
    with pytest.raises(WireError):
        soap.delete_pinhole(FIREWALL, number)


@pytest.mark.parametrize(
    ("decode", "arguments"),
    [
        (soap.decode_external_address, ""),
        (soap.decode_external_address, "<NewExternalIPAddress>router</NewExternalIPAddress>"),
        (soap.decode_reserved_port, ""),
        (soap.decode_reserved_port, "<NewReservedPort>0</NewReservedPort>"),
        (soap.decode_reserved_port, "<NewReservedPort>65536</NewReservedPort>"),
        (soap.decode_reserved_port, "<NewReservedPort>1e3</NewReservedPort>"),
        (soap.decode_reserved_port, "<NewReservedPort>٣</NewReservedPort>"),
        (soap.decode_reserved_port, "<NewReservedPort>" + "9" * 5000 + "</NewReservedPort>"),
        (soap.decode_pinhole, "<UniqueID>-1</UniqueID>"), (soap.decode_port_mapping, ""),
        (soap.decode_port_mapping, "<NewInternalClient>1.2.3.4</NewInternalClient>"),
        (soap.decode_port_mapping, "<NewInternalClient>x</NewInternalClient><NewInternalPort>1</NewInternalPort>"),
    ],
)
def test_an_answer_that_says_nothing_of_use_is_refused(decode: object, arguments: str) -> None:
    assert decode in DECODERS
    with pytest.raises(WireError):
        decode(ok(arguments))  # type: ignore[operator]


@pytest.mark.parametrize("body", [b"", b"<html><body>Log in</body></html>", b"<Envelope><Body></Body></Envelope>"])
def test_a_page_that_is_no_answer_does_not_count_as_done(body: bytes) -> None:
    with pytest.raises(WireError):
        soap.decode_done(HttpResponse(200, body))


def test_words_of_a_router_cannot_play_with_a_terminal() -> None:
    evil = "\x1b[31m\x9b2J\u202e" + "x" * 500
    fault = soap.decode_done(ok(f"<errorCode>501</errorCode><errorDescription>{evil}</errorDescription>"))
    assert isinstance(fault, Fault)
    answer = ssdp.decode_reply(reply("LOCATION: http://192.168.1.1/", "SERVER: \x9b2J", "ST: \x85"), GATEWAY)
    assert (fault.description + answer.server + answer.target).isprintable()
    assert len(fault.description) <= 256


def test_an_error_without_a_number_is_a_refusal_that_may_pass() -> None:
    assert soap.decode_done(ok("", status=503)) == Fault(0, "HTTP status 503")
    fault = soap.decode_done(ok("<errorCode>-911</errorCode><errorDescription>?</errorDescription>"))
    assert fault == Fault(0, "?")
    assert fault.remedy == Remedy.LATER


def test_every_refusal_has_a_meaning_and_an_unknown_one_may_pass() -> None:
    for code, (meaning, remedy) in MAPPING_ERRORS.items():
        assert (Fault(code, "").meaning, Fault(code, "").remedy) == (meaning, remedy)
    for code, (meaning, remedy) in PINHOLE_ERRORS.items():
        assert (Fault(code, "").pinhole_meaning, Fault(code, "").pinhole_remedy) == (meaning, remedy)
    assert (Fault(799, "").remedy, Fault(799, "").meaning) == (Remedy.LATER, "the router refused with code 799")
    common = Fault(606, "")
    assert (common.pinhole_remedy, common.pinhole_meaning) == (common.remedy, common.meaning)


# Noise

RECORDED = {
    suffix: [path.read_bytes() for path in sorted(ROUTERS.glob(f"*{suffix}"))]
    for suffix in (".ssdp", ".xml", ".http", ".notify")
}


@settings(max_examples=examples(30))
@given(damaged(st.sampled_from(RECORDED[".ssdp"])) | st.binary(max_size=200))
def test_noise_in_place_of_a_reply_raises_nothing_but_wire_errors(raw: bytes) -> None:
    with suppress(WireError):
        assert ssdp.decode_reply(raw, GATEWAY).location.host == GATEWAY


@settings(max_examples=examples(30))
@given(damaged(st.sampled_from(RECORDED[".notify"])) | st.binary(max_size=200))
def test_noise_in_place_of_an_announcement_raises_nothing_but_wire_errors(raw: bytes) -> None:
    with suppress(WireError):
        assert ssdp.decode_announcement(raw).target.isprintable()


@settings(max_examples=examples(30))
@given(damaged(st.sampled_from(RECORDED[".xml"])) | st.binary(max_size=200))
def test_noise_in_place_of_a_description_raises_nothing_but_wire_errors(raw: bytes) -> None:
    with suppress(WireError):
        device = igd.decode_description(raw, LOCATION)
        assert {url.host for service in device.mapping + device.firewall for url in service.controls} == {GATEWAY}


@settings(max_examples=examples(30))
@given(damaged(st.sampled_from(RECORDED[".http"])) | st.binary(max_size=200))
def test_noise_in_place_of_an_answer_raises_nothing_but_wire_errors(raw: bytes) -> None:
    for decode in DECODERS:
        with suppress(WireError):
            decode(decode_response(raw))
