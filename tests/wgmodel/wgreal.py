"""Scenarios between two real WireGuards in network namespaces: the kernel's own, or wireguard-go.

Standard library alone, as `wgstage`, but for the function that enters a namespace.
"""

from __future__ import annotations

import copy
import os
import secrets
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from wgscenarios import Scenario
from wgstage import INNER, INNER_HEADERS, NOT_ALLOWED, OUTER, PORT, Got, Record, Sent, Shown, Stage, other
from wgwire import Datagram, Port, Wire, open_tun

from meshctl.lab.netns import within

KERNEL, GO = "wireguard.ko", "wireguard-go"
_INNER_PORT = 9
_MONOTONIC_COARSE = 6  # linux/time.h; it goes by the kernel's ticks
_NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
_SETUP = """\
link set lo up
link set eth0 up
addr add {outer}/32 dev eth0
route add default dev eth0
addr add {inner}/32 dev {wg}
{more}
link set {wg} up
route add {theirs}/32 dev {wg} src {inner}
"""


class HostNamespace:
    """One host: a namespace with a TUN for the outer network and a WireGuard interface."""

    def __init__(self, node: str, implementation: str, ends: ExitStack) -> None:
        self.node = node
        # wireguard-go's control sockets lie in one folder for all namespaces of a machine.
        self._tag = secrets.token_hex(4)
        self.namespace, self.wg = f"wgmodel-{self._tag}{node}", f"wg{self._tag}{node}"
        run("ip", "netns", "add", self.namespace)
        ends.callback(self.close)
        within(self._path, lambda: _NO_IPV6.write_text("1"))
        self.tun = within(self._path, lambda: open_tun("eth0"))
        ends.callback(os.close, self.tun)
        if implementation == KERNEL:
            self.run("ip", "link", "add", self.wg, "type", "wireguard")
        else:
            self.run("wireguard-go", self.wg)
        more = f"addr add {NOT_ALLOWED}/32 dev {self.wg}" if node == "a" else ""
        lines = _SETUP.format(wg=self.wg, outer=OUTER[node], inner=INNER[node], theirs=INNER[other(node)], more=more)
        self.run("ip", "-batch", "-", text=lines)
        private = self.run("wg", "genkey")
        self.run("wg", "set", self.wg, "listen-port", str(PORT), "private-key", "/dev/stdin", text=private)
        self.key = self.run("wg", "pubkey", text=private).strip()
        # By inner address; what is sent from an address that is not allowed is for `a` alone.
        self.sockets = {
            address: ends.enter_context(within(self._path, lambda address=address: _inner_socket(address)))
            for address in (INNER[node], *([NOT_ALLOWED] if node == "a" else []))
        }

    @property
    def _path(self) -> Path:
        return Path("/run/netns") / self.namespace

    def close(self) -> None:
        """Take it down, with whatever runs inside."""
        for pid in run("ip", "netns", "pids", self.namespace).split():
            os.kill(int(pid), signal.SIGTERM)
        run("ip", "netns", "del", self.namespace)

    def run(self, *command: str, text: str = "") -> str:
        """A command's output in the namespace."""
        return within(self._path, lambda: run(*command, text=text))


