"""The commands that lead from one state of a host's network to another: those that open the way in come first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from meshctl.agent.netstate import KINDS, WIREGUARD, Link, NetState
from meshctl.agent.wgtext import PEER


class Command(NamedTuple):
    """One to run. Any may fail: what it should undo may have gone with another thing."""

    argv: tuple[str, ...]
    stdin: str | None = None


def commands(wanted: NetState, now: NetState) -> Iterator[Command]:
    """What is to be done, in order. What follows from it (a route that goes with its link) may be to do no more."""
    yield from _tables(wanted.tables, now.tables)
    for name, link in now.links.items():
        if link.kind in KINDS and name not in wanted.links:
            yield _ip("link", "delete", name)
    for name, link in wanted.links.items():
        yield from _link(name, link, now.links.get(name))
        if name in wanted.wireguard and wanted.wireguard[name] != now.wireguard.get(name):
            yield Command(("wg", "syncconf", name, "/dev/stdin"), explicit(wanted.wireguard[name]))
    for path in _other_sysctls(wanted, now):  # before addresses, which IPv6 may be disabled for
        yield Command(("tee", path), wanted.sysctls[path])
    for name, link in wanted.links.items():
        yield from _addresses(name, link, now.links.get(name))
    for what in ("route", "rule"):
        for family in "46":
            yield from _lines(what, family, wanted, now)


def differences(wanted: NetState, now: NetState) -> list[str]:
    """What is otherwise, in a few words each, without a secret."""
    found = [f"{what} {name}" for what in ("links", "wireguard", "tables")
             for name in _differing(getattr(wanted, what), getattr(now, what))]  # fmt: skip
    found += [f"sysctls {path}" for path in _other_sysctls(wanted, now)]
    for what in ("routes", "rules"):
        for family in "46":
            old, new = (set(getattr(state, what).get(family, ())) for state in (wanted, now))
            found += [f"{what[:-1]} missing: {line}" for line in sorted(old - new)]
            found += [f"{what[:-1]} left: {line}" for line in sorted(new - old)]
    return found


def explicit(config: str) -> str:
    """`wg showconf` with a keepalive for each peer: `wg syncconf` leaves one as it is that is not said."""
    head, *peers = config.split(PEER)
    said = [peer if "PersistentKeepalive" in peer else f"\nPersistentKeepalive = off{peer}" for peer in peers]
    return PEER.join([head, *said])


def _tables(wanted: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Command]:
    for name in _differing(wanted, now):
        yield Command(("nft", "-f", "-"), f"table {name}\ndelete table {name}\n{wanted.get(name, '')}")


def _link(name: str, wanted: Link, now: Link | None) -> Iterator[Command]:
    if now is None:
        if wanted.kind not in KINDS:
            return  # a link of somebody else's is theirs to make
        made = _ip("link", "add", name, "type", WIREGUARD)
        yield made if wanted.kind == WIREGUARD else Command(("wireguard-go", name))
    if now is None or now.mtu != wanted.mtu:
        yield _ip("link", "set", name, "mtu", str(wanted.mtu))
    if now is None or now.up != wanted.up:
        yield _ip("link", "set", name, "up" if wanted.up else "down")


def _addresses(name: str, wanted: Link, now: Link | None) -> Iterator[Command]:
    before = now.addresses if now is not None else ()
    for address in before:
        if address not in wanted.addresses:
            yield _ip("address", "delete", *address.split(), "dev", name)
    for address in wanted.addresses:
        if address not in before:
            yield _ip("address", "add", *address.split(), "dev", name)


def _lines(what: str, family: str, wanted: NetState, now: NetState) -> Iterator[Command]:
    old, new = (getattr(state, f"{what}s").get(family, ()) for state in (wanted, now))
    for line in new:
        if line not in old:
            yield _ip(f"-{family}", what, "delete", *line.split())
    for line in old:
        if line not in new:
            yield _ip(f"-{family}", what, "add", *line.split())


def _differing(wanted: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return [name for name in sorted({*wanted, *now}) if wanted.get(name) != now.get(name)]


def _other_sysctls(wanted: NetState, now: NetState) -> list[str]:
    """Those that are otherwise. Some come and go with their interface or a module, and are not missed themselves."""
    return [path for path, value in sorted(wanted.sysctls.items()) if now.sysctls.get(path, value) != value]


def _ip(*words: str) -> Command:
    return Command(("ip", *words))
