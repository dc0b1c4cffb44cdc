"""How much a packet grows on its way: WireGuard's headers, and those of TURN over TLS where UDP is blocked."""

from __future__ import annotations

# Bytes of headers. Whether a pair will meet over IPv6 or IPv4 (20 bytes less) is not known before it runs.
_IPV6 = 40  # RFC 8200 section 3
_UDP = 8  # RFC 768
_TCP = 20 + 12  # RFC 9293 section 3.1, with the timestamps that Linux sends (RFC 7323 section 3.2)
_TLS = 5 + 1 + 16  # RFC 8446 section 5.2: record header, content type, tag; TLS 1.2 with AES-GCM has 7 more (RFC 5288)
_CHANNEL_DATA = 4  # RFC 8656 section 12.4; over TCP filled up to a multiple of as much (section 12.5)
_WIREGUARD = 16 + 16  # a transport message's header and tag (WireGuard's paper, section 5.4.6)
# Around a packet between two ends, and by way of an anchor's relay: that changes addresses and ports, and adds nothing.
OVERHEAD = _IPV6 + _UDP + _WIREGUARD


def bytes_on_wire(mtu: int, *, tls: bool) -> int:
    """What the networks below must carry for a packet of `mtu` bytes in one piece, on the longer half if relayed."""
    if not tls:
        return mtu + OVERHEAD
    filled = -(mtu + _WIREGUARD) % _CHANNEL_DATA
    return mtu + _WIREGUARD + filled + _CHANNEL_DATA + _TLS + _TCP + _IPV6
