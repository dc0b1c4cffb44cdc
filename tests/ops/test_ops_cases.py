"""Changes to commands as data: cases/NAME.json holds resources, facts and the steps that they lead to.

A step is one line (`run ip -4 addr …`, `write PATH 0644 root:root`); what goes in by standard input follows indented by
two spaces. Ledger steps are left out: the properties cover them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from meshdocs import peer, psk, wireguard

from meshctl.core.diff import diff
from meshctl.errors import RemoteError
from meshctl.model.facts import FileFacts, HostFacts, InterfaceFacts, PeerFacts, UnitFacts
from meshctl.model.keys import PublicKey
from meshctl.model.ledger import Ledger
from meshctl.model.resources import File, Handler, Nftables, NodeDoc, Package, Resource, Service, Sysctl
from meshctl.model.steps import Step
from meshctl.ops import steps_for

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
TYPES = {"File": File, "Nftables": Nftables, "Package": Package, "Service": Service, "Sysctl": Sysctl}


def tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}


def resource(raw: dict[str, Any]) -> Resource:
    fields = tuples(raw)
    kind = fields.pop("type")
    if kind == "WireGuard":
        peers = tuple(peer(*p) for p in fields.pop("peers", ()))
        return type(wireguard())(**{**wireguard(*peers).__dict__, **fields})
    if "content" in fields:
        fields["content"] = fields["content"].encode()
    return TYPES[kind](**fields)  # type: ignore[no-any-return]


def interface(name: str, raw: dict[str, Any]) -> InterfaceFacts:
    peers = {p.public_key: p for p in (peer(*words) for words in raw.pop("peers", ()))}
    live = {
        key: PeerFacts(key, psk(p.name), p.endpoint, p.allowed_ips, keepalive_s=p.keepalive_s)
        for key, p in peers.items()
        if key
    }
    return InterfaceFacts(name=name, peers=live, **{**tuples(raw), "public_key": PublicKey(raw["public_key"])})


def facts(raw: dict[str, Any]) -> HostFacts:
    """Overrides of a plain Debian host."""
    fields = {"os_id": "debian", "has_wg": True, "init": "systemd", "tools": ["wg", "nft", "ip", "apt-get"], **raw}
    fields["tools"] = frozenset(fields["tools"])
    fields["files"] = {p: FileFacts(**f) for p, f in raw.get("files", {}).items()}
    fields["units"] = {n: UnitFacts(*u) for n, u in raw.get("units", {}).items()}
    fields["key_files"] = {p: PublicKey(k) for p, k in raw.get("key_files", {}).items()}
    fields["interfaces"] = {n: interface(n, i) for n, i in raw.get("interfaces", {}).items()}
    empty = json.loads(Ledger().to_json())
    fields["ledger"] = Ledger.from_json(json.dumps({**empty, **raw.get("ledger", {})}))
    return HostFacts("web1", **fields)


def lines(step: Step) -> list[str]:
    words = [step.do, *step.argv, step.path, step.target, step.mode]
    words.append(f"{step.owner}:{step.group}" if step.owner else "")
    stdin = (step.stdin or b"").decode().splitlines()
    return [" ".join(word for word in words if word), *(f"  {line}" for line in stdin)]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_difference_leads_to_these_steps(path: Path) -> None:
    case = json.loads(path.read_text())
    doc = NodeDoc("web1", tuple(map(resource, case["resources"])), tuple(Handler(*h) for h in case.get("handlers", ())))
    host = facts(case["facts"])
    steps = steps_for(doc, host, diff(doc, host))
    assert [line for step in steps if step.do != "ledger" for line in lines(step)] == case["steps"]
    assert [step.do for step in steps].count("ledger") in (0, 2)


def test_packages_on_a_host_without_apt_are_refused_with_the_remedy() -> None:
    doc = NodeDoc("web1", (Package(("wireguard-tools",)),))
    host = facts({"os_id": "fedora", "tools": []})
    with pytest.raises(RemoteError, match="fedora has no apt-get; do it by hand"):
        steps_for(doc, host, diff(doc, host))


def test_units_on_a_host_without_systemd_are_refused() -> None:
    doc = NodeDoc("web1", (Service("cron", "started"),))
    host = facts({"init": "busybox"})
    with pytest.raises(RemoteError, match="PID 1 is busybox, not systemd"):
        steps_for(doc, host, diff(doc, host))


def test_keys_alone_can_be_applied_before_the_rest() -> None:
    doc = NodeDoc("web1", (wireguard(peer("web2", 2)), File("/etc/x", content=b"")))
    host = facts({})
    first = tuple(c for c in diff(doc, host) if c.kind in ("package", "key"))
    assert [line for step in steps_for(doc, host, first) for line in lines(step)] == [
        "key /etc/wireguard/wgt0.key", "attrs /etc/wireguard/wgt0.key 0600 root:root",
    ]
