"""Whether an SSH connection still lives, and its end. The other end's SSH answers by itself, however long our command
takes."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import paramiko

# As ssh_config's ServerAliveCountMax has it.
UNANSWERED = 3


class Heard:
    """A connected socket or channel that knows how often SSH was asked since anything came, and `why` it was given up
    on."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.silent, self.why = 0, ""

    def recv(self, size: int) -> bytes:
        """As a socket's."""
        data: bytes = self._sock.recv(size)
        self.silent = 0
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def watch(connection: paramiko.Transport, heard: Heard, every_s: float) -> None:
    """Ask again and again for as long as the connection is open, and close it when nothing has come of so many in a
    row: whoever waits for something on it, also to be able to send, hears that it is lost."""
    threading.Thread(target=_watch, args=(connection, heard, every_s), daemon=True).start()


def close(connection: Any) -> None:
    """A connection, or a channel or socket. Of one that has broken the other end does not hear that. Never raises."""
    import paramiko

    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        connection.close()


def _watch(connection: paramiko.Transport, heard: Heard, every_s: float) -> None:
    while connection.is_active():
        if heard.silent == UNANSWERED:
            heard.why = f"its SSH has not answered for {UNANSWERED * every_s:g} s"
            close(connection)
            return
        heard.silent += 1
        # Where nothing more can be sent, who asks waits, too.
        threading.Thread(target=_ask, args=(connection,), daemon=True).start()
        connection.join(every_s)  # it is a thread, which ends with the connection


def _ask(connection: paramiko.Transport) -> None:
    """Nobody knows this request, which is an answer. One that paramiko sends by itself wants none."""
    import paramiko

    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        connection.global_request("keepalive@openssh.com")
