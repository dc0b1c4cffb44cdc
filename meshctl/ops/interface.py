"""Steps for keys and live WireGuard interfaces. Never `wg-quick down`, `wg setconf` or `wg syncconf`: those drop
handshakes, or what the agent and others have set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshctl.core.change import Change
from meshctl.core.diff.host import is_active
from meshctl.core.diff.interface import default_pieces
from meshctl.core.diff.keys import NEXT
from meshctl.core.diff.removal import wg_quick_interface
from meshctl.core.endpoints import is_named, set_apart
from meshctl.core.networkd import NETWORKD, RELOAD_WITHOUT_HANDOVER
from meshctl.core.prefixes import DEFAULT_ROUTES, version
from meshctl.model.facts import HostFacts, InterfaceFacts
from meshctl.model.keys import Secret
from meshctl.model.resources import NodeDoc, Peer, Service, WireGuard
from meshctl.model.steps import Step

WAIT_ONLINE = "/lib/systemd/systemd-networkd-wait-online"
NETWORKD_TIMEOUT_S = 30
# 32 zero bytes stand for "no pre-shared key" (wg(8)).
NO_PSK = "A" * 43 + "="
# Where wg-quick's rules end up on a host without others: just before the main table's.
RULE_PRIORITY = 32765
SUPPRESS_PRIORITY = 32764
# As long as a resolver waits for one answer of a name server (resolv.conf(5), `timeout`). What answers later is set by
# the next apply; an operator with three dead names is not kept waiting for minutes.
NAME_TIMEOUT_S = 5.0


def key_steps(index: int, change: Change, want: WireGuard) -> Iterator[Step]:
    """The key file, its attributes, and the key of the live interface; of the next key, its birth and the switch."""
    attributes = Step("attrs", change=index, path=want.key_file, mode=want.key_mode, owner="root", group=want.key_group)
    if change.name == f"{want.interface} {NEXT}":
        if change.action == "create":
            yield Step("key", change=index, path=want.next_key_file)
        else:
            yield Step("switch", change=index, path=want.key_file, target=want.next_key_file, interface=want.interface)
            yield attributes
        return
    if change.action == "create":
        yield Step("key", change=index, path=want.key_file, interface=want.interface)
    after = set(change.after or ())
    if change.action == "create" or after & {"mode", "owner", "group"}:
        yield attributes
    if change.action == "update" and "public_key" in after:
        argv = ("wg", "set", want.interface, "private-key", want.key_file)
        yield Step("run", change=index, argv=argv)


def creation_steps(index: int, want: WireGuard, doc: NodeDoc, facts: HostFacts) -> Iterator[Step]:
    """Who brings the interface up: networkd, a unit of the document (a change of its own), or wg-quick itself."""
    if want.backend == NETWORKD:
        if any(is_active(facts.units.get(name)) for name in (NETWORKD, f"{NETWORKD}.service")):
            yield networkctl_reload(index)
        else:
            yield Step("run", change=index, argv=("systemctl", "start", "--", NETWORKD))
        wait = (WAIT_ONLINE, f"--interface={want.interface}", f"--timeout={NETWORKD_TIMEOUT_S}")
        yield Step("run", change=index, argv=wait)
    elif not any(isinstance(r, Service) and r.satisfied_by_interface == want.interface for r in doc.resources):
        yield Step("run", change=index, argv=("wg-quick", "up", want.interface))


def networkctl_reload(index: int = -1) -> Step:
    """networkd reads its files again and makes what is new."""
    return Step("run", change=index, argv=("networkctl", "reload"))


def reload_without_handover(doc: NodeDoc) -> Step:
    """A reload, unless networkd would take over a live interface (which replaces all of its peers and so drops their
    sessions) or let one go (which drops its addresses). It does both unharmed at its next start."""
    words = [word for want in doc.interfaces() for word in (want.interface, str(want.backend == NETWORKD).lower())]
    return Step("run", argv=("sh", "-s", "--", *words), stdin=RELOAD_WITHOUT_HANDOVER.encode())


def deletion_steps(index: int, name: str, changes: Sequence[Change]) -> Iterator[Step]:
    """An interface whose wg-quick unit these same changes stop has gone with the unit."""
    removed = [c for c in changes if c.kind == "unit" and c.action == "delete"]
    stopped = {wg_quick_interface(c.name) for c in removed if "state" in (c.before or {})}
    if name not in stopped:
        yield Step("run", change=index, argv=("ip", "link", "del", "dev", name))


def setting_steps(index: int, change: Change, want: WireGuard, live: InterfaceFacts) -> Iterator[Step]:
    """Fields of the interface itself."""
    after, name = change.after or {}, want.interface
    if "mtu" in after:
        yield Step("run", change=index, argv=("ip", "link", "set", "dev", name, "mtu", str(want.mtu)))
    if "up" in after:
        yield Step("run", change=index, argv=("ip", "link", "set", "dev", name, "up"))
    if "listen_port" in after:
        yield Step("run", change=index, argv=("wg", "set", name, "listen-port", str(want.listen_port)))
        yield from _announce(index, live)
    if "fwmark" in after:
        yield _fwmark(index, name, want.fwmark)


def _announce(index: int, live: InterfaceFacts) -> Iterator[Step]:
    """Turning a keepalive on sends one at once: the peers learn the new port, and a NAT maps it, now. A peer that
    roamed to the old port would otherwise send there for ever when this side has nothing to send."""
    words: list[str] = []
    for key, peer in sorted(live.peers.items()):
        before, after = ("off", str(peer.keepalive_s)) if peer.keepalive_s else ("1", "off")
        if peer.endpoint or peer.keepalive_s:
            words += [w for value in (before, after) for w in ("peer", str(key), "persistent-keepalive", value)]
    if words:
        yield Step("run", change=index, argv=("wg", "set", live.name, *words))


def peer_steps(batch: Sequence[tuple[int, Change]], want: WireGuard) -> Iterator[Step]:
    """Additions and updates in one `wg addconf`, which replaces a peer's AllowedIPs and leaves what it does not name;
    pre-shared keys go in by standard input. Endpoints that are names follow one by one, so that the others are there
    already. Peers whose key is not known yet wait for the next pass."""
    peers = {f"{want.interface} {peer.name}": (peer, psk) for peer, psk in zip(want.peers, want.psks)}
    stanzas, endpoints = [], []
    for index, change in batch:
        peer, psk = peers[change.name]
        if peer.public_key is not None and change.after != {"managed": True}:
            stanzas.append(_stanza(peer, psk, change))
            if is_named(peer.endpoint) and "endpoint" in (change.after or ()):
                endpoints.append(_endpoint(index, want.interface, peer))
    if stanzas:
        argv = ("wg", "addconf", want.interface, "/dev/stdin")
        yield Step("run", change=batch[0][0], argv=argv, stdin="\n".join(stanzas).encode())
    yield from endpoints


def named_endpoint_steps(index: int, want: WireGuard) -> Iterator[Step]:
    """What the config file of a new interface leaves out, or leaves to networkd's own time: said at once, so that the
    facts that follow show it."""
    for peer in want.peers:
        if peer.public_key and (is_named(peer.endpoint) if want.backend == NETWORKD else set_apart(peer)):
            yield _endpoint(index, want.interface, peer)


def _endpoint(index: int, interface: str, peer: Peer) -> Step:
    return Step(
        "endpoint", change=index, interface=interface, peer=str(peer.public_key), target=peer.endpoint or "",
        timeout_s=NAME_TIMEOUT_S,
    )  # fmt: skip


def _stanza(peer: Peer, psk: Secret | None, change: Change) -> str:
    fields = set(change.after or ())
    lines = ["[Peer]", f"PublicKey = {peer.public_key}"]
    if peer.allowed_ips:
        lines.append(f"AllowedIPs = {', '.join(peer.allowed_ips)}")
    if "psk" in fields:
        lines.append(f"PresharedKey = {psk.reveal() if psk else NO_PSK}")
    if "endpoint" in fields and peer.endpoint and not is_named(peer.endpoint):
        lines.append(f"Endpoint = {peer.endpoint}")
    if "keepalive_s" in fields:
        lines.append(f"PersistentKeepalive = {peer.keepalive_s or 'off'}")
    return "\n".join(lines) + "\n"


def peer_removal(first: int, interface: str, changes: Sequence[Change]) -> Step:
    """All of them in one `wg set`."""
    words = [word for change in changes for word in ("peer", str((change.before or {})["public_key"]), "remove")]
    return Step("run", change=first, argv=("wg", "set", interface, *words))


def address_steps(index: int, change: Change) -> Iterator[Step]:
    """One address; nothing for one that is only taken into the ledger."""
    interface, address = change.name.split(" ", 1)
    if change.action != "update":
        verb = "replace" if change.action == "create" else "del"
        yield _ip(index, address, "addr", verb, address, "dev", interface)


def restore_after_removal(
    index: int, want: WireGuard, live: InterfaceFacts, changes: Sequence[Change]
) -> Iterator[Step]:
    """With an IPv4 address the kernel takes its secondaries, and with the last one every route of the device, unless
    promote_secondaries is set: what is wanted is said again, and what was there and stays, others' too."""
    going = {c.name for c in changes if c.kind == "route" and c.action == "delete"}
    routes = [r for r in (*want.routes, *live.routes) if f"{want.interface} {r}" not in going]
    for address in want.addresses:
        if version(address) == 4:
            yield _ip(index, address, "addr", "replace", address, "dev", want.interface)
    for route in dict.fromkeys(routes):
        if version(route) == 4:
            yield _ip(index, route, "route", "replace", route, "dev", want.interface)
    if "4 route" in default_pieces(want):
        yield _default(index, 4, "replace", want.interface, want.fwmark)


