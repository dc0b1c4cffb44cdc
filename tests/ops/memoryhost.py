"""The oracle: a host in memory that obeys steps in the obvious way. It knows nothing of diff or ops."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from ipaddress import ip_interface, ip_network

from meshctl.core.sysctl import proc_path
from meshctl.model.facts import FileFacts, HostFacts, InterfaceFacts, PeerFacts, UnitFacts
from meshctl.model.keys import PublicKey, Secret
from meshctl.model.ledger import Ledger
from meshctl.model.resources import NodeDoc, Sysctl
from meshctl.model.steps import Step

NO_PSK = "A" * 43 + "="


def obey(facts: HostFacts, steps: tuple[Step, ...], doc: NodeDoc) -> HostFacts:
    """The host after the steps. Fails for a command that it does not know, or that would fail on a real host."""
    for step in steps:
        facts = _one(facts, step, doc)
    return facts


def _one(facts: HostFacts, step: Step, doc: NodeDoc) -> HostFacts:
    files = dict(facts.files)
    if step.do == "write":
        digest = hashlib.sha256(step.content or b"").hexdigest()
        files[step.path] = FileFacts("file", step.mode, step.owner, step.group, digest)
    elif step.do == "mkdir":
        files[step.path] = FileFacts("directory", step.mode, step.owner, step.group)
    elif step.do == "link":
        files[step.path] = FileFacts("link", "0777", "root", "root", target=step.target)
    elif step.do == "remove":
        files.pop(step.path, None)
    elif step.do == "attrs" and step.path in files:
        files[step.path] = replace(files[step.path], mode=step.mode, owner=step.owner, group=step.group)
    elif step.do == "key":
        keys = {**facts.key_files, step.path: PublicKey(NO_PSK.replace("A", "B", 1))}
        return replace(facts, key_files=keys, files={**files, step.path: FileFacts("file", "0600", "root", "root")})
    elif step.do == "table":
        return _table(facts, step)
    elif step.do == "ledger":
        ledger = Ledger.from_json((step.content or b"").decode())
        tables = {n: replace(t, listing=t.listing or facts.tables.get(n, "")) for n, t in ledger.tables.items()}
        return replace(facts, ledger=replace(ledger, tables=tables))
    elif step.do == "endpoint":
        live, key = facts.interfaces[step.interface], PublicKey(step.peer)
        return _set(facts, replace(live, peers={**live.peers, key: replace(live.peers[key], endpoint=step.target)}))
    elif step.do == "run":
        return _run(facts, step, doc)
    return replace(facts, files=files)


def _table(facts: HostFacts, step: Step) -> HostFacts:
    tables = dict(facts.tables)
    text = (step.stdin or b"").decode()
    assert text.startswith(f"add table {step.path}\ndelete table {step.path}\n")
    if f"table {step.path} {{" in text:
        tables[step.path] = hashlib.sha256(step.stdin or b"").hexdigest()
    else:
        tables.pop(step.path, None)
    return replace(facts, tables=tables)


def _run(facts: HostFacts, step: Step, doc: NodeDoc) -> HostFacts:
    argv = step.argv
    if argv[0] == "env":
        return _apt(facts, argv)
    if argv[0] == "tee":
        named = {proc_path(r.name): r.name for r in doc.resources if isinstance(r, Sysctl)}
        named |= {proc_path(name): name for name in facts.ledger.sysctls}
        value = (step.stdin or b"").decode().strip()
        return replace(facts, sysctls={**facts.sysctls, named[argv[1]]: value})
    if argv[0] == "systemctl":
        return _systemctl(facts, argv, doc)
    if argv[:2] == ("wg", "set"):
        return _wg_set(facts, argv[2], argv[3:])
    if argv[:2] == ("wg", "addconf"):
        return _addconf(facts, argv[2], (step.stdin or b"").decode())
    if argv[0] == "ip":
        return _ip(facts, argv)
    if argv[:2] == ("wg-quick", "up"):
        return _up(facts, argv[2], doc)
    raise AssertionError(f"unknown command {argv}")


def _apt(facts: HostFacts, argv: tuple[str, ...]) -> HostFacts:
    packages = dict(facts.packages)
    if "install" in argv:
        packages |= dict.fromkeys(argv[argv.index("--") + 1 :], "1.0")
    elif "remove" in argv:
        for name in argv[argv.index("--") + 1 :]:
            del packages[name]
    return replace(facts, packages=packages)


def _systemctl(facts: HostFacts, argv: tuple[str, ...], doc: NodeDoc) -> HostFacts:
    if argv[1] == "daemon-reload":
        return facts
    verb, name = argv[1], argv[3]
    unit = facts.units.get(name, UnitFacts("loaded", "inactive", "disabled"))
    if verb in ("enable", "disable"):
        unit = replace(unit, file_state=f"{verb}d")
    else:
        unit = replace(unit, active="inactive" if verb == "stop" else "active")
    facts = replace(facts, units={**facts.units, name: unit})
    interface = name.removeprefix("wg-quick@")
    if interface != name and verb in ("start", "restart") and interface not in facts.interfaces:
        return _up(facts, interface, doc)
    if interface != name and verb == "stop":
        return _drop(facts, interface)
    return facts


def _drop(facts: HostFacts, name: str) -> HostFacts:
    return replace(facts, interfaces={k: v for k, v in facts.interfaces.items() if k != name})


def _up(facts: HostFacts, name: str, doc: NodeDoc) -> HostFacts:
    want = next(w for w in doc.interfaces() if w.interface == name)
    assert name not in facts.interfaces
    peers = {
        p.public_key: PeerFacts(p.public_key, psk, _number(p.endpoint), p.allowed_ips, keepalive_s=p.keepalive_s)
        for p, psk in zip(want.peers, want.psks, strict=True)
        if p.public_key
    }
    live = InterfaceFacts(
        name, facts.key_files[want.key_file], want.listen_port, want.fwmark, peers, want.addresses, want.routes,
        want.mtu, True,
    )
    return replace(facts, interfaces={**facts.interfaces, name: live})


def _number(endpoint: str | None) -> str | None:
    """What a configuration may set at once: no name."""
    return None if endpoint and "example" in endpoint else endpoint


def _set(facts: HostFacts, live: InterfaceFacts) -> HostFacts:
    return replace(facts, interfaces={**facts.interfaces, live.name: live})


def _wg_set(facts: HostFacts, name: str, words: tuple[str, ...]) -> HostFacts:
    live = facts.interfaces[name]
    if words[0] == "peer" and words[2] == "persistent-keepalive":
        last = dict(zip(words[1::4], words[3::4], strict=True))  # said twice for each peer: changed, then as it was
        heard = {k: p for k, p in live.peers.items() if p.endpoint or p.keepalive_s}
        assert last == {key.text: str(peer.keepalive_s or "off") for key, peer in heard.items()}
        return facts
    if words[0] == "peer":
        gone = words[1::3]
        assert words == tuple(w for key in gone for w in ("peer", key, "remove"))
        return _set(facts, replace(live, peers={k: p for k, p in live.peers.items() if k.text not in gone}))
    option, value = words
    if option == "listen-port":
        return _set(facts, replace(live, listen_port=int(value)))
    if option == "fwmark":
        return _set(facts, replace(live, fwmark=0 if value == "off" else int(value)))
    assert option == "private-key"
    return _set(facts, replace(live, public_key=facts.key_files[value]))


def _addconf(facts: HostFacts, name: str, text: str) -> HostFacts:
    live = facts.interfaces[name]
    peers = dict(live.peers)
    for stanza in text.split("[Peer]\n")[1:]:
        fields = dict(re.findall(r"^(\w+) = (.*)$", stanza, re.MULTILINE))
        key = PublicKey(fields["PublicKey"])
        peer = peers.get(key, PeerFacts(key, None, None, ()))
        allowed = tuple(fields["AllowedIPs"].split(", ")) if "AllowedIPs" in fields else ()
        for other, found in peers.items():  # a prefix has one owner
            peers[other] = replace(found, allowed_ips=tuple(a for a in found.allowed_ips if a not in allowed))
        assert _number(fields.get("Endpoint")) == fields.get("Endpoint"), "one dead name would fail all of them"
        peer = replace(peer, allowed_ips=allowed, endpoint=fields.get("Endpoint", peer.endpoint))
        if "PresharedKey" in fields:
            peer = replace(peer, psk=None if fields["PresharedKey"] == NO_PSK else Secret(fields["PresharedKey"]))
        if "PersistentKeepalive" in fields:
            peer = replace(peer, keepalive_s=int(fields["PersistentKeepalive"].replace("off", "0")))
        peers[key] = peer
    return _set(facts, replace(live, peers=peers))


def _ip(facts: HostFacts, argv: tuple[str, ...]) -> HostFacts:
    if argv[1:3] == ("link", "del"):
        return _drop(facts, argv[4])
    if argv[1:3] == ("link", "set"):
        live = facts.interfaces[argv[4]]
        return _set(facts, replace(live, up=True) if argv[5] == "up" else replace(live, mtu=int(argv[6])))
    what, verb, item, name = argv[2], argv[3], argv[4], argv[6]
    live = facts.interfaces[name]
    items = live.addresses if what == "addr" else live.routes
    if verb == "add":
        assert item not in items, "File exists"
    if verb == "del":
        assert item in items, "No such process"
        live = _without(live, what, item)
    elif item not in items:
        live = replace(live, **{"addresses" if what == "addr" else "routes": (*items, item)})
    return _set(facts, live)


def _without(live: InterfaceFacts, what: str, item: str) -> InterfaceFacts:
    if what == "route":
        return replace(live, routes=tuple(r for r in live.routes if r != item))
    left = [a for a in live.addresses if a != item]
    if ":" not in item:  # the kernel takes an IPv4 primary's secondaries with it, and with the last one all routes
        network = ip_interface(item).network
        left = [a for a in left if ip_interface(a).network != network]
        if not any(":" not in a for a in left):
            live = replace(live, routes=tuple(r for r in live.routes if ip_network(r).version == 6))
    return replace(live, addresses=tuple(left))
