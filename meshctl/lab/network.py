"""Namespaces and the cables between them. Everything converges: what is there and right is kept."""

from __future__ import annotations

import json
import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from meshctl.lab.blueprint import LAN_BRIDGE, Link, Router
from meshctl.lab.names import INTERNET, NETNS_ROOT, LabError, netns, netns_path, prefix
from meshctl.lab.netns import within
from meshctl.lab.shell import ip_batch, run

FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
# Packets that netem may hold: 100 Mbit/s for a second.
NETEM_LIMIT = 10_000
RTMGRP_LINK = 1  # linux/rtnetlink.h
CARRIER_TIMEOUT_S = 10.0


def existing(lab: str) -> set[str]:
    """Elements of the lab that have a namespace now."""
    start = prefix(lab)
    if not NETNS_ROOT.is_dir():
        return set()
    return {p.name[len(start):] for p in NETNS_ROOT.iterdir() if p.name.startswith(start)}


def create_namespaces(lab: str, elements: Iterable[str]) -> None:
    """Make each namespace that is not there yet, its loopback up and IPv6 advertisements ignored."""
    new = sorted(set(elements) - existing(lab))
    ip_batch(f"netns add {netns(lab, e)}" for e in new)
    for element in new:
        ip_batch(["link set lo up"], lab=lab, element=element)
        set_sysctls(lab, element, {"net/ipv6/conf/all/accept_ra": "0", "net/ipv6/conf/default/accept_ra": "0"})
        if element == INTERNET:
            set_sysctls(lab, element, dict.fromkeys(FORWARDING, "1"))


def delete_namespaces(lab: str, elements: Iterable[str]) -> None:
    """Remove namespaces; their ends of cables go with them."""
    ip_batch((f"netns del {netns(lab, e)}" for e in sorted(elements)), force=True)


def set_sysctls(lab: str, element: str, values: dict[str, str]) -> None:
    """Write parameters (paths below /proc/sys) inside the element's namespace."""
    def write() -> None:
        for name, value in values.items():
            Path("/proc/sys", name).write_text(value)

    within(netns_path(lab, element), write)


def devices(lab: str, element: str) -> set[str]:
    """Names of the network devices in the element's namespace."""
    return {name for _, name in within(netns_path(lab, element), socket.if_nameindex)}


def prepare_routers(lab: str, routers: Iterable[Router]) -> None:
    """Give each router its LAN bridge and let it forward."""
    for router in routers:
        if LAN_BRIDGE in devices(lab, router.name):
            continue
        lines = [f"link add {LAN_BRIDGE} type bridge forward_delay 0"]
        lines += [f"addr add {a} dev {LAN_BRIDGE}{_nodad(a)}" for a in router.lan]
        ip_batch([*lines, f"link set {LAN_BRIDGE} up"], lab=lab, element=router.name)
        set_sysctls(lab, router.name, dict.fromkeys(FORWARDING, "1"))


def connect(lab: str, links: Iterable[Link], wired: frozenset[Link]) -> None:
    """Make the cables: TAP pairs for those in `wired` (the wire process moves their frames), veth for the others.

    A pair is made from the child's namespace: Linux 6.12 refuses a name that a device has where the request comes from.
    """
    batches: dict[str, list[str]] = defaultdict(list)
    pairs: dict[str, list[str]] = defaultdict(list)
    for link in links:
        if link in wired:
            batches[link.child].append(f"tuntap add dev {link.device} mode tap")
            batches[link.parent].append(f"tuntap add dev {link.parent_device} mode tap")
        else:
            peer = f"peer name {link.parent_device} netns {netns(lab, link.parent)}"
            pairs[link.child].append(f"link add {link.device} type veth {peer}")
        batches[link.parent] += parent_lines(link)
        batches[link.child] += child_lines(link)
    for element, lines in (*pairs.items(), *batches.items()):
        ip_batch(lines, lab=lab, element=element)


def disconnect(lab: str, links: Iterable[Link]) -> None:
    """Remove both ends of each cable, whatever is left of it."""
    batches: dict[str, list[str]] = defaultdict(list)
    for link in links:
        batches[link.child].append(f"link del {link.device}")
        batches[link.parent].append(f"link del {link.parent_device}")
    for element in sorted(set(batches) & existing(lab)):
        ip_batch(batches[element], lab=lab, element=element, force=True)


def child_lines(link: Link) -> list[str]:
    """iproute2 commands that configure the child's end."""
    dev = link.device
    lines = [f"addr replace {a} dev {dev}{_nodad(a)}" for a in link.addresses]
    lines.append(f"link set {dev} up")
    for gateway in link.gateways:
        everything = "::/0" if ":" in gateway else "0.0.0.0/0"
        lines.append(f"route replace {everything} via {gateway} dev {dev} onlink")
    return lines


def parent_lines(link: Link) -> list[str]:
    """iproute2 commands that configure the parent's end; run again after it was down."""
    dev = link.bridge or link.parent_device
    master = f" master {link.bridge}" if link.bridge else ""
    lines = [f"addr replace {a} dev {link.parent_device}{_nodad(a)}" for a in link.parent_addresses]
    lines.append(f"link set {link.parent_device}{master} up")
    for to, via in link.parent_routes:
        lines.append(f"route replace {to} via {via} dev {dev} onlink" if via else f"route replace {to} dev {dev}")
    return lines


def await_up(lab: str, element: str, device: str) -> None:
    """Wait until the device may send: the kernel acts on a carrier up to a second after it came (linkwatch)."""
    with within(netns_path(lab, element), _link_events) as events:
        events.settimeout(CARRIER_TIMEOUT_S)
        show = ["ip", "-n", netns(lab, element), "-j", "link", "show", "dev", device]
        while json.loads(run(show, where=element))[0]["operstate"] != "UP":
            try:
                events.recv(65_536)
            except TimeoutError:
                hint = f"meshctl lab down --name {lab}"
                raise LabError(f"{device} gets no carrier", where=element, hint=hint) from None


def _link_events() -> socket.socket:
    """A netlink socket that receives a message for each change of a device."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    events.bind((0, RTMGRP_LINK))
    return events


def has_netem(lab: str) -> bool:
    """Whether this kernel delays packets by itself."""
    space = netns(lab, INTERNET)
    done = subprocess.run(
        ["tc", "-n", space, "qdisc", "replace", "dev", "lo", "root", "netem", "delay", "0ms"],
        check=False, capture_output=True,
    )
    if done.returncode == 0:
        run(["tc", "-n", space, "qdisc", "del", "dev", "lo", "root"])
    return done.returncode == 0


def impair(lab: str, link: Link) -> None:
    """Delay, jitter and loss by netem, each way. Its jitter is to both sides of the delay."""
    half_ms = link.jitter_ms / 2
    for element, dev in ((link.child, link.device), (link.parent, link.parent_device)):
        delay = ["delay", f"{link.delay_ms + half_ms}ms", f"{half_ms}ms"]
        words = [*delay, "loss", f"{link.loss_percent}%", "limit", str(NETEM_LIMIT)]
        run(["tc", "-n", netns(lab, element), "qdisc", "replace", "dev", dev, "root", "netem", *words], where=element)


def _nodad(address: str) -> str:
    return " nodad" if ":" in address else ""
