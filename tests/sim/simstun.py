"""A STUN server that is no anchor, has no key, and may say what is not so."""

from __future__ import annotations

import random

from simattack import VICTIM_IP
from simconfig import STUN_SERVER as SERVER
from simnet import Host, Packet, Segment

from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.error import WireError

# What it tells who asks where he is seen: the truth, a victim's address, one that leads nowhere, another each time.
MANNERS = ("honest", "victim", "private", "fickle")


class StunServer(Host):
    """It answers whoever asks, in the manner that is its own."""

    def __init__(self, internet: Segment, manner: str, dice: random.Random) -> None:
        super().__init__()
        self._manner, self._dice = manner, dice
        self.join(internet, SERVER[0])
        self.bind(SERVER[1], self._asked)

    def _asked(self, packet: Packet) -> None:
        try:
            message = stun.decode(packet.data).message
        except WireError:
            return
        if message.message_class is stun.Class.REQUEST:
            answer = stun.encode(stun.success_response(message, self._says(packet)))
            self.send(packet.destination, packet.source, answer)

    def _says(self, packet: Packet) -> TransportAddress:
        ip, port = {
            "honest": packet.source, "victim": (VICTIM_IP, packet.source[1]), "private": ("10.99.0.1", 51820),
            "fickle": (f"84.77.{self._dice.randrange(256)}.1", self._dice.randrange(1024, 65536)),
        }[self._manner]  # fmt: skip
        return TransportAddress(ip, port)
