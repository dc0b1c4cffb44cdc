"""Whether the peers of a node that has just taken its next key have gone with it (docs/keys.md).

The node itself cannot tell: a peer that gives its prefixes to the old key still answers its handshakes.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from meshctl.deploy.host import Host, peers_by_key
from meshctl.errors import RemoteError
from meshctl.model.places import SEARCH_PATH

# Who follows looks many times a second; a host that is busy takes longer.
PATIENCE_S, LOOK_S = 5.0, 0.2
_READ = f"PATH={SEARCH_PATH}; export PATH; wg show all latest-handshakes && echo && wg show all allowed-ips"


def stayed_behind(host: Host, switched: Collection[str]) -> dict[str, str]:
    """Which of these nodes, in whose place the host's document has their new keys, the host hears by that key and gives
    its prefixes to another one; each with that in words. Never raises: who cannot be asked has stayed behind."""
    wanted = {at: peer for at, peer in peers_by_key(host.doc).items() if peer.name in switched}
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            heard, owners = _read(host)
        except (RemoteError, ValueError) as error:
            why = error.message if isinstance(error, RemoteError) else "its WireGuard does not say"
            return {p.name: f"{host.name} cannot be asked whether it has followed: {why}" for p in wanted.values()}
        behind = {}
        for (interface, key), peer in wanted.items():
            at = {owners.get((interface, prefix), "") for prefix in peer.allowed_ips} - {key}
            if at and heard.get((interface, key), 0) > max(heard.get((interface, other), 0) for other in at):
                behind[peer.name] = f"{host.name} ({interface}) hears it by its next key, and has not followed"
        if not behind or time.monotonic() > until:
            return behind
        time.sleep(LOOK_S)


def _read(host: Host) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], str]]:
    """By interface: when each key was heard, in Unix seconds, and the key that each prefix belongs to. Raises
    RemoteError and ValueError."""
    if host.transport is None:
        raise RuntimeError("the connection comes first")
    handshakes, _, allowed_ips = host.transport.run(_READ).text().partition("\n\n")
    rows = [line.split("\t") for line in handshakes.splitlines()]
    heard = {(interface, key): int(when) for interface, key, when in rows}
    rows = [line.split("\t") for line in allowed_ips.splitlines()]
    return heard, {(interface, prefix): key for interface, key, all_of_it in rows for prefix in all_of_it.split()}
