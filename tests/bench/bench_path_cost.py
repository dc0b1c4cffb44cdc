"""What agents and relays cost: of a tunnel's throughput, of packets a second, and of a host's memory and CPU.

Written up in docs/benchmarks.md, beside the aims.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import cost_agent
import cost_relay
import cost_tunnel
from cost_relay import BLIND, COTURN, OWN, ROUTED, TRACKED
from cost_tunnel import DIRECT, RELAYED, RUNNING, STOPPED

Row = dict[str, Any]


def measure() -> dict[str, list[Row]]:
    """`through`: ratios of bits a second; `packets`: of packets a second; `agent`: a row for each size and state."""
    alone, shared = (cost_relay.measure(own_core=own) for own in (True, False))
    through = cost_tunnel.measure()
    return {
        "through": [
            compared("a direct tunnel: agents running ÷ stopped", through, RUNNING, STOPPED, aim=0.99),
            compared("the same pair: an anchor's blind relay ÷ direct", through, RELAYED, DIRECT, aim=0.9),
        ],
        "packets": [*relayed("a core of its own", alone), *relayed("the sender's core", shared)],
        "agent": cost_agent.measure(),
    }


def relayed(where: str, packets: Mapping[str, list[float]]) -> list[Row]:
    """The blind relay beside all else. `where` is what the relaying host's kernel works on."""
    return [
        compared(f"{where}: blind relay ÷ plain routing", packets, BLIND, ROUTED, aim=0.85),
        compared(f"{where}: blind relay ÷ routing with connections tracked", packets, BLIND, TRACKED),
        compared(f"{where}: blind relay ÷ coturn", packets, BLIND, COTURN, aim=2.0),
        compared(f"{where}: the agent's own relay ÷ coturn", packets, OWN, COTURN),
    ]


def compared(
    what: str, found: Mapping[str, list[float]], one: str, other: str, *, aim: float | None = None
) -> Row:
    """Medians of both, and the median of the rounds' ratios, which is to be `aim` at least."""
    ratio = median(a / b for a, b in zip(found[one], found[other], strict=True))
    return {"what": what, "one": median(found[one]), "other": median(found[other]), "ratio": ratio, "aim": aim}
