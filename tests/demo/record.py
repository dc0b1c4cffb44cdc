"""Turn a terminal's output (ANSI, standard input) into the README's picture: `… | record.py TITLE OUT.svg`."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 92
# rich names fonts on a CDN; a picture in a repository fetches nothing.
REMOTE_FONTS = re.compile(r"@font-face \{.*?\}\s*|<!-- Generated .*? -->\s*", re.DOTALL)


def main() -> None:
    """Read everything, write one SVG."""
    title, out = sys.argv[1:]
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(sys.stdin.read()))
    Path(out).write_text(REMOTE_FONTS.sub("", console.export_svg(title=title)))


if __name__ == "__main__":
    main()
