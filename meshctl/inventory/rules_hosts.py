"""Rules about machines outside the mesh's own addressing: who is behind an SSH address, and STUN and TURN servers."""

from __future__ import annotations

import re

from meshctl.inventory.addresses import HIGHEST_PORT
from meshctl.inventory.findings import Findings
from meshctl.inventory.resolve import Resolved

_URI_PORT = re.compile(r":([0-9]+)(?:\?.*)?\Z")


def check_hosts(resolved: Resolved, findings: Findings) -> None:
    """No two nodes are one machine: the same address, port and login by the same way."""
    owners: dict[tuple[object, ...], str] = {}
    for name, draft in resolved.drafts.items():
        found = draft.settings.merged("ssh").get("host")
        if draft.client or found is None:
            continue
        ssh = resolved.mesh.nodes[name].ssh
        owner = owners.setdefault((ssh.host.lower(), ssh.port, ssh.user, ssh.jump, ssh.config), name)
        if owner != name:
            message = f"`{name}` and `{owner}` have the same SSH address, {ssh.host}: one machine for two nodes"
            findings.error("duplicate-host", found[1], message, "correct the host of one, or its port, user or jump")


def check_uris(resolved: Resolved, findings: Findings) -> None:
    """Ports of `stun:` and `turn:` URIs are ports; the rest of their form is the schema's."""
    for key, uris in (("stun", resolved.mesh.stun), ("turn", resolved.mesh.turn)):
        for index, uri in enumerate(uris):
            port = _URI_PORT.search(uri.partition(":")[2])
            if port and not 0 < int(port[1]) <= HIGHEST_PORT:
                message = f"`{uri}`: {port[1]} is not a port"
                findings.error("out-of-range", (key, index), message, f"ports are numbers from 1 to {HIGHEST_PORT}")
