"""JUnit XML, as Jenkins and GitLab read it: a suite for each file, a case for each test.

Written to the schema of Jenkins' xUnit plugin (junit-10.xsd), which has no place for lines: they stand in the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from meshctl.inventory.report import printable
from meshctl.reports.report import Case, Report


def write(report: Report) -> str:
    """The document. A run without findings or tests is one case that passed: an empty report is an error to many."""
    report = report.placed()
    cases = report.cases or (Case(f"meshctl {report.command}", report.inventory, note="nothing to report"),)
    suites: dict[str, list[Case]] = {}
    for case in cases:
        suites.setdefault(case.file, []).append(case)
    failed = sum(bool(case.failure) for case in cases)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<testsuites name={_quoted(f'meshctl {report.command}')} {_counts(len(cases), failed)}>",
    ]
    for file, members in suites.items():
        lines += _suite(report.command, file, members)
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _suite(command: str, file: str, cases: Sequence[Case]) -> list[str]:
    counts = _counts(len(cases), sum(bool(case.failure) for case in cases))
    lines = [f"  <testsuite name={_quoted(f'meshctl {command}: {file}')} file={_quoted(file)} {counts}>"]
    names = _numbered([_allowed(case.name) for case in cases])
    for case, name in zip(cases, names, strict=True):
        head = f"    <testcase classname={_quoted(file)} name={_quoted(name)}"
        inner = _inner(case)
        lines += [f"{head}>", inner, "    </testcase>"] if inner else [f"{head}/>"]
    return [*lines, "  </testsuite>"]


def _numbered(names: Iterable[str]) -> Iterator[str]:
    """Names, numbered when they are taken: of two cases of the same name GitLab shows one."""
    used: set[str] = set()
    following: dict[str, int] = {}  # where counting goes on, so that many of one name cost no more than others
    for name in names:
        own = name
        while own in used:
            following[name] = following.get(name, 1) + 1
            own = f"{name} ({following[name]})"
        used.add(own)
        yield own


def _inner(case: Case) -> str:
    place = ":".join([printable(case.file), *(str(n) for n in (case.line, case.column) if n)])
    if case.failure:
        text = f"{place}: {case.failure}"
        message = text.partition("\n")[0]
        return f"      <failure type={_quoted(case.kind)} message={_quoted(message)}>{_text(text)}</failure>"
    return f"      <system-out>{_text(f'{place}: {case.note}')}</system-out>" if case.note else ""


def _counts(tests: int, failed: int) -> str:
    return f'tests="{tests}" failures="{failed}" errors="0"'


def _text(text: str) -> str:
    return escape(_allowed(text))


def _quoted(text: str) -> str:
    return quoteattr(_allowed(text))


def _allowed(text: str) -> str:
    """Without what XML 1.0 (section 2.2) has no way to write."""
    return "\n".join(map(printable, text.split("\n")))
