"""`policies:`, `services:` and `tests:` to rules with their selectors expanded (model.policy)."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any

from meshctl.core.traffic import ANY, PORT_PROTOCOLS, WORDS, parse_ports, union
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.selectors import Scope, Selectors
from meshctl.inventory.suggest import did_you_mean
from meshctl.model.policy import INTERNET, Limits, PolicyTest, Rule, Side, Traffic

# How long an expired rule is warned about before validation fails: a pipeline must not break on a Sunday because of a
# date that somebody wrote a year ago.
EXPIRY_GRACE = datetime.timedelta(days=14)
# `policy: open` is a rule of this name in its network; `:` keeps it apart from the rules of `policies:`.
OPEN_PREFIX = "open:"
# Words that no service may be called.
_TRAFFIC_WORDS = frozenset({*WORDS, *PORT_PROTOCOLS})
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
# Less is no bandwidth, and more no limit; nftables takes neither 0 nor more than 64 bits.
MIN_BANDWIDTH_BPS, MAX_BANDWIDTH_BPS = 1_000, 1_000_000_000_000
_BITS = {"kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}


class TrafficReader:
    """Reads lists such as `[tcp/22, postgres]`."""

    def __init__(self, data: Mapping[str, Any], findings: Findings) -> None:
        self._findings = findings
        services: Mapping[str, list[str]] = data.get("services") or {}
        for name in _TRAFFIC_WORDS.intersection(services):
            message = f"`{name}` is a word for traffic already"
            findings.error("reserved-name", ("services", name), message, "choose another name", key=True)
        self._services = {name: self._read(items, ("services", name), {}) for name, items in services.items()}

    def items(self, given: list[str], path: Path) -> tuple[tuple[str, Traffic], ...]:
        """Each item as written, and its traffic; those that mean nothing are reported and left out."""
        found = [(text, self._one(text, (*path, index), self._services)) for index, text in enumerate(given)]
        return tuple((text, traffic) for text, traffic in found if traffic is not None)

    def traffic(self, given: list[str], path: Path) -> Traffic:
        """All items together."""
        return union(interval for _, traffic in self.items(given, path) for interval in traffic)

    def _read(self, items: list[str], path: Path, services: Mapping[str, Traffic]) -> Traffic:
        found = [self._one(text, (*path, index), services) for index, text in enumerate(items)]
        return union(interval for traffic in found if traffic for interval in traffic)

    def _one(self, text: str, path: Path, services: Mapping[str, Traffic]) -> Traffic | None:
        if "/" in text:
            try:
                return (parse_ports(text),)
            except ValueError as error:
                self._findings.error("out-of-range", path, f"`{text}`: {error}")
                return None
        known = {**WORDS, **services}
        if text not in known:
            hint = f"write {text}/PORT" if text in PORT_PROTOCOLS else did_you_mean(text, known)
            self._findings.error("unknown-service", path, f"there is no service `{text}`", hint or "write tcp/PORT")
        return known.get(text)


def read_rules(data: Mapping[str, Any], scope: Scope, findings: Findings, today: datetime.date) -> tuple[Rule, ...]:
    """The rules of a document: those of open networks, then `policies:` as they are written."""
    selectors, traffic = Selectors(scope, findings), TrafficReader(data, findings)
    rules = list(_open_rules(data, scope, findings))
    first: dict[str, int] = {}
    for index, policy in enumerate(data.get("policies") or ()):
        path: Path = ("policies", index)
        before = first.setdefault(policy.get("name", ""), index)
        if before != index and "name" in policy:
            place = findings.document.position(("policies", before, "name"))
            hint = f"the first is at {place.file}:{place.line}:{place.column}; rename one"
            findings.error("duplicate-name", (*path, "name"), f"there are two policies `{policy['name']}`", hint)
        rule = _rule(policy, path, selectors, traffic, findings, today)
        if rule is not None:
            rules.append(rule)
    return tuple(rules)


def _rule(
    policy: dict[str, Any],
    path: Path,
    selectors: Selectors,
    reader: TrafficReader,
    findings: Findings,
    today: datetime.date,
) -> Rule | None:
    allowed, denied = (reader.traffic(policy.get(key, []), (*path, key)) for key in ("allow", "deny"))
    expires = _expiry(policy, path, findings, today)
    source, destination = _sides(policy, path, selectors)
    if source is None or destination is None or not (allowed or denied) or "name" not in policy:
        return None
    if INTERNET in _listed(policy["from"]):
        message = "nothing comes from the internet into the mesh but through a node's own services"
        findings.error("internet-source", (*path, "from"), message, "name `internet` in `to` alone")
        return None
    if policy.get("both_ways") and INTERNET in _listed(policy["to"]):
        message = "nothing comes from the internet into the mesh, so `both_ways` cannot hold"
        findings.error("internet-source", (*path, "both_ways"), message, "remove it")
    if denied and "limits" in policy:
        findings.error("limits-on-deny", (*path, "limits"), "what is denied cannot be limited", "remove `limits`")
    return Rule(
        name=policy["name"],
        source=source,
        destination=destination,
        traffic=denied or allowed,
        deny=bool(denied),
        priority=policy.get("priority", 0),
        both_ways=policy.get("both_ways", False),
        limits=_limits(policy.get("limits", {}), path, findings),
        expires=expires,
        owner=policy.get("owner", ""),
        reason=policy.get("reason", ""),
        position=findings.document.position(path),
    )


def _sides(item: dict[str, Any], path: Path, selectors: Selectors) -> list[Side | None]:
    """`from` and `to`; None for what is missing or unknown, which is reported elsewhere or has been."""
    return [selectors.side(item[side], (*path, side)) if side in item else None for side in ("from", "to")]


def _limits(given: Mapping[str, Any], path: Path, findings: Findings) -> Limits:
    bandwidth = given.get("bandwidth")
    bits = round(float(bandwidth[:-4]) * _BITS[bandwidth[-4:]]) if bandwidth else None
    if bits is not None and not MIN_BANDWIDTH_BPS <= bits <= MAX_BANDWIDTH_BPS:
        message = f"a bandwidth of {bandwidth} is not between 1kbit and 1000gbit"
        findings.error("out-of-range", (*path, "limits", "bandwidth"), message)
        bits = None
    return Limits(given.get("connections_per_second"), bits)


def _expiry(policy: dict[str, Any], path: Path, findings: Findings, today: datetime.date) -> datetime.date | None:
    if "expires" not in policy:
        return None
    place, text = (*path, "expires"), policy["expires"]
    try:
        # Newer Pythons take other forms of ISO 8601 too; the inventory means the same on all.
        expires = datetime.date.fromisoformat(text if _DATE.match(text) else "")
    except ValueError:
        findings.error("bad-date", place, f"`{text}` is not a date", "write YYYY-MM-DD, as in 2026-12-31")
        return None
    message = f"policy `{policy.get('name', path[-1])}` expired on {expires}"
    hint = "remove it, or give it a new date"
    if today - expires > EXPIRY_GRACE:
        findings.error("policy-expired", place, message, hint)
    elif today > expires:
        message += f" and still holds; after {expires + EXPIRY_GRACE} validation fails"
        findings.warning("policy-expired", place, message, hint)
    return expires


def read_tests(
    data: Mapping[str, Any], scope: Scope, findings: Findings, services: Mapping[str, Any]
) -> tuple[PolicyTest, ...]:
    """The assertions under `tests:`; `services` is the document (the inventory's) that names services."""
    selectors, reader = Selectors(scope, findings), TrafficReader(services, findings)
    tests = []
    for index, test in enumerate(data.get("tests") or ()):
        path: Path = ("tests", index)
        source, destination = _sides(test, path, selectors)
        can, cannot = (reader.items(test.get(key, []), (*path, key)) for key in ("can", "cannot"))
        if source is not None and destination is not None:
            label = f"{', '.join(_listed(test['from']))} -> {', '.join(_listed(test['to']))}"
            tests.append(PolicyTest(source, destination, label, can, cannot, findings.document.position(path)))
    return tuple(tests)


def _listed(selectors: str | list[str]) -> list[str]:
    return [selectors] if isinstance(selectors, str) else selectors


def _open_rules(data: Mapping[str, Any], scope: Scope, findings: Findings) -> Iterable[Rule]:
    """Everyone to everyone, to what is behind them, and out, in each network that says `policy: open`."""
    for network, nodes in scope.members.items():
        if data["networks"][network].get("policy") != "open":
            continue
        behind = {route for name in nodes for route in scope.nodes[name].routes}
        ways_out = {INTERNET} if any(scope.nodes[name].exit_node for name in nodes) else set()
        yield Rule(
            name=f"{OPEN_PREFIX}{network}",
            source=Side({network: nodes}),
            destination=Side({network: nodes | behind | ways_out}),
            traffic=ANY,
            position=findings.document.position(("networks", network, "policy")),
        )
