"""Telling systemd that the service runs (sd_notify(3)), so that who starts the unit hears whether it did."""

from __future__ import annotations

import os
import socket

VARIABLE = "NOTIFY_SOCKET"


def ready() -> None:
    """The service runs; nothing is done where nobody waits for that. Raises OSError."""
    address = os.environ.pop(VARIABLE, "")  # the programs that the agent runs have nothing to tell
    if not address:
        return
    if address.startswith("@"):  # in the abstract name space
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.sendall(b"READY=1")
