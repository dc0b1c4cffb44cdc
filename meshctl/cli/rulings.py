"""The rule that decided, as every command about policies names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshctl.model.policy import whose

if TYPE_CHECKING:
    from meshctl.model.policy import Rule

# Why nothing passes where no rule was asked.
NO_WAY = "there is no way, no network in common or no exit node"


def rule_words(rule: Rule) -> str:
    """`policy NAME (FILE:LINE)`, with whose it is and why; one line, whatever the inventory says there."""
    from meshctl.inventory.report import printable

    place = f"{rule.position.file}:{rule.position.line}"
    return printable(f"policy `{rule.name}` ({place}){whose(rule.owner, rule.reason)}")


def rule_fields(rule: Rule | None) -> dict[str, Any]:
    """The rule that decided, as JSON answers name it."""
    if rule is None:
        return {"rule": None, "file": None, "line": None, "owner": "", "reason": ""}
    place = rule.position
    return {
        "rule": rule.name, "file": place.file, "line": place.line, "owner": rule.owner, "reason": rule.reason,
    }  # fmt: skip
