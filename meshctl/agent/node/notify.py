"""Telling systemd that the service runs (sd_notify(3)), so that who starts the unit hears whether it did, and that it
still does, so that one that hangs is started anew (`WatchdogSec=` of systemd.service(5))."""

from __future__ import annotations

import os
import socket

from meshctl.agent.node.handler import Plain
from meshctl.core.agent.events import Event

# Systemd may miss two words in a row. With the unit's minute that is one in 20 s, the least that the agent wakes for.
_WORDS = 3
# What systemd did not take, because it is busy itself, is said again after this.
AGAIN_S = 1.0


class Systemd(Plain):
    """Who has started the service, from what the environment says. Nothing is done where nobody waits for that."""

    def __init__(self, now: float) -> None:
        # The programs that the agent runs have nothing to tell.
        address, span, pid = (os.environ.pop(v, "") for v in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
        self._address = "\0" + address[1:] if address.startswith("@") else address  # in the abstract name space
        asked = address and span.isdecimal() and int(span) and pid in ("", str(os.getpid()))
        self._every_s = int(span) / 1e6 / _WORDS if asked else None
        self._due = None if self._every_s is None else now + self._every_s

    def ready(self) -> None:
        """The service runs. Raises OSError."""
        if self._address:
            self._tell(b"READY=1", 0)

    def due(self) -> float | None:
        """See Handler."""
        return self._due

    def poll(self, now: float) -> list[Event]:
        """See Handler. A turn of the loop has one `now`, so one that never ends is not heard of for long. Raises
        OSError."""
        if self._every_s is None or self._due is None or now < self._due:
            return []
        self._due = now + AGAIN_S
        self._tell(b"WATCHDOG=1", socket.MSG_DONTWAIT)  # who waits for a systemd that hangs, hangs
        self._due = now + self._every_s
        return []

    def _tell(self, words: bytes, flags: int) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(self._address)
            sock.sendall(words, flags)
