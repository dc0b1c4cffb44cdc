"""What `lab status` shows."""

from __future__ import annotations

from typing import Any

from meshctl.lab import network, procs, state


def status(name: str) -> dict[str, Any]:
    """One lab, as schemas/lab.schema.json has it. Raises LabError when there is none."""
    now = state.load(name)
    running = {n for n, (pid, start) in now.leaders.items() if start and procs.start_time(pid) == start}
    there = network.existing(name)
    return {
        "name": name,
        "ssh_over_mesh": now.ssh_over_mesh,
        "hosts": {
            h.name: {
                "running": h.name in running,
                "address": h.address,
                "router": h.router or None,
                "nat": now.kinds.get(h.router, "none"),
                "link": "down" if h.name in now.unplugged else "up",
                "client": h.client,
            }
            for h in now.blueprint.hosts
        },
        "routers": {
            r.name: {"running": r.name in there, "address": r.wan, "nat": now.kinds.get(r.name, r.nat), "upnp": r.upnp}
            for r in now.blueprint.routers
        },
        "lans": {lan: {"running": lan in there} for lan in now.blueprint.lans},
    }
