"""Turn a terminal's output (ANSI, standard input) into the README's picture: `… | record.py TITLE OUT.svg`."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

WIDTH = 110


def main() -> None:
    """Read everything, write one SVG."""
    title, out = sys.argv[1:]
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(sys.stdin.read()))
        console.save_svg(out, title=title)


if __name__ == "__main__":
    main()
