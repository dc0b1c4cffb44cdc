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

_GRAVITY = ("error", "warning", "note")
# A file before its line, as messages name it: `(FILE:LINE)` or `at FILE:LINE:COLUMN`.
_PLACE = re.compile(r"(?<=\()[^()\n]+?(?=:\d+\))|(?<=\bat )[^()\n]+?(?=:\d)")
_LINE = re.compile(r" ?\([^()]*:\d+\)|:\d+")
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Case:
    """One test. `failure` is why it failed, in lines; empty: it passed. `kind` is the rule that it broke.

    `note` is told of a test that passed. Neither repeats the place: a report puts it before them.
    """

    name: str
    file: str
    line: int = 0
    kind: str = ""
    failure: str = ""
    note: str = ""
    column: int = 0


@dataclass(frozen=True)
class Report:
    """One run of one command. `inventory` is its path, the place of what has no other."""

    command: str  # `policy diff`
    inventory: str
    findings: tuple[Diagnostic, ...]
    cases: tuple[Case, ...]

    def placed(self) -> Report:
        """The same for people and machines elsewhere: paths in the repository, lines from 1, texts printable.

        The gravest findings come first, for a code host may not show all. Paths may hold any bytes still, as
        `os.fsdecode` gives them.
        """
        place = in_repository(self.inventory)
        texts = Texts({self.inventory, *(d.file for d in self.findings), *(c.file for c in self.cases)})
        findings = (
            replace(
                d,
                message=texts.placed(d.message),
                hint=texts.placed(d.hint),
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
                name=printable(texts.placed(c.name)),
                file=in_repository(c.file) if c.file else place,
                failure=texts.placed(c.failure),
                note=texts.placed(c.note),
            )
            for c in self.cases
        )
        ordered = tuple(sorted(findings, key=lambda d: _GRAVITY.index(d.severity)))
        return replace(self, inventory=place, findings=ordered, cases=cases)


class Texts:
    """Texts that name places in files, as `FILE:LINE`, for readers elsewhere. `files` are some of those files."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = frozenset(files)

    def placed(self, text: str) -> str:
        """With the paths that the files have in the repository; line breaks alone remain of control characters."""
        text = _PLACE.sub(lambda found: self._path(found[0]), text)
        return "\n".join(printable(line) for line in text.split("\n"))

    def _path(self, file: str) -> str:
        # What is no file here is in a revision, and is named by its path in the repository already.
        known = file in self._files or os.path.isfile(file)  # noqa: PTH113 - Path's raises when a name is too long
        return in_repository(file) if known else file


def case_of(finding: Diagnostic, fail_on: str = "error") -> Case:
    """A finding as a test, where all is tests. Warnings pass unless `fail_on` is `warning`, notes always."""
    text = f"{finding.severity}[{finding.code}]: {message_of(finding)}"
    failed = finding.severity in ("error", fail_on)
    return Case(
        finding.message, finding.file, finding.line, finding.code,
        text if failed else "", "" if failed else text, finding.column,
    )  # fmt: skip


def message_of(finding: Diagnostic) -> str:
    """What is wrong and what to do, in one line."""
    return f"{finding.message} ({finding.hint})" if finding.hint else finding.message


def fingerprints(findings: Iterable[Diagnostic]) -> Iterator[str]:
    """What stays of each finding while others come and go: hash of rule, file, place in the document and words.

    Neither lines nor places in lists count, nor where else a rule is that is named, so that a diff keeps its findings
    however its base is called. Equal ones are numbered in order (`HASH:1`, `HASH:2`), as GitHub's own fingerprints are.
    """
    import hashlib  # here, for most runs print words and write none

    seen: Counter[str] = Counter()
    for d in findings:
        parts = (d.code, d.file, *(_INDEX.sub("[]", _LINE.sub("", text)) for text in (d.path, d.message)))
        digest = hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()[:16]
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
