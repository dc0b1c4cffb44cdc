"""As much of HTTP (RFC 9110, RFC 9112) as routers speak, over UDP (SSDP) and over TCP (UPnP): heads, URLs, one request
and one response a connection.

The URLs are hostile: who answers a multicast could send us anywhere. One is used only if its host is, as a literal, the
very address that answered, and a redirect is never followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshctl.core.wire.address import canonical_ip
from meshctl.core.wire.error import WireError

# Descriptions of real routers have up to some 40 kB.
MAX_BODY = 128 * 1024
MAX_HEAD = 8 * 1024
MAX_HEADERS = 64
_MAX_CHUNK_LINE = 256
MAX_URL = 512

# Headers of which there cannot be two.
_SINGLE = {"location", "content-length", "transfer-encoding"}
_STATUS = re.compile(r"HTTP/1\.[01] ([1-5][0-9][0-9])(?: .*)?")
_NOTIFY = re.compile(r"NOTIFY \* HTTP/1\.[01]")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_URL = re.compile(r"http://([0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?(/[!-~]*)?", re.IGNORECASE)
_PATH = re.compile(r"[!-~]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,6})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True)
class Url:
    """A place on the router. `host` is an address in canonical text, `path` begins with a slash and has the query."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as in a URL: IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"http://{self.authority}{self.path}"

    def join(self, reference: str) -> Url:
        """The place that a link in the document at this one means (RFC 3986 section 5.2). Raises WireError unless it is
        on the same host."""
        reference = reference.strip()
        if reference[:7].lower() == "http://":
            return parse_url(reference, self.host)
        if not reference or not _PATH.fullmatch(reference) or reference.startswith("//") or _SCHEME.match(reference):
            raise WireError("a link that leads nowhere on this host")
        if len(reference) > MAX_URL:
            raise WireError("a link is too long")
        if reference.startswith("/"):
            return Url(self.host, self.port, reference)
        folder = self.path.partition("?")[0].rpartition("/")[0]
        return Url(self.host, self.port, f"{folder}/{reference.removeprefix('./')}")


@dataclass(frozen=True)
class HttpResponse:
    """A whole response: status and body."""

    status: int
    body: bytes


def parse_url(text: str, host: str) -> Url:
    """A URL that must be http on `host`, a canonical address. Raises WireError.

    A link-local IPv6 address is none that it could be, for it means nothing without the interface.
    """
    text = text.strip()
    match = _URL.fullmatch(text) if len(text) <= MAX_URL else None
    if match is None:
        raise WireError("not an http URL of an address")
    if canonical_ip(match[1].strip("[]")) != host:
        raise WireError("the URL is on another host than the one that answered")
    port = int(match[2] or 80)
    if not 0 < port <= 0xFFFF:
        raise WireError("the URL has an impossible port")
    return Url(host, port, (match[3] or "/").partition("#")[0])


def host_of(text: str) -> str:
    """The host of a URL, canonical. Raises WireError unless it is http on an address."""
    match = _URL.fullmatch(text.strip()) if len(text) <= MAX_URL else None
    if match is None:
        raise WireError("not an http URL of an address")
    return canonical_ip(match[1].strip("[]"))


