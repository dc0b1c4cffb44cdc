"""Routers' XML, read as what it is: tags in text. Not by an XML parser, for two reasons.

Real routers send what no XML parser takes: tags that do not match, prefixes that were never declared, bytes of another
encoding. And an XML parser does more than is safe here: it expands entities. A document that declares a type or an
entity is refused; five entities and character references are all that is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshctl.core.wire.error import WireError

MAX_ELEMENTS = 20_000
_TAG = re.compile(r"<(/?)(?:[\w.-]{1,64}:)?([A-Za-z_][\w.-]{0,63})(?:[\s/][^<>]*)?>")
_ENTITY = re.compile(r"&(#x[0-9A-Fa-f]{1,6}|#[0-9]{1,7}|lt|gt|amp|quot|apos);")
_FORBIDDEN = re.compile(r"<!\s*(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_LAST_CHARACTER = 0x10FFFF


def decode_text(raw: bytes) -> str:
    """The document's text without its byte order mark. What is not UTF-8 is read as ISO 8859-1, whatever it declares:
    all that is looked for is ASCII."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return raw.decode("utf-16")
        except UnicodeDecodeError:
            raise WireError("the document is in no encoding that routers use") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def leaves(raw: bytes) -> Iterator[tuple[str, str]]:
    """Each tag in order, without its prefix and in small letters: `("name", "")` where an element begins and
    `("/name", text)` where one ends.

    The text is what stands between an end tag and the tag before it, stripped: an element's own if it has none inside.
    Raises WireError.
    """
    text = _without_comments(decode_text(raw))
    if _FORBIDDEN.search(text):
        raise WireError("the document declares a type or an entity")
    last = 0
    for count, tag in enumerate(_TAG.finditer(text)):
        if count >= MAX_ELEMENTS:
            raise WireError("the document has too many elements")
        name = tag[2].lower()
        if tag[1]:
            yield f"/{name}", _plain(text[last : tag.start()])
        else:
            yield name, ""
            if tag[0].endswith("/>"):
                yield f"/{name}", ""
        last = tag.end()


def escape(text: str) -> str:
    """Text for an element's content."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str) -> str:
    return _ENTITY.sub(_replace, text).strip()


def _replace(match: re.Match[str]) -> str:
    name = match[1]
    if not name.startswith("#"):
        return _NAMED[name]
    code = int(name[2:], 16) if name[1] == "x" else int(name[1:])
    return chr(code) if 0 < code <= _LAST_CHARACTER and not 0xD800 <= code <= 0xDFFF else ""


def _without_comments(text: str) -> str:
    """The text less its comments. Not by a regular expression: to that, comments without an end cost their square."""
    if "<!--" not in text:
        return text
    pieces = text.split("<!--")
    return pieces[0] + "".join(piece.partition("-->")[2] for piece in pieces[1:])