class Real(Stage):
    """The stage in real time. To be used in an ExitStack, which takes it down."""

    def __init__(self, implementation: str, ends: ExitStack, *, endpoint: bool = True) -> None:
        super().__init__()
        self.record.tick_s = time.clock_getres(_MONOTONIC_COARSE) if implementation == KERNEL else 0.0
        self._hosts = {node: HostNamespace(node, implementation, ends) for node in OUTER}
        for node, host in self._hosts.items():
            words = ["allowed-ips", f"{INNER[other(node)]}/32"]
            words += ["endpoint", f"{OUTER['b']}:{PORT}"] if node == "a" and endpoint else []
            self._set(host, *words)
        ports = {node: Port(host.tun, [OUTER[node]]) for node, host in self._hosts.items()}
        self._wire = Wire(ports, {n: h.sockets[INNER[n]] for n, h in self._hosts.items()}, self._sent, self._got)
        self._wire.start()
        ends.callback(self._wire.stop)
        self._started = self._started_at = 0.0

    def play(self, scenario: Scenario) -> Record:
        """What was seen from now, the start, to the end of the scenario."""
        self._started, self._started_at = time.monotonic(), time.time()
        scenario.play(self)
        return copy.deepcopy(self.record)

    def _sent(self, node: str, when: float, datagram: Datagram) -> None:
        at, payload = when - self._started, datagram.payload
        self.record.sent[node].append(Sent(at, datagram.source, datagram.destination, payload[0], len(payload)))

    def _got(self, node: str, when: float, source: str, size: int) -> None:
        self.record.got.append(Got(when - self._started, node, source, INNER_HEADERS + size))

    def _set(self, host: HostNamespace, *words: str) -> None:
        host.run("wg", "set", host.wg, "peer", self._hosts[other(host.node)].key, *words)

    def until(self, when: float) -> None:
        """See Stage."""
        time.sleep(max(0.0, self._started + when - time.monotonic()))

    def send(self, node: str, size: int, source: str = "") -> None:
        """See Stage."""
        sock = self._hosts[node].sockets[source or INNER[node]]
        sock.sendto(bytes(size - INNER_HEADERS), (INNER[other(node)], _INNER_PORT))

    def set_endpoint(self, node: str, ip: str) -> None:
        """See Stage."""
        self._set(self._hosts[node], "endpoint", f"{ip}:{PORT}")

    def set_keepalive(self, node: str, seconds: int) -> None:
        """See Stage."""
        self._set(self._hosts[node], "persistent-keepalive", str(seconds))

    def move(self, node: str, ip: str) -> None:
        """See Stage."""
        port = self._wire.ports[node]
        gone, port.addresses = port.addresses, [ip] if ip else []
        # The new address first: without any, the route goes too.
        lines = [f"addr add {ip}/32 dev eth0"] if ip else []
        lines += [f"addr del {address}/32 dev eth0" for address in gone] or ["route add default dev eth0"]
        self._hosts[node].run("ip", "-batch", "-", text="\n".join([*lines, ""]))

    def add_address(self, node: str, ip: str) -> None:
        """See Stage."""
        self._wire.ports[node].addresses.append(ip)
        self._hosts[node].run("ip", "addr", "add", f"{ip}/32", "dev", "eth0")

    def rebind(self, node: str, ip: str) -> None:
        """See Stage."""
        self._wire.ports[node].outside = ip

    def lose(self, node: str, *kinds: int) -> None:
        """See Stage."""
        self._wire.ports[node].lost = kinds

    def hold_next(self, node: str) -> None:
        """See Stage."""
        self._wire.ports[node].hold = True

    def release(self, node: str) -> None:
        """See Stage."""
        held = self._wire.ports[node].held
        while held:
            self._wire.carry(held.pop(0))

    def replay(self, node: str, kind: int, source: str) -> None:
        """See Stage."""
        first = self._wire.ports[node].first[kind]
        self._wire.carry(Datagram(source, first.destination, first.payload))

    def show(self, node: str) -> None:
        """See Stage."""
        host = self._hosts[node]
        at = time.monotonic() - self._started
        fields = host.run("wg", "show", host.wg, "dump").splitlines()[1].split("\t")
        endpoint, handshake, rx, tx = fields[2], int(fields[4]), int(fields[5]), int(fields[6])
        since = handshake - self._started_at if handshake else None
        self.record.shown.append(Shown(at, node, "" if endpoint == "(none)" else endpoint, since, rx, tx))


def usual() -> str:
    """The machine's WireGuard: the kernel's if it has one, else wireguard-go."""
    namespace = f"wgmodel-{secrets.token_hex(4)}"
    run("ip", "netns", "add", namespace)
    try:
        words = ["ip", "-n", namespace, "link", "add", "wg0", "type", "wireguard"]
        return GO if subprocess.run(words, check=False, capture_output=True).returncode else KERNEL
    finally:
        run("ip", "netns", "del", namespace)


def run(*command: str, text: str = "") -> str:
    """A command's output. Raises AssertionError with what it said when it fails."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, (command, done.stderr, text)
    return done.stdout


def _inner_socket(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, _INNER_PORT))
    return sock