def parse_head(raw: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, their names in small letters, of a status line and what follows up to an empty line.

    Takes the bare line feeds and the missing last line of some routers; callers bound the length. Raises WireError,
    also for control characters, and when a header on which safety rests repeats with another value: who sends these
    means to be read in two ways.
    """
    first, lines = _lines(raw)
    status = _STATUS.fullmatch(first)
    if status is None:
        raise WireError("not an HTTP response")
    return int(status[1]), _headers(lines)


def parse_notify(raw: bytes) -> dict[str, str]:
    """The headers of a NOTIFY, under the same rules. Raises WireError for anything else."""
    first, lines = _lines(raw)
    if not _NOTIFY.fullmatch(first):
        raise WireError("not a NOTIFY")
    return _headers(lines)


def printable(text: str, limit: int) -> str:
    """A stranger's words as they may stand on a person's screen: nothing that steers a terminal, and not too many."""
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()


def encode_request(method: str, url: Url, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """One request after which the connection ends, as one piece: some routers read a single segment."""
    lines = [f"{method} {url.path} HTTP/1.1", f"Host: {url.authority}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def decode_response(raw: bytes) -> HttpResponse:
    """All that came until the connection ended. Raises WireError, also for a redirect and for a body cut short."""
    head, body = _split(raw)
    status, headers = parse_head(head)
    if status == 100:
        head, body = _split(body)
        status, headers = parse_head(head)
    if 300 <= status < 400:
        raise WireError("a redirect, which we do not follow")
    length = _length(headers)
    if _is_chunked(headers):
        body = _unchunk(body)
    elif length is not None:
        if len(body) < length:
            raise WireError("the response is cut short")
        body = body[:length]
    if len(body) > MAX_BODY:
        raise WireError("the body is too long")
    return HttpResponse(status, body)


def until_whole(received: bytearray) -> Iterator[None]:
    """Steps of which each wants more of a response in `received`, and which end once all of it is there: some routers
    leave the connection open (RFC 9112 section 6.3). They do not end where only the connection's end is the response's.
    Raises WireError for what `decode_response` would not take. What came is looked at once, in however small pieces."""
    at, status = 0, 100
    headers: dict[str, str] = {}
    for _ in range(2):
        if status == 100:
            while (end := _head_end(received, at)) is None:
                if len(received) - at >= MAX_HEAD:
                    raise WireError("a response without an end of its head")
                yield
            status, headers = parse_head(bytes(received[at : end[0]]))
            at = end[1]
    length = _length(headers)
    if _is_chunked(headers):
        yield from _until_last_chunk(received, at)
    else:
        while length is None or len(received) - at < length:
            yield


def _until_last_chunk(received: bytearray, at: int) -> Iterator[None]:
    while True:
        while received.find(b"\n", at, at + _MAX_CHUNK_LINE) < 0:
            if len(received) - at >= _MAX_CHUNK_LINE:
                raise WireError("a malformed chunk")
            yield
        head = _CHUNK.match(received, at)
        if head is None:
            raise WireError("a malformed chunk")
        size = int(head[1], 16)
        if size == 0:
            return
        at = head.end() + size
        while len(received) < at + 2:  # the end of its line, and at least a byte of the next one
            yield
        at += 2 if received[at : at + 2] == b"\r\n" else 1


def _length(headers: Mapping[str, str]) -> int | None:
    declared = headers.get("content-length")
    if declared is None or _is_chunked(headers):
        return None
    if not (declared.isascii() and declared.isdigit() and len(declared) < 10):
        raise WireError("a malformed Content-Length")
    return int(declared)


def _is_chunked(headers: Mapping[str, str]) -> bool:
    return headers.get("transfer-encoding", "identity").lower() == "chunked"


def _lines(raw: bytes) -> tuple[str, list[str]]:
    """The first line, and the others."""
    first, *lines = raw.decode("latin-1").replace("\r\n", "\n").split("\n")
    return first.rstrip(), lines


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        name, value = name.rstrip().lower(), value.strip()
        if not colon or not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise WireError("a malformed header")
        if headers.setdefault(name, value) != value and name in _SINGLE:
            raise WireError("a header that contradicts itself")
        if len(headers) > MAX_HEADERS:
            raise WireError("too many headers")
    return headers


def _split(raw: bytes) -> tuple[bytes, bytes]:
    end = _head_end(raw, 0)
    if end is None:
        raise WireError("a response without an end of its head")
    return raw[: end[0]], raw[end[1] :]


def _head_end(raw: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Where the head that begins there ends, at the first empty line in either spelling, and where its body begins."""
    marks = ((raw.find(mark, at, at + MAX_HEAD), len(mark)) for mark in (b"\r\n\r\n", b"\n\n"))
    return min(((found, found + size) for found, size in marks if found >= 0), default=None)


def _unchunk(raw: bytes) -> bytes:
    """RFC 9112 section 7.1; the trailer is of no interest."""
    pieces: list[bytes] = []
    at = 0
    while True:
        head = _CHUNK.match(raw, at)
        if head is None:
            raise WireError("a malformed chunk")
        size = int(head[1], 16)
        if size == 0:
            return b"".join(pieces)
        at = head.end() + size
        if at > len(raw):
            raise WireError("the response is cut short")
        pieces.append(raw[head.end() : at])
        at += 2 if raw[at : at + 2] == b"\r\n" else 1
