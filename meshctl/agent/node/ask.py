"""Asking the agent of this host, by its control socket: one line of JSON each way.

Runs by itself too (`python3 - SOCKET REQUEST`), so that it can be sent to a host with any version of the agent.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

SOCKET = Path("/run/meshctl/agent.sock")
PATIENCE_S = 10.0
# More than the answer about a thousand peers.
MAX_BYTES = 16 << 20
EXIT_NO_AGENT = 69  # EX_UNAVAILABLE of sysexits(3)


def ask(path: Path, request: dict[str, Any], patience_s: float = PATIENCE_S) -> Any:
    """The answer. Raises OSError when no agent answers, ValueError when what it says is no JSON."""
    ends_at = time.monotonic() + patience_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience_s)
        sock.connect(str(path))
        sock.sendall(json.dumps(request).encode() + b"\n")
        said = bytearray()
        while not said.endswith(b"\n"):
            sock.settimeout(max(0.001, ends_at - time.monotonic()))
            piece = sock.recv(1 << 16)
            if not piece or len(said) > MAX_BYTES:
                raise ValueError("the answer was cut short")
            said += piece
    return json.loads(bytes(said))


def answers(path: Path) -> bool:
    """Whether an agent hears there; at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except BlockingIOError:  # so many ask that nobody else can for now
            return True
        except OSError:
            return False
        return True


def main() -> int:
    """Print the answer to the request in the arguments; the exit status."""
    try:
        print(json.dumps(ask(Path(sys.argv[1]), json.loads(sys.argv[2]))))
    except (OSError, ValueError) as error:
        print(getattr(error, "strerror", None) or error, file=sys.stderr)
        return EXIT_NO_AGENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
