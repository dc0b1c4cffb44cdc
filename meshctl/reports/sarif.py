"""SARIF 2.1.0 (OASIS), as GitHub's code scanning and editors read it."""

from __future__ import annotations

import json
import os
import re
from typing import Any
from urllib.parse import quote

from meshctl import __version__
from meshctl.errors import Diagnostic
from meshctl.reports.report import Report, fingerprints, message_of
from meshctl.reports.rules import explanation

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def write(report: Report) -> str:
    """One log of one run. Its category (`automationDetails.id`) keeps two commands and two inventories apart."""
    report = report.placed()
    codes = sorted({d.code for d in report.findings})
    results = [
        _result(d, codes.index(d.code), fingerprint)
        for d, fingerprint in zip(report.findings, fingerprints(report.findings), strict=True)
    ]
    driver = {
        "name": "meshctl",
        "version": __version__,
        "rules": [_rule(code, report.findings) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"meshctl/{report.command.replace(' ', '-')}/{_uri_path(report.inventory)}/"},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(code: str, findings: tuple[Diagnostic, ...]) -> dict[str, Any]:
    """The rule; its help is what it means and what the first finding advises."""
    first = next(d for d in findings if d.code == code)
    means = explanation(code)
    advice = f"{means} To do: {first.hint}." if first.hint else means
    return {
        "id": code,
        "shortDescription": {"text": _plain(means)},
        "help": {"text": _plain(advice)},
        "defaultConfiguration": {"level": first.severity},
    }


def _result(d: Diagnostic, index: int, fingerprint: str) -> dict[str, Any]:
    return {
        "ruleId": d.code,
        "ruleIndex": index,
        "level": d.severity,
        "message": {"text": _plain(message_of(d))},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": _artifact(d.file),
                    "region": {"startLine": d.line, "startColumn": d.column},
                }
            }
        ],
        # The one name that GitHub looks for.
        "partialFingerprints": {"primaryLocationLineHash": fingerprint},
    }


def _artifact(file: str) -> dict[str, str]:
    if file.startswith("/"):
        return {"uri": f"file://{_uri_path(file)}"}
    return {"uri": _uri_path(file), "uriBaseId": "%SRCROOT%"}


def _uri_path(file: str) -> str:
    """A path of any bytes. A colon in its first part would read as a scheme (RFC 3986, section 4.2)."""
    return quote(os.fsencode(file), safe="/")


def _plain(text: str) -> str:
    """Brackets are links in a message, and braces are placeholders (SARIF 2.1.0, sections 3.11.5 and 3.11.6)."""
    return re.sub(r"[][]", r"\\\g<0>", text).replace("{", "{{").replace("}", "}}")
