"""The rule that decided, as every command about policies names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshctl.model.policy import Rule


def rule_words(rule: Rule) -> str:
    """`policy NAME (FILE:LINE)`, with whose it is and why."""
    about = "; ".join(text for text in (rule.owner, rule.reason) if text)
    return f"policy `{rule.name}` ({rule.position.file}:{rule.position.line})" + (f" [{about}]" if about else "")


def rule_fields(rule: Rule | None) -> dict[str, Any]:
    """The rule that decided, as JSON answers name it."""
    if rule is None:
        return {"rule": None, "file": None, "line": None, "owner": "", "reason": ""}
    place = rule.position
    return {
        "rule": rule.name, "file": place.file, "line": place.line, "owner": rule.owner, "reason": rule.reason,
    }  # fmt: skip
