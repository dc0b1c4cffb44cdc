"""Markdown for a comment on a pull request: one line that says it all, then a section to open for each part.

All that comes from an inventory or a host stands in `<code>` or in a fence that it cannot close: there GitHub and
GitLab take nothing for HTML, a link, a mention or a command.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from meshctl.inventory.report import printable, summary
from meshctl.reports.report import Report, in_repository

# GitHub takes 65,536 characters. Counted in UTF-8, so that it holds however characters are counted, and with room for
# a line that a workflow puts before it.
SIZE_MAX_BYTES = 64_000
# What remains of a long text in a place where there is no second line, in characters.
_SHORT = 200


@dataclass(frozen=True)
class Section:
    """What is folded: `title` and, in words of our own, `about` are shown; `text` is preformatted."""

    title: str
    about: str
    text: str


def write(report: Report) -> str:
    """Findings, a section for each file."""
    report = report.placed()
    files: dict[str, list[str]] = {}
    for d in report.findings:
        text = f"{d.line}:{d.column}: {d.severity}[{d.code}]: {d.message}"
        files.setdefault(d.file, []).append(f"{text}\n    {d.hint}" if d.hint else text)
    sections = [Section(file, counted(len(lines), "finding"), "\n".join(lines)) for file, lines in files.items()]
    failed = sum(bool(case.failure) for case in report.cases)
    headline = f"{failed} of {len(report.cases)} failed" if report.command == "test" else summary(report.findings)
    return comment(report.command, report.inventory, headline, sections, f"meshctl {report.command}")


def comment(command: str, inventory: str, headline: str, sections: Sequence[Section], in_full: str) -> str:
    """The whole comment, of SIZE_MAX_BYTES at most. Sections that do not fit are left out whole, and counted.

    `headline` is in words of our own; `in_full` is the command that shows what was left out. The first line is a
    marker, the same for each run of a command with an inventory, by which a later run finds its comment to replace.
    """
    place = in_repository(inventory)
    marker = f"<!-- meshctl {command} {quote(os.fsencode(place))[-_SHORT:]} -->"
    head = f"{marker}\n**meshctl {command}** {_code(place)}: {headline}\n"
    room = SIZE_MAX_BYTES - _size(head) - _size(_left_out(len(sections), in_full))
    parts = []
    for section in sections:
        part = _folded(section)
        if _size(part) <= room:
            parts.append(part)
            room -= _size(part)
    left = len(sections) - len(parts)
    return head + "".join(parts) + (_left_out(left, in_full) if left else "")


def counted(number: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _folded(section: Section) -> str:
    body = "\n".join(printable(line.rstrip("\r").expandtabs(4)) for line in section.text.split("\n"))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", body)), default=0))
    summary_ = f"<summary>{_code(section.title)}: {section.about}</summary>"
    return f"\n<details>{summary_}\n\n{fence}diff\n{body}\n{fence}\n\n</details>\n"


def _left_out(count: int, in_full: str) -> str:
    verb = "is" if count == 1 else "are"
    return f"\n{count} more {verb} too long for a comment: {_code(in_full)} shows all.\n"


def _code(text: str) -> str:
    """Text from outside. `<code>` keeps mentions and references away, entities keep Markdown and HTML away."""
    line = printable(text)
    line = line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"
    return f"<code>{re.sub(r'[^0-9A-Za-z ,()/-]', lambda found: f'&#{ord(found[0])};', line)}</code>"


def _size(text: str) -> int:
    return len(text.encode())
