"""`meshctl test`: the inventory's assertions about its policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import colour, inventory_options, named_inventory, read_inventory
from meshctl.cli.reporting import Answer, deliver, report_options
from meshctl.cli.rulings import NO_WAY, rule_fields, rule_words
from meshctl.errors import EXIT_FAILED, EXIT_OK, Diagnostic
from meshctl.inventory.report import printable
from meshctl.reports import FORMATS, Case, Report

if TYPE_CHECKING:
    from meshctl.policy.testing import Failure, Result

# Of one test that fails for many pairs, so that the others stay in sight; `-o json` has all.
_SHOWN = 10
# What a failing test is called among findings.
_CODE = "policy-test"


@click.command("test")
@inventory_options
@report_options(*FORMATS)
def command(inventory_argument: str | None, inventory_option: str | None) -> int:
    """Run the policy tests without contacting a host.

    The tests are the inventory's `tests:` and those of the *_test.yml files beside it (in its folder). Exits 1 when
    one of them fails, and names the pair, the traffic and the rule that decided.

    \b
    Examples:
      meshctl test
      meshctl test inventory/fleet
      meshctl test -i inventory.yml -o json
      meshctl test --report junit=tests.xml --report sarif=tests.sarif
    """
    from meshctl.inventory.assertions import read_assertions
    from meshctl.policy import compile_policies
    from meshctl.policy.testing import run_tests

    inventory = read_inventory(named_inventory(inventory_argument, inventory_option))
    results = run_tests(compile_policies(inventory.mesh), read_assertions(inventory))
    failed = sum(not result.passed for result in results)
    tests = {"passed": len(results) - failed, "failed": failed, "tests": [_document(result) for result in results]}

    def human() -> str:
        total = f"{len(results)} tests: {len(results) - failed} passed, {failed} failed\n"
        return "".join(map(_shown, results)) + total

    findings = tuple(_finding(result) for result in results if not result.passed)
    report = Report("test", str(inventory.path), findings, tuple(map(_case, results)))
    deliver(Answer(human, lambda: tests, report))
    if not results:
        click.echo("Warning: there are no tests; write some under `tests:` or in a *_test.yml file", err=True)
    return EXIT_FAILED if failed else EXIT_OK


def _shown(result: Result) -> str:
    place = result.test.position
    mark = colour("ok  ", "green") if result.passed else colour("FAIL", "red")
    head = f"{mark} {printable(f'{place.file}:{place.line}: {result.test.label}')}"
    return "".join(f"{line}\n" for line in (head, *(f"     {why}" for why in _why(result))))


def _why(result: Result) -> list[str]:
    """What fails, in lines; empty for a test that passed."""
    if not result.pairs:
        return ["no pair of nodes is meant; check both sides"]
    lines = [printable(_sentence(failure)) for failure in result.failures[:_SHOWN]]
    more = len(result.failures) - _SHOWN
    return [*lines, f"and {more} more; see -o json"] if more > 0 else lines


def _finding(result: Result) -> Diagnostic:
    """A test that fails as a finding about its place."""
    place, why = result.test.position, _why(result)
    more = f" (the first of {len(result.failures)} failures)" if len(result.failures) > 1 else ""
    return Diagnostic(
        _CODE, f"{result.test.label}: {why[0]}{more}", place.file, place.line, place.column,
        hint="correct the policy, or the test", text=result.test.label,
    )  # fmt: skip


def _case(result: Result) -> Case:
    place = result.test.position
    failure = "" if result.passed else "\n".join(_why(result))
    note = f"{result.pairs} pair{'' if result.pairs == 1 else 's'}"
    return Case(result.test.label, place.file, place.line, _CODE, failure, note)


def _sentence(failure: Failure) -> str:
    want, got = ("can", "denied") if failure.expected else ("cannot", "allowed")
    part = f"{want} {failure.item}: {failure.source} -> {failure.destination} {', '.join(failure.traffic)} is {got}"
    if failure.no_way:
        return f"{part}: {NO_WAY}"
    if failure.rule is None:
        return f"{part}: no policy allows it"
    return f"{part} by {rule_words(failure.rule)}"


def _document(result: Result) -> dict[str, Any]:
    place = result.test.position
    return {
        "test": result.test.label,
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "passed": result.passed,
        "pairs": result.pairs,
        "failures": [
            {
                "source": f.source,
                "destination": f.destination,
                "item": f.item,
                "traffic": list(f.traffic),
                "expected": "allowed" if f.expected else "denied",
                **rule_fields(f.rule),
            }
            for f in result.failures
        ],
    }