def route_steps(index: int, change: Change) -> Iterator[Step]:
    """`add`, not `replace`: another device's route to the same prefix is not ours to take away, and the failure says
    that the two collide."""
    interface, route = change.name.split(" ", 1)
    if change.action != "update":
        verb = "add" if change.action == "create" else "del"
        yield _ip(index, route, "route", verb, route, "dev", interface)


def default_route_steps(index: int, change: Change, want: WireGuard, facts: HostFacts) -> Iterator[Step]:
    """What wg-quick does for AllowedIPs of 0.0.0.0/0 and ::/0: a table of their own for all that lacks the mark of
    WireGuard's own packets. What goes is removed first, under the old mark."""
    if change.after == {"managed": True}:
        return
    name, old_mark = want.interface, facts.interfaces[want.interface].fwmark
    have = facts.policy_routing.get(name, frozenset())
    wanted = default_pieces(want)
    kept = have & wanted if old_mark == want.fwmark else frozenset()
    for piece in sorted(have - kept, key=_piece_order, reverse=True):
        yield _piece(index, piece, "del", name, old_mark)
    if old_mark != want.fwmark:
        yield _fwmark(index, name, want.fwmark)
    for piece in sorted(wanted - kept, key=_piece_order):
        yield _piece(index, piece, "add", name, want.fwmark)


