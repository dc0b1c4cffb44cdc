"""Markdown for a comment on a pull request: one line that says it all, then a section to open for each part.

All that comes from an inventory or a host stands in `<code>` or in a fence that it cannot close: there GitHub and
GitLab take nothing for HTML, a link, a mention or a command.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from meshctl.inventory.report import printable, summary
from meshctl.reports.report import Report, in_repository

# GitHub takes 65,536 characters. Counted in UTF-8, so that it holds however characters are counted, and with room for
# a line that a workflow puts before it.
SIZE_MAX_BYTES = 64_000
# What remains of a long text in a place where there is no second line, in characters.
_SHORT = 200
# A line of what is folded is not longer, in characters: one long reason must not take the room of others.
_LINE_MAX = 1000


class Entry(NamedTuple):
    """A part that is shown whole or not at all: preformatted lines. Where room is short, lower ranks come first."""

    text: str
    rank: int = 0


@dataclass(frozen=True)
class Section:
    """What is folded: `title` and, in words of our own, `about` are shown."""

    title: str
    about: str
    entries: tuple[Entry, ...]


def write(report: Report) -> str:
    """Findings, a section for each file."""
    report = report.placed()
    files: dict[str, list[Entry]] = {}
    for d in report.findings:
        text = f"{d.line}:{d.column}: {d.severity}[{d.code}]: {d.message}"
        entry = Entry(f"{text}\n    {d.hint}" if d.hint else text, ("error", "warning", "note").index(d.severity))
        files.setdefault(d.file, []).append(entry)
    sections = [Section(file, counted(len(found), "finding"), tuple(found)) for file, found in files.items()]
    failed = sum(bool(case.failure) for case in report.cases)
    headline = f"{failed} of {len(report.cases)} failed" if report.command == "test" else summary(report.findings)
    return comment(report.command, report.inventory, headline, sections, f"meshctl {report.command}")


def comment(command: str, inventory: str, headline: str, sections: Sequence[Section], in_full: str) -> str:
    """The whole comment, of SIZE_MAX_BYTES at most. Entries that do not fit are left out, and counted.

    `headline` is in words of our own; `in_full` is the command that shows what was left out. The first line is a
    marker, the same for each run of a command with an inventory, by which a later run finds its comment to replace.
    """
    place = in_repository(inventory)
    marker = f"<!-- meshctl {command} {quote(os.fsencode(place))[-_SHORT:]} -->"
    head = f"{marker}\n**meshctl {command}** {_code(place)}: {headline}\n"
    total = sum(len(section.entries) for section in sections)
    room = SIZE_MAX_BYTES - _size(head) - _size(_left_out(total, in_full))
    bodies = [[_body(entry.text) for entry in section.entries] for section in sections]
    shown = _fitting(sections, bodies, room)
    parts = [
        _folded(section, [body[i] for i in sorted(kept)], len(body) - len(kept))
        for section, body, kept in zip(sections, bodies, shown, strict=True)
        if kept
    ]
    left = total - sum(map(len, shown))
    return head + "".join(parts) + (_left_out(left, in_full) if left else "")


def _fitting(sections: Sequence[Section], bodies: Sequence[Sequence[str]], room: int) -> list[set[int]]:
    """Which entries of each section there is room for: by rank, and in each rank from the first."""
    shown: list[set[int]] = [set() for _ in sections]
    frames = [
        _size(_folded(section, [], len(body))) + 2 * _longest_run(body)
        for section, body in zip(sections, bodies, strict=True)
    ]
    entries = [(entry.rank, s, e) for s, section in enumerate(sections) for e, entry in enumerate(section.entries)]
    for _, s, e in sorted(entries):
        size = _size(bodies[s][e]) + 1 + (0 if shown[s] else frames[s])
        if size <= room:
            room -= size
            shown[s].add(e)
    return shown


def counted(number: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _body(text: str) -> str:
    return "\n".join(_cut(printable(line.rstrip("\r").expandtabs(4))) for line in text.split("\n"))


def _cut(line: str) -> str:
    """A long line without its middle: who and what stand at its beginning, whose it is at its end."""
    return line if len(line) <= _LINE_MAX else f"{line[: _LINE_MAX * 3 // 4]} … {line[-_LINE_MAX // 4 :]}"


def _folded(section: Section, bodies: Sequence[str], left: int) -> str:
    fence = "`" * max(3, 1 + _longest_run(bodies))
    summary_ = f"<summary>{_code(section.title)}: {section.about}</summary>"
    more = f"\n{left} more not shown.\n" if left else ""
    body = "\n".join(bodies)
    return f"\n<details>{summary_}\n\n{fence}diff\n{body}\n{fence}\n{more}\n</details>\n"


def _longest_run(bodies: Sequence[str]) -> int:
    return max((len(run) for body in bodies for run in re.findall("`+", body)), default=0)


def _left_out(count: int, in_full: str) -> str:
    return f"\n{count} more did not fit in a comment: {_code(in_full)} shows all.\n"


def _code(text: str) -> str:
    """Text from outside. `<code>` keeps mentions and references away, entities keep Markdown and HTML away."""
    line = printable(text)
    line = line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"
    return f"<code>{re.sub(r'[^0-9A-Za-z ,()/-]', lambda found: f'&#{ord(found[0])};', line)}</code>"


def _size(text: str) -> int:
    return len(text.encode())
