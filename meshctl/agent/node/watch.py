"""What happens to the host: its addresses and routers, its clocks and sleep, and the agent's document."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from meshctl.agent.node import libc, netlink, rtnetlink
from meshctl.agent.node.handler import HasFileno, Plain, Readable
from meshctl.core.agent.address import LocalAddress, canonical
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import ClockStepped, Event, LocalAddresses

# A change comes as several messages (a link goes up, gets addresses, then routes): so long they are waited for.
SETTLE_S = 0.05
# After a failure it is looked at again.
AGAIN_S = 1.0
# And after one of who was told that something has changed.
CHANGED_AGAIN_S = 5.0
# How often the document is looked at, besides whenever inotify says so.
LOOK_S = 1.0
# The host slept when one clock is ahead of the other by more than their reading takes.
SLEPT_S = 0.5
_RECEIVE_BYTES = 1 << 16


class Descriptor:
    """A bare file descriptor as something that `selectors` takes."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """See HasFileno."""
        return self._number

    def close(self) -> None:
        """It is closed, and must not be used again."""
        os.close(self._number)


class NetworkWatch(Plain):
    """Says which addresses and gateways there are: at first, and whenever they change. `changed` is called whenever
    anything about links or addresses may have, mesh interfaces included; and again when it could not do all of its
    work, which it says by False."""

    def __init__(self, document: AgentDocument, now: float, changed: Callable[[], bool]) -> None:
        self._changed = changed
        self._socket = rtnetlink.subscribe()
        self._last: LocalAddresses | None = None
        self.configure(document, now)

    def configure(self, document: AgentDocument, now: float) -> None:
        """See Handler. Addresses of mesh interfaces do not count."""
        self._tunnels = frozenset(n.interface for n in document.config.networks)
        self._due: float | None = now

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return [(self._socket, self._receive)]

    def due(self) -> float | None:
        """See Handler."""
        return self._due

    def poll(self, now: float) -> list[Event]:
        """See Handler. Raises OSError when the kernel does not say."""
        if self._due is None or now < self._due:
            return []
        self._due = now + AGAIN_S  # if the kernel does not say
        well = self._changed()
        found = host_addresses(self._tunnels)
        self._due = None if well else now + CHANGED_AGAIN_S
        if found == self._last:
            return []
        self._last = found
        return [found]

    def close(self) -> None:
        """See Handler."""
        self._socket.close()

    def _receive(self, now: float) -> list[Event]:
        try:
            told = netlink.messages(self._socket.recv(_RECEIVE_BYTES))
            concerns = any(k not in rtnetlink.ROUTE_CHANGES or rtnetlink.is_default_route(body) for k, body in told)
        except BlockingIOError:
            return []
        except OSError:  # too much at once, and something was lost: then everything is looked at
            concerns = True
        if concerns:
            self._due = now + SETTLE_S if self._due is None else min(self._due, now + SETTLE_S)
        return []


def host_addresses(tunnels: frozenset[str]) -> LocalAddresses:
    """The usable addresses of this network namespace, without those of `tunnels`; gateways as `fe80::1%eth0` where
    they are link-local. Raises OSError."""
    links = {link.device: link for link in rtnetlink.parse_links(rtnetlink.dump(rtnetlink.RTM_GETLINK))}
    usable = {i: link.name for i, link in links.items() if link.up and link.name not in tunnels}
    held = rtnetlink.parse_addresses(rtnetlink.dump(rtnetlink.RTM_GETADDR))
    routers = rtnetlink.parse_gateways(rtnetlink.dump(rtnetlink.RTM_GETROUTE, rtnetlink.is_default_route))
    addresses = {LocalAddress(canonical(h.ip), h.prefix_length, usable[h.device]) for h in held if h.device in usable}
    gateways = {
        f"{g.ip}%{usable[g.device]}" if g.ip.startswith("fe80:") else canonical(g.ip)
        for g in routers
        if g.device in usable
    }
    return LocalAddresses(tuple(sorted(addresses)), tuple(sorted(gateways)))


def clocks_apart() -> float:
    """Seconds that this host has slept since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class ClockWatch(Plain):
    """Says when the host has slept, or somebody has set the wall clock (a machine that was paused shows so too).

    The core's time goes on in sleep (CLOCK_BOOTTIME), CLOCK_MONOTONIC does not: `ahead` is how far the two are apart.
    """

    def __init__(self, ahead: Callable[[], float] = clocks_apart) -> None:
        self._ahead_now = ahead
        self._ahead = ahead()
        self._descriptor: Descriptor | None = None
        with contextlib.suppress(OSError):  # without it, sleep is found at the next event
            self._descriptor = Descriptor(libc.clock_watch())
            self._arm()

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return [(self._descriptor, self._receive)] if self._descriptor is not None else []

    def poll(self, _now: float) -> list[Event]:
        """See Handler."""
        ahead, before = self._ahead_now(), self._ahead
        self._ahead = ahead
        return [ClockStepped()] if ahead - before > SLEPT_S else []

    def close(self) -> None:
        """See Handler."""
        if self._descriptor is not None:
            self._descriptor.close()

    def _arm(self) -> None:
        if self._descriptor is not None:
            libc.arm_clock_watch(self._descriptor.fileno(), time.time())

    def _receive(self, _now: float) -> list[Event]:
        assert self._descriptor is not None  # noqa: S101 - its own callback
        with contextlib.suppress(OSError):  # ECANCELED is the message; a timer that ran out after years is none
            os.read(self._descriptor.fileno(), 8)
        self._arm()
        self._ahead = self._ahead_now()
        return [ClockStepped()]


class DocumentWatch(Plain):
    """Calls `changed` when the file at `path` is another one than when this was made, or than at the call before.
    inotify only says when to look: it may lose events, and its watches end with their folder."""

    def __init__(self, path: Path, changed: Callable[[], list[Event]], now: float) -> None:
        self._path, self._changed = path, changed
        self._descriptor: Descriptor | None = None
        self._look_at = now + LOOK_S
        self._watch()
        self._seen = _stamp(path)

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return [(self._descriptor, self._receive)] if self._descriptor is not None else []

    def due(self) -> float | None:
        """See Handler."""
        return self._look_at

    def poll(self, now: float) -> list[Event]:
        """See Handler."""
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_S
        self._watch()
        return self._look()

    def close(self) -> None:
        """See Handler."""
        if self._descriptor is not None:
            self._descriptor.close()

    def _watch(self) -> None:
        """The folder, as it is now: it may have come or been made anew."""
        with contextlib.suppress(OSError):  # no folder, or no more instances for this user: `poll` sees it in a second
            if self._descriptor is None:
                self._descriptor = Descriptor(libc.file_watch())
            libc.watch_folder(self._descriptor.fileno(), str(self._path.parent))

    def _receive(self, _now: float) -> list[Event]:
        assert self._descriptor is not None  # noqa: S101 - its own callback
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor.fileno(), _RECEIVE_BYTES)
        return self._look()

    def _look(self) -> list[Event]:
        stamp = _stamp(self._path)
        if stamp is None or stamp == self._seen:
            return []
        self._seen = stamp
        return self._changed()


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What is another after each change of the file; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
