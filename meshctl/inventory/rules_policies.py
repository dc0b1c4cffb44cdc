"""Rules about policies as a whole: those without effect, and tests that ask for the impossible (see `rules`)."""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.core.traffic import subtract, union
from meshctl.inventory.findings import Findings
from meshctl.inventory.policies import OPEN_PREFIX
from meshctl.model.mesh import Mesh
from meshctl.model.policy import INTERNET, PolicyTest, Rule, whose
from meshctl.policy import Decisions
from meshctl.policy.review import Idle, idle_rules


def check_policies(decisions: Decisions, findings: Findings) -> None:
    """Report rules that decide nothing, and contradictions among them."""
    places = [p["name"] for p in findings.document.data.get("policies") or ()]
    for idle in idle_rules(decisions):
        if not idle.rule.name.startswith(OPEN_PREFIX):
            _report(idle, ("policies", places.index(idle.rule.name)), findings)


def check_tests(mesh: Mesh, findings: Findings) -> None:
    """Report tests that contradict themselves."""
    for index, test in enumerate(mesh.tests):
        check_test(test, ("tests", index), findings)


def check_test(test: PolicyTest, path: tuple[str, int], findings: Findings) -> None:
    """Report what a test, at `path` of the document, wants both allowed and denied."""
    can = union(interval for _, traffic in test.can for interval in traffic)
    for index, (text, traffic) in enumerate(test.cannot):
        if subtract(traffic, can) != traffic:
            message = f"the test wants `{text}` both in `can` and in `cannot`"
            findings.error("contradiction", (*path, "cannot", index), message, "remove it from one")


def _report(idle: Idle, path: tuple[str, int], findings: Findings) -> None:
    name = idle.rule.name
    if not idle.by:
        findings.warning("matches-nothing", path, f"policy `{name}` matches no pair of nodes", _why_nothing(idle.rule))
        return
    opposite = idle.opposite
    if opposite:
        message = f"policy `{name}` has no effect: of the same priority, {_named(opposite)} says the opposite, "
        message += "and deny wins"
        rest = [rule for rule in idle.by if rule not in opposite]
        message += f"; {_named(rest)} decides the rest" if rest else ""
        findings.error("contradiction", path, message, "give the one that shall win a higher `priority`")
    else:
        message = f"policy `{name}` has no effect: {_named(idle.by)} decides all of it"
        findings.warning("shadowed", path, message, "remove it, or give it a higher `priority`")


def _named(rules: Iterable[Rule]) -> str:
    return ", ".join(f"`{r.name}` ({r.position.file}:{r.position.line}){whose(r.owner, r.reason)}" for r in rules)


def _why_nothing(rule: Rule) -> str:
    if any(INTERNET in subjects for subjects in rule.destination.members.values()):
        return "give its sources an `exit_via` with which they share a network"
    return "check that both sides share a network and are not one and the same node"
