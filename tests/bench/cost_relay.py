"""Packets a second of an anchor's blind relay, beside plain routing and coturn: three namespaces joined by cables.

The relay is what the agent's own code puts into the middle one. Packets are counted where they arrive, by a rule that
drops them there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import cost_turn
from measure import ROOT, run
from netns_line import End, line

from meshctl.agent.node.relayforward import Forwarder
from meshctl.agent.node.relays import Relays
from meshctl.agent.node.ruletable import SWEEP_AFTER_S
from meshctl.core.agent.address import Address
from meshctl.core.agent.events import InstallRelay, RemoveRelay
from meshctl.lab.netns import within

ONE, MIDDLE, OTHER = "bench-one", "bench-middle", "bench-other"
# Of the two ends, and the middle's in their networks.
SENDER, SENDER_HOP = "198.51.100.2", "198.51.100.1"
RECEIVER, RECEIVER_HOP = "203.0.113.2", "203.0.113.1"
TO_ONE, TO_OTHER = "to-one", "to-other"
PORT, RELAY_PORT, TURN_PORT = 51820, 40123, 3478
PAYLOAD_BYTES = 100
SECONDS = 1.0
# The sender has the first.
CORES = sorted(os.sched_getaffinity(0))
# The last packets may still be in the middle when the sender ends.
TAIL_S = 0.1
ROUNDS = 11
# How packets get from one end to the other.
ROUTED, TRACKED, BLIND, OWN, COTURN = "routed", "tracked", "blind", "own", "coturn"
COUNT = f"""
table inet bench {{
  counter arrived {{
  }}
  chain taken {{
    type filter hook prerouting priority -400;
    udp dport {PORT} counter name arrived drop;
  }}
}}
"""
# All that this rule does is to have connections tracked.
TRACK = """
table inet bench {
  chain track {
    type filter hook forward priority 0;
    ct state new accept;
  }
}
"""
PAIR = Address(SENDER, PORT), Address(RECEIVER, PORT)
# Where to send, and what each packet begins with.
Way = tuple[str, int, bytes]


def measure(*, own_core: bool) -> dict[str, list[float]]:
    """Way -> packets a second that arrived, a figure a round. The middle's kernel and programs share a core
    of their own, or its kernel works on the sender's core and its programs on another one."""
    with _namespaces(), _middle_alone() if own_core else nullcontext(), ExitStack() as ends:
        here = _Middle()
        ends.callback(here.close)
        ends.enter_context(_turnserver())
        head = within(_path(ONE), lambda: cost_turn.channel((SENDER_HOP, TURN_PORT), PORT, PAIR[1], PAYLOAD_BYTES))
        return rates(here, head)


