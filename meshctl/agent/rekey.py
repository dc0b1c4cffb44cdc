"""A node's half of a rotation: it takes its next key."""

from __future__ import annotations

from pathlib import Path

from meshctl.agent import files, process
from meshctl.agent.failure import ApplyError, classify_output, redact
from meshctl.agent.probe import addresses, send_to
from meshctl.model.keys import is_key_text


def switch(index: int, key: Path, following: Path, interface: str) -> None:
    """The key file `following` takes the place of `key`, and the live interface its key. Raises ApplyError, OSError.

    Peers move what this node may send from to the new key when they see its first handshake: each gets a packet, so
    that this is now, and not when there is something to say. A run that was cut short between the two finds the file
    moved.
    """
    if following.exists():
        if not is_key_text(following.read_text().strip()):
            raise ApplyError("command", f"{following} does not hold a WireGuard private key; remove it", index)
        files.replace(following, key)
    if not Path("/sys/class/net", interface).exists():
        return  # it comes up with the key that its file has
    ran = process.run(["wg", "set", interface, "private-key", str(key)])
    if ran.status != 0:
        raise ApplyError(classify_output(ran.output), f"wg set {interface} private-key: {redact(ran.output)}", index)
    send_to(interface, [address for _, address in addresses(interface)])
