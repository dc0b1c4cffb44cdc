"""`meshctl test`: the inventory's assertions about its policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import colour, inventory_options, named_inventory, output_option, print_json, read_inventory
from meshctl.cli.rulings import rule_fields, rule_words
from meshctl.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from meshctl.policy.testing import Failure, Result

# Of one test that fails for many pairs, so that the others stay in sight; `-o json` has all.
_SHOWN = 10


@click.command("test")
@inventory_options
@output_option
def command(inventory_argument: str | None, inventory_option: str | None, output: str) -> int:
    """Run the policy tests without contacting a host.

    The tests are the inventory's `tests:` and those of the *_test.yml files beside it (in its folder). Exits 1 when
    one of them fails, and names the pair, the traffic and the rule that decided.

    \b
    Examples:
      meshctl test
      meshctl test inventory/fleet
      meshctl test -i inventory.yml -o json
    """
    from meshctl.inventory.assertions import read_assertions
    from meshctl.policy import compile_policies
    from meshctl.policy.testing import run_tests

    inventory = read_inventory(named_inventory(inventory_argument, inventory_option))
    results = run_tests(compile_policies(inventory.mesh), read_assertions(inventory))
    failed = sum(not result.passed for result in results)
    if output == "json":
        tests = [_document(result) for result in results]
        print_json({"passed": len(results) - failed, "failed": failed, "tests": tests})
    else:
        for result in results:
            _show(result)
        click.echo(f"{len(results)} tests: {len(results) - failed} passed, {failed} failed")
    if not results:
        click.echo("Warning: there are no tests; write some under `tests:` or in a *_test.yml file", err=True)
    return EXIT_FAILED if failed else EXIT_OK


def _show(result: Result) -> None:
    place = result.test.position
    mark = colour("ok  ", "green") if result.passed else colour("FAIL", "red")
    click.echo(f"{mark} {place.file}:{place.line}: {result.test.label}")
    if not result.pairs:
        click.echo("     no pair of nodes is meant; check both sides")
    for failure in result.failures[:_SHOWN]:
        click.echo(f"     {_sentence(failure)}")
    if len(result.failures) > _SHOWN:
        click.echo(f"     and {len(result.failures) - _SHOWN} more; see -o json")


def _sentence(failure: Failure) -> str:
    want, got = ("can", "denied") if failure.expected else ("cannot", "allowed")
    part = f"{want} {failure.item}: {failure.source} -> {failure.destination} {', '.join(failure.traffic)} is {got}"
    if failure.no_way:
        return f"{part}: there is no way, no network in common or no exit node"
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
