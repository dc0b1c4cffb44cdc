"""GitLab's code quality report, which merge requests show beside the changed lines."""

from __future__ import annotations

import json

from meshctl.inventory.report import printable
from meshctl.reports.report import Report, fingerprints, message_of

# Of info, minor, major, critical and blocker.
_SEVERITIES = {"error": "major", "warning": "minor", "note": "info"}


def write(report: Report) -> str:
    """A JSON array of findings (docs.gitlab.com, "Code Quality report format")."""
    findings = report.placed().findings
    entries = [
        {
            "description": message_of(d),
            "check_name": d.code,
            "fingerprint": fingerprint,
            "severity": _SEVERITIES[d.severity],
            "location": {"path": printable(d.file), "lines": {"begin": d.line}},
        }
        for d, fingerprint in zip(findings, fingerprints(findings), strict=True)
    ]
    return json.dumps(entries, indent=2) + "\n"
