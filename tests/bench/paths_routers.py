"""Which way a pair's packets go, told by what the routers of its two ends count, whatever it is that joins the pair."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from paths_lab import PathsLab, now
from paths_pairs import Pair
from paths_way import DIRECT, NONE, RELAYED

# For so long packets are counted.
COUNT_S = 3.0
# Of a pair's packets, what goes a way for the pair to be said to go it.
SHARE = 0.5
COUNT = """
nft 'table inet seen
  delete table inet seen
  table inet seen {{
    counter direct {{ }}
    counter relayed {{ }}
    chain arrived {{
      type filter hook prerouting priority -350;
      iifname wan meta l4proto udp ip saddr {other} counter name direct
      iifname wan meta l4proto udp ip saddr {{ {anchors} }} counter name relayed
    }}
  }}'
"""
READ = "nft --json list counters table inet seen"


def count_ways(here: PathsLab, pairs: Sequence[Pair]) -> None:
    """Let each host's own router count what comes from the pair's other one, and from anchors."""
    anchors = ", ".join(ip for ip in here.anchors if ":" not in ip)
    for one, other in pairs:
        for host, far in ((one, other), (other, one)):
            here.sh(f"{host}-router", COUNT.format(other=here.wan(f"{far}-router"), anchors=anchors))


def ways_now(here: PathsLab, pairs: Sequence[Pair], every_s: float) -> dict[Pair, str]:
    """How each pair's packets go now (`count_ways` came before); both ends ask each other every so many seconds."""
    hosts = [host for pair in pairs for host in pair]
    with ThreadPoolExecutor(len(hosts)) as pool:
        before, begun = list(pool.map(lambda host: arrived(here, host), hosts)), now()
        time.sleep(COUNT_S)
        after, seconds = list(pool.map(lambda host: arrived(here, host), hosts)), now() - begun
    # Of each end there come questions and answers.
    least = SHARE * 2 * seconds / every_s
    came = [{way: late[way] - early[way] for way in early} for early, late in zip(before, after, strict=True)]
    ends = dict(zip(hosts, came, strict=True))
    return {pair: way_of([ends[host] for host in pair], least) for pair in pairs}


def arrived(here: PathsLab, host: str) -> dict[str, int]:
    """What the host's router has counted so far."""
    return packets(here.sh(f"{host}-router", READ))


def packets(listed: str) -> dict[str, int]:
    """Packets by counter, out of nft's JSON."""
    items = json.loads(listed)["nftables"]
    return {item["counter"]["name"]: item["counter"]["packets"] for item in items if "counter" in item}


def way_of(ends: Sequence[Mapping[str, int]], least: float) -> str:
    """How a pair goes: directly if at both ends so many packets come from the other one, and by an anchor if so many
    come from anchors. Packets that try for a direct path do not make a relayed pair direct."""
    kinds = {RELAYED if end[RELAYED] >= least else DIRECT if end[DIRECT] >= least else NONE for end in ends}
    return next(kind for kind in (NONE, RELAYED, DIRECT) if kind in kinds)