def _piece_order(piece: str) -> tuple[str, int]:
    """The rule that sends everything away comes last and goes first: the main table's routes stay in force."""
    family, what = piece.split(" ")
    return family, ("route", "suppress", "rule").index(what)


def _piece(index: int, piece: str, verb: str, interface: str, mark: int) -> Step:
    family, what = piece.split(" ")
    if what == "route":
        return _default(index, int(family), "replace" if verb == "add" else verb, interface, mark)
    words: tuple[str, ...] = ("table", "main", "suppress_prefixlength", "0")
    priority = SUPPRESS_PRIORITY
    if what == "rule":
        words, priority = ("not", "fwmark", str(mark), "table", str(mark)), RULE_PRIORITY
    if verb == "add":  # not when deleting: wg-quick lets the kernel number its rules
        words = (*words, "priority", str(priority))
    return Step("run", change=index, argv=("ip", f"-{family}", "rule", verb, *words))


def _default(index: int, family: int, verb: str, interface: str, mark: int) -> Step:
    argv = ("ip", f"-{family}", "route", verb, DEFAULT_ROUTES[family], "dev", interface, "table", str(mark))
    return Step("run", change=index, argv=argv)


def _fwmark(index: int, interface: str, mark: int) -> Step:
    return Step("run", change=index, argv=("wg", "set", interface, "fwmark", str(mark or "off")))


def _ip(index: int, prefix: str, *words: str) -> Step:
    return Step("run", change=index, argv=("ip", f"-{version(prefix)}", *words))
