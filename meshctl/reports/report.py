"""What every report is made of: findings (errors.Diagnostic) and tests that passed or failed."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from meshctl.errors import Diagnostic
from meshctl.inventory.report import printable


@dataclass(frozen=True)
class Case:
    """One test. `failure` is why it failed, in lines; empty: it passed. `kind` is the rule that it broke.

    `note` is told of a test that passed.
    """

    name: str
    file: str
    line: int = 0
    kind: str = ""
    failure: str = ""
    note: str = ""


@dataclass(frozen=True)
class Report:
    """One run of one command. `inventory` is its path, the place of what has no other."""

    command: str  # `policy diff`
    inventory: str
    findings: tuple[Diagnostic, ...]
    cases: tuple[Case, ...]

    def placed(self) -> Report:
        """The same for people and machines elsewhere: paths in the repository, lines from 1, nothing unprintable."""
        place = in_repository(self.inventory)
        findings = tuple(
            replace(
                d,
                message=_printable_lines(d.message),
                hint=_printable_lines(d.hint),
                path=printable(d.path),
                file=in_repository(d.file) if d.file else place,
                line=max(d.line, 1),
                column=max(d.column, 1),
            )
            for d in self.findings
        )
        cases = tuple(
            replace(
                c,
                name=printable(c.name),
                file=in_repository(c.file) if c.file else place,
                failure=_printable_lines(c.failure),
                note=_printable_lines(c.note),
            )
            for c in self.cases
        )
        return replace(self, inventory=place, findings=findings, cases=cases)


def case_of(finding: Diagnostic, fail_on: str = "error") -> Case:
    """A finding as a test, where all is tests. Warnings pass unless `fail_on` is `warning`, notes always."""
    text = f"{finding.where()}: {finding.severity}[{finding.code}]: {message_of(finding)}"
    failed = finding.severity in ("error", fail_on)
    return Case(
        finding.message, finding.file, finding.line, finding.code, text if failed else "", "" if failed else text
    )  # fmt: skip


def message_of(finding: Diagnostic) -> str:
    """What is wrong and what to do, in one line."""
    return f"{finding.message} ({finding.hint})" if finding.hint else finding.message


def fingerprints(findings: Iterable[Diagnostic]) -> Iterator[str]:
    """What stays the same of each finding while lines move: hash of rule, file, place in the document and words.

    Equal ones are numbered in order (`HASH:1`, `HASH:2`), as GitHub's own fingerprints are.
    """
    import hashlib  # here, for most runs print words and write none

    seen: Counter[str] = Counter()
    for d in findings:
        words = re.sub(r":\d+", "", d.message)  # messages name other places by their line
        digest = hashlib.sha256("\0".join((d.code, d.file, d.path, words)).encode()).hexdigest()[:16]
        seen[digest] += 1
        yield f"{digest}:{seen[digest]}"


def in_repository(file: str) -> str:
    """The file's path from the top of the Git repository that it is in, else from the current folder, with `/`.

    A file that is in neither keeps its absolute path.
    """
    path = Path(os.path.abspath(file))  # noqa: PTH100 - `resolve` would follow links out of the repository
    root = _repository(path.parent) or Path.cwd()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


@functools.cache
def _repository(folder: Path) -> Path | None:
    return next((f for f in (folder, *folder.parents) if (f / ".git").exists()), None)


def _printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))
