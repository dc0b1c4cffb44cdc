"""Findings and test results in the formats that pipelines read. Pure: values in, text out; commands only choose.

Each format is a module of this package whose `write` gets a whole `Report` and returns the whole document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from meshctl.reports.report import Case, Report, case_of

__all__ = ["FORMATS", "Case", "Report", "case_of", "write"]

# format -> the module whose `write(report)` makes it; imported on use.
_MODULES: Mapping[str, str] = {
    "junit": "meshctl.reports.junit",
    "sarif": "meshctl.reports.sarif",
    "github": "meshctl.reports.github",
    "gitlab": "meshctl.reports.gitlab",
    "markdown": "meshctl.reports.markdown",
}
FORMATS = tuple(_MODULES)


def write(report: Report, style: str) -> str:
    """The report in one of FORMATS."""
    writer: Callable[[Report], str] = import_module(_MODULES[style]).write
    return writer(report)
