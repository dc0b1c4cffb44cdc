"""Pre-shared keys that a run would change at one end of a pair alone.

They are asked for in handshakes only: what one end has without the other goes unnoticed, and is confirmed, for as long
as the session of before lives on. After that neither hears the other, and where SSH goes through that pair, nobody
gets in any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from meshctl import facts as facts_of
from meshctl.deploy import keys
from meshctl.deploy.check import counters
from meshctl.deploy.host import FACTS_COMMAND, Host
from meshctl.deploy.phases import Phases
from meshctl.errors import RemoteError
from meshctl.facts import FactsRequest
from meshctl.model.facts import PeerFacts
from meshctl.model.keys import PublicKey, Secret
from meshctl.model.mesh import Mesh
from meshctl.model.resources import WireGuard

OTHERS_THROUGHOUT = (
    "every pre-shared key changes: this is another mesh secret than the one that was applied last; if that is meant, "
    "apply to all nodes in one run"
)
# One end alone may have been changed by hand.
_SOME = 2


@dataclass(frozen=True)
class _End:
    """One end of a pair that is to get another pre-shared key; `peer` is the node at the other end."""

    host: Host
    own: PublicKey
    found: PeerFacts
    wanted: Secret | None
    peer: str


def lone_ends(
    hosts: Mapping[str, Host], mesh: Mesh, outside: Callable[[Iterable[str]], Mapping[str, Host]], phases: Phases
) -> tuple[str, ...]:
    """Reasons to refuse, in words: pairs with a managed node that this run does not change, which work now and would
    not after it. `outside` makes hosts that the run is not about, as far as it may ask them."""
    owners = {
        (a.network, key): node.name for node in mesh.managed() for a in node.attachments
        for key in (a.public_key, a.next_public_key) if key
    }  # fmt: skip
    ends = [end for host in hosts.values() for end in _ends(host, owners) if not _goes_with_it(hosts.get(end.peer))]
    if not ends:
        return ()
    asked = outside(sorted({end.peer for end in ends} - hosts.keys()))
    phases.each("reading", list(asked.values()), partial(_read, mesh=mesh))
    others = {**hosts, **asked}
    unknown = {e.host.name: e.host for e in ends if not _is_read(others.get(e.peer))}
    living: dict[str, frozenset[str]] = {}
    phases.each("counting", list(unknown.values()), partial(_count, living=living))
    lost: dict[str, set[str]] = {}
    for end in ends:
        if _breaks(end, others.get(end.peer), living):
            unread = "" if _is_read(others.get(end.peer)) else " (not reached)"
            lost.setdefault(end.host.name, set()).add(f"{end.peer}{unread}")
    return tuple(_words(lost))


def another_secret(hosts: Iterable[Host]) -> tuple[str, ...]:
    """A warning when no end of any pair keeps its pre-shared key; none as soon as one does."""
    count = 0
    for host in hosts:
        for want in host.doc.interfaces() if host.error is None and host.facts else ():
            live = host.facts.interfaces.get(want.interface) if host.facts else None
            if live is None or live.public_key != want.public_key:
                continue
            for peer, psk in zip(want.peers, want.psks):
                found = live.peers.get(peer.public_key) if peer.public_key else None
                if found is not None and psk is not None and found.psk is not None:
                    if psk == found.psk:
                        return ()
                    count += 1
    return (OTHERS_THROUGHOUT,) if count >= _SOME else ()


def _ends(host: Host, owners: Mapping[tuple[str, PublicKey], str]) -> Iterator[_End]:
    """The host's, by its changes. One that takes another key itself is left to `keys rotate`, or to the lock that is to
    take note of it first: it has other pre-shared keys with everybody then. Stock clients' keys are in their owners'
    hands."""
    if host.facts is None or host.error is not None:
        return
    rekeyed = [
        c for c in host.changes if c.kind == "peer" and c.action == "update" and c.after and "psk" in c.after
    ]  # fmt: skip
    named = {
        f"{want.interface} {peer.name}": (want, peer.public_key, psk)
        for index in {change.resource for change in rekeyed}
        if isinstance(want := host.doc.resources[index], WireGuard)
        for peer, psk in zip(want.peers, want.psks)
    }
    for change in rekeyed:
        want, key, psk = named[change.name]
        live = host.facts.interfaces[want.interface]
        if key and (want.network, key) in owners and live.public_key and live.public_key == want.public_key:
            yield _End(host, live.public_key, live.peers[key], psk, owners[want.network, key])


def _goes_with_it(peer: Host | None) -> bool:
    """Whether the other end is brought to the same pre-shared key by this run."""
    return _is_read(peer) and peer is not None and peer.error is None


def _is_read(host: Host | None) -> bool:
    return host is not None and host.facts is not None


def _breaks(end: _End, other: Host | None, living: Mapping[str, frozenset[str]]) -> bool:
    """Whether the pair works now and would not afterwards. A session says that it does, where the other end cannot."""
    if other is None or other.facts is None:
        known = living.get(end.host.name)
        key = end.found.public_key.text
        return bool(end.found.latest_handshake) if known is None else key in known
    at = [live for live in other.facts.interfaces.values() if live.public_key == end.found.public_key]
    theirs = [live.peers[end.own] for live in at if end.own in live.peers]
    return any(peer.psk == end.found.psk != end.wanted for peer in theirs)


def _read(host: Host, mesh: Mesh) -> None:
    """What WireGuard has on a host that nothing else is asked of. Raises RemoteError."""
    host.transport = host.connect()
    request = FactsRequest(interfaces=tuple(a.interface for a in mesh.nodes[host.name].attachments))
    completed = host.transport.run(FACTS_COMMAND, facts_of.script(request).encode())
    host.facts = facts_of.parse(host.name, completed.text())


def _count(host: Host, living: dict[str, frozenset[str]]) -> None:
    """With whom it has a session, by its own clock. Never raises."""
    with contextlib.suppress(RemoteError, ValueError):
        living[host.name] = counters(host).living


def _words(lost: Mapping[str, set[str]]) -> Iterator[str]:
    """One sentence for all hosts that would lose the same ones."""
    together: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(lost):
        together.setdefault(tuple(sorted(lost[name])), []).append(name)
    for peers, names in together.items():
        yield (
            f"{keys.named(names)} would have another pre-shared key than {keys.named(peers)}, which this run does not "
            "change: in three minutes they would not hear each other any more (is it the mesh secret that was applied? "
            "a new one is applied to both ends in one run)"
        )