def rates(here: _Middle, turn_head: bytes) -> dict[str, list[float]]:
    """In turns, and every second time in the reverse order."""
    ways: dict[str, Callable[[], AbstractContextManager[Way]]] = {
        ROUTED: here.routed, TRACKED: here.tracked, BLIND: here.blind, OWN: here.own,
        COTURN: lambda: nullcontext((SENDER_HOP, TURN_PORT, turn_head)),  # it runs all the time
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            with ways[name]() as way:
                found[name].append(_blast(*way))
    for name, seen in found.items():
        print(f"    {name}: {median(seen):,.0f} packets/s of {[round(rate / 1000) for rate in seen]}", file=sys.stderr)
    return found


class _Middle:
    """What the middle host does with packets. While it only routes, it has no rules at all."""

    def __init__(self) -> None:
        self._relays = within(_path(MIDDLE), lambda: Relays(0.0))
        self._now = 0.0
        self._sweep()  # what was left by another agent is over
        self._forwarder = Forwarder(0)

    def close(self) -> None:
        """Close all sockets."""
        self._inside(self._relays.close)
        self._forwarder.close()

    @contextmanager
    def routed(self) -> Iterator[Way]:
        """The kernel routes, without connection tracking."""
        if run(["ip", "netns", "exec", MIDDLE, "nft", "list", "ruleset"]).stdout.strip():
            raise SystemExit("bench: there are rules where there are to be none")
        yield RECEIVER, PORT, b""

    @contextmanager
    def tracked(self) -> Iterator[Way]:
        """The kernel routes, and tracks connections, as where any stateful firewall is."""
        _load(MIDDLE, TRACK)
        yield RECEIVER, PORT, b""
        run(["ip", "netns", "exec", MIDDLE, "nft", "delete", "table", "inet", "bench"])

    @contextmanager
    def blind(self) -> Iterator[Way]:
        """The agent's rules relay."""
        self._inside(lambda: self._relays.do(InstallRelay(RELAY_PORT, *PAIR)))
        yield SENDER_HOP, RELAY_PORT, b""
        counted = within(_path(MIDDLE), lambda: list(self._relays.counters()))
        if not any(count.kernel and count.packets for count in counted):
            raise SystemExit(f"bench: it is not the kernel that relayed: {counted}")
        self._inside(lambda: self._relays.do(RemoveRelay(RELAY_PORT, *PAIR)))
        self._sweep()

    @contextmanager
    def own(self) -> Iterator[Way]:
        """The agent relays, as between ends of two families."""
        self._inside(lambda: self._forwarder.add(RELAY_PORT, *PAIR))
        yield SENDER_HOP, RELAY_PORT, b""
        self._forwarder.remove(RELAY_PORT)

    def _sweep(self) -> None:
        """Take the agent's table away, which goes once there has been nothing in it for a while."""
        for _ in range(2):
            self._now += SWEEP_AFTER_S
            self._inside(lambda: self._relays.poll(self._now))

    def _inside(self, do: Callable[[], object]) -> None:
        within(_path(MIDDLE), do)


@contextmanager
def _namespaces() -> Iterator[None]:
    """one - middle - other. The middle forwards, as an anchor does."""
    one, other = End(ONE, TO_ONE, SENDER_HOP, SENDER), End(OTHER, TO_OTHER, RECEIVER_HOP, RECEIVER)
    with line(one, MIDDLE, other):
        _load(OTHER, COUNT)
        yield


@contextmanager
def _middle_alone() -> Iterator[None]:
    """What the kernel does there with what arrives is the last core's, and so is what this program does and starts."""
    for device in (TO_ONE, TO_OTHER):
        queue = f"/sys/class/net/{device}/queues/rx-0/rps_cpus"
        run(["ip", "netns", "exec", MIDDLE, "sh", "-c", f"echo {1 << CORES[-1]:x} >{queue}"])
    os.sched_setaffinity(0, CORES[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


@contextmanager
def _turnserver() -> Iterator[None]:
    """coturn as packaged, that asks for no password and writes nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        words = ["turnserver", "-n", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp"]
        words += ["--listening-ip", SENDER_HOP, "--relay-ip", RECEIVER_HOP, "--log-file", "/dev/null"]
        words += ["--pidfile", f"{scratch}/pid"]
        argv = ["ip", "netns", "exec", MIDDLE, *words]
        server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=scratch)
        try:
            yield
        finally:
            server.kill()
            server.wait()


def _blast(to: str, port: int, head: bytes) -> float:
    """Packets a second that arrived."""
    before = _arrived()
    words = [sys.executable, ROOT / "tests" / "bench" / "cost_blaster.py"]
    words += [to, str(port), str(PORT), str(SECONDS), str(CORES[0]), head.hex(), str(PAYLOAD_BYTES)]
    seconds = float(run(["ip", "netns", "exec", ONE, *words]).stdout)
    time.sleep(TAIL_S)
    return (_arrived() - before) / seconds


def _arrived() -> int:
    counter = run(["ip", "netns", "exec", OTHER, "nft", "-j", "list", "counter", "inet", "bench", "arrived"]).stdout
    (packets,) = [each["counter"]["packets"] for each in json.loads(counter)["nftables"] if "counter" in each]
    return int(packets)


def _load(space: str, rules: str) -> None:
    subprocess.run(["ip", "netns", "exec", space, "nft", "-f", "-"], input=rules, text=True, check=True)


def _path(space: str) -> Path:
    return Path("/run/netns") / space
