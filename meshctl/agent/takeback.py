"""The network of a host without what some applies have done to it: what others did since then stays. Pure.

Of an apply that was made days ago, only the difference between before and after it is taken back. Where a WireGuard
peer is at the moment, and how often it is sent to, the kernel and the agent have found out: that goes back only where
the apply itself has set it, which the ledgers say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from meshctl.agent.netstate import KINDS, Link, NetState
from meshctl.agent.wgtext import ENDPOINT, KEEPALIVE, MOVING, Config
from meshctl.model.ledger import Ledger, PeerRecord

V = TypeVar("V")
Lines = tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """What one apply has done. `after` is None where nobody knows: it counts as what there is."""

    before: NetState
    after: NetState | None
    ledger_before: Ledger
    ledger_after: Ledger


def without(done: Iterable[Done], now: NetState) -> NetState:
    """The state that is wanted in place of `now`; the newest apply comes first. What that gives, it leaves as it is."""
    wanted = now
    for one in done:
        wanted = _without_one(one, one.after or now, wanted)
    return wanted


def _without_one(one: Done, after: NetState, now: NetState) -> NetState:
    before = one.before
    families = sorted({*before.routes, *after.routes, *now.routes})
    ours = {*one.ledger_before.tables, *one.ledger_after.tables}
    tables = {name: text for name, text in after.tables.items() if name in ours}
    tables_before = {name: text for name, text in before.tables.items() if name in ours}
    return NetState(
        _links(before.links, after.links, now.links),
        {f: _lines(before.routes.get(f, ()), after.routes.get(f, ()), now.routes.get(f, ())) for f in families},
        {f: _lines(before.rules.get(f, ()), after.rules.get(f, ()), now.rules.get(f, ())) for f in families},
        _wireguard(one, after, now),
        _values(tables_before, tables, now.tables),
        _values(before.sysctls, after.sysctls, now.sysctls),
    )


def _values(before: Mapping[str, V], after: Mapping[str, V], now: Mapping[str, V]) -> dict[str, V]:
    """`now`, but as before where it has become another one."""
    wanted = dict(now)
    for name in {*before, *after}:
        if before.get(name) != after.get(name):
            if name in before:
                wanted[name] = before[name]
            else:
                wanted.pop(name, None)
    return wanted


def _lines(before: Iterable[str], after: Iterable[str], now: Iterable[str]) -> Lines:
    old, new = set(before), set(after)
    return tuple(sorted((set(now) - (new - old)) | (old - new)))


def _links(before: Mapping[str, Link], after: Mapping[str, Link], now: Mapping[str, Link]) -> dict[str, Link]:
    """A link that came or went does so again only if it is WireGuard's; others may have gained and lost addresses."""
    wanted = dict(now)
    for name, old, new in _pairs(before, after):
        if new is None and old is not None and old.kind in KINDS:
            wanted[name] = old
        elif old is None and new is not None and new.kind in KINDS:
            wanted.pop(name, None)
        elif old is not None and new is not None and name in now:
            link = now[name]
            wanted[name] = replace(
                link, mtu=old.mtu if old.mtu != new.mtu else link.mtu, up=old.up if old.up != new.up else link.up,
                addresses=_lines(old.addresses, new.addresses, link.addresses),
            )  # fmt: skip
    return wanted


def _wireguard(one: Done, after: NetState, now: NetState) -> dict[str, str]:
    wanted = dict(now.wireguard)
    for name, old, new in _pairs(one.before.wireguard, after.wireguard):
        if new is None and old is not None:
            wanted[name] = old
        elif old is None:
            wanted.pop(name, None)
        elif new is not None and name in now.wireguard:
            records = _records(one.ledger_before, name), _records(one.ledger_after, name)
            wanted[name] = _config(Config.of(old), Config.of(new), Config.of(now.wireguard[name]), *records)
    return wanted


def _config(
    old: Config, new: Config, now: Config, records: Mapping[str, PeerRecord], records_after: Mapping[str, PeerRecord]
) -> str:
    """One interface's; its private key is identity, and stays."""
    head = {**_values(old.head, new.head, now.head), **now.private_key}
    peers = dict(now.peers)
    for key, was, became in _pairs(old.peers, new.peers):
        if was is None:
            peers.pop(key, None)
        elif became is None:
            peers.setdefault(key, was)
        elif key in now.peers:
            still = {name: value for name, value in now.peers[key].items() if name in MOVING}
            fixed = _values(*({n: v for n, v in p.items() if n not in MOVING} for p in (was, became, now.peers[key])))
            peers[key] = {**fixed, **still}
    for key in {*old.peers} & {*new.peers} & {*peers} & {*records} & {*records_after}:
        record, record_after, was = records[key], records_after[key], old.peers[key]
        moved = dict(peers[key])
        if record.endpoint != record_after.endpoint and ENDPOINT in was:
            moved[ENDPOINT] = was[ENDPOINT]
        if record.keepalive_s != record_after.keepalive_s:
            moved.pop(KEEPALIVE, None)
            moved.update({KEEPALIVE: was[KEEPALIVE]} if KEEPALIVE in was else {})
        peers[key] = moved
    return Config(head, peers).text()


def _records(ledger: Ledger, interface: str) -> Mapping[str, PeerRecord]:
    record = ledger.interfaces.get(interface)
    return record.peers if record is not None else {}


def _pairs(before: Mapping[str, V], after: Mapping[str, V]) -> Iterable[tuple[str, V | None, V | None]]:
    """Each that differs, by name."""
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)
