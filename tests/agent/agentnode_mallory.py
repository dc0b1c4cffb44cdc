"""Who sees packets pass by, and sends what it likes from whatever address: one who owns a network in between."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

from meshctl.lab.netns import within

_ETH_P_IP, _ETH_P_ALL, _PACKET_OUTGOING, _UDP = 0x0800, 3, 4, 17
_ETHERNET, _IP, _UDP_HEADER = 14, 20, 8  # bytes; nobody here uses IP options
_COOKIE = bytes.fromhex("2112a442")
_STEP_S = 0.1


class Tap:
    """The UDP packets of IPv4 that leave through any device of a network namespace, from IP on, while the block runs.
    With `incoming`, those that arrive, of a device without Ethernet such as a tunnel's."""

    def __init__(self, space: Path, device: str = "", *, incoming: bool = False) -> None:
        self.packets: list[bytes] = []
        self._kind, self._skip = (0, 0) if incoming else (_PACKET_OUTGOING, _ETHERNET)
        protocol = _ETH_P_IP if incoming else _ETH_P_ALL  # what leaves is shown to those who see everything
        self._socket = within(space, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol)))
        if device:
            self._socket.bind((device, protocol))
        self._socket.settimeout(_STEP_S)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Tap:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                frame, where = self._socket.recvfrom(65_536)
            except TimeoutError:
                continue
            packet = frame[self._skip :]
            if where[1:3] == (_ETH_P_IP, self._kind) and packet[9] == _UDP:
                self.packets.append(packet)


def payload(packet: bytes) -> bytes:
    """Of a UDP packet."""
    return packet[_IP + _UDP_HEADER :]


def is_stun(packet: bytes) -> bool:
    """Whether it carries a message of STUN."""
    return payload(packet)[4:8] == _COOKIE


def ports(packet: bytes) -> tuple[int, int]:
    """Source and destination."""
    source, destination = struct.unpack_from("!HH", packet, _IP)
    return source, destination


def from_elsewhere(packet: bytes, ip: str) -> bytes:
    """The same with another source. Without a checksum, which IPv4 allows."""
    changed = bytearray(packet)
    changed[12:16] = socket.inet_aton(ip)
    changed[_IP + 6 : _IP + 8] = bytes(2)
    return bytes(changed)


def forged(packet: bytes, dice: random.Random) -> bytes:
    """The same with a byte of its message changed, behind STUN's header."""
    changed = bytearray(packet)
    changed[_IP + _UDP_HEADER + dice.randrange(20, len(payload(packet)))] ^= 1 << dice.randrange(8)
    changed[_IP + 6 : _IP + 8] = bytes(2)
    return bytes(changed)


def send(space: Path, packets: Iterable[bytes]) -> None:
    """Send IP packets as they are."""
    with within(space, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as sock:
        for packet in packets:
            sock.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
