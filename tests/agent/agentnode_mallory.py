"""Who sees packets pass by, and sends what it likes from whatever address: one who owns a network in between."""

from __future__ import annotations

import secrets
import socket
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

from meshctl.core.agent.probes import signed
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.lab.netns import within
from meshctl.lab.shell import run

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
    """The same with another source."""
    return _udp(packet[:12] + socket.inet_aton(ip) + packet[16:_IP], ports(packet), payload(packet))


def forged(packet: bytes) -> bytes:
    """A message of STUN that says the same, is another one, and is signed by one who does not have the key."""
    message = stun.decode(payload(packet)).message
    transaction = secrets.token_bytes(stun.TRANSACTION_BYTES)
    return _udp(packet[:_IP], ports(packet), signed(message._replace(transaction=transaction), secrets.token_bytes(32)))


def _udp(header: bytes, ports: tuple[int, int], data: bytes) -> bytes:
    """With this IP header; without a checksum of UDP, which IPv4 allows. The kernel mends IP's."""
    length = _UDP_HEADER + len(data)
    return header[:2] + (_IP + length).to_bytes(2, "big") + header[4:] + struct.pack("!HHHH", *ports, length, 0) + data


def send(space: Path, packets: Iterable[bytes]) -> None:
    """Send IP packets as they are."""
    with within(space, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as sock:
        for packet in packets:
            sock.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


class Impostor:
    """Has the address IP in a network namespace while the block runs, and does there all that a peer would, but for the
    keys: it answers every question of STUN with a success, and repeats what it is asked to repeat with a nonce."""

    def __init__(self, space: Path, ip: str, recorded: Iterable[bytes]) -> None:
        self.heard: list[stun.Class] = []
        self._ip, self._space, self._key = ip, space, secrets.token_bytes(32)
        said = (stun.decode(payload(packet)).message for packet in recorded if is_stun(packet))
        self._by_transaction = {message.transaction: message for message in said}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Impostor:
        run(["ip", "-n", self._space.name, "addr", "add", f"{self._ip}/32", "dev", "lo"])
        self._socket = within(self._space, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP))
        self._socket.bind((self._ip, 0))
        self._socket.settimeout(_STEP_S)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()
        run(["ip", "-n", self._space.name, "addr", "del", f"{self._ip}/32", "dev", "lo"])

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                packet = self._socket.recv(65_536)
            except TimeoutError:
                continue
            if is_stun(packet):
                self._hear(packet)

    def _hear(self, packet: bytes) -> None:
        message = stun.decode(payload(packet)).message
        self.heard.append(message.message_class)
        source, (from_port, to_port) = socket.inet_ntoa(packet[12:16]), ports(packet)
        if message.message_class is stun.Class.REQUEST:
            said = stun.success_response(message, TransportAddress(source, from_port))
        elif message.nonce and message.transaction in self._by_transaction:
            said = self._by_transaction[message.transaction]._replace(nonce=message.nonce)
        else:
            return
        answer = _udp(packet[:_IP], (to_port, from_port), signed(said, self._key))
        self._socket.sendto(answer[_IP:], (source, 0))
