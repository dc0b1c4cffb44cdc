"""Turn a terminal's output (ANSI, standard input) into the README's picture: `… | record.py TITLE OUT.svg`."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from rich.text import Text

WIDTH = 110


def main() -> None:
    """Read everything, write one SVG."""
    title, out = sys.argv[1:]
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(sys.stdin.read()))
    console.save_svg(out, title=title)


if __name__ == "__main__":
    main()
