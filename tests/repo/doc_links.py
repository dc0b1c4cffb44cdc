"""Find links in the Markdown documents that lead nowhere. Run by `make lint`; relative links and anchors only."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)[^)]*\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
# A comment may hold a picture that is still to be made.
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def documents(root: Path) -> list[Path]:
    """The Markdown files that a reader may open: those of the root and of docs/."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md")])


def anchors(text: str) -> set[str]:
    """The fragment names that GitHub gives to the headings of `text`."""
    headings = re.findall(r"^#{1,6}\s+(.*?)\s*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(root: Path) -> Iterator[str]:
    """`FILE: TARGET` for each link whose file or heading does not exist."""
    for document in documents(root):
        text = COMMENT.sub("", FENCE.sub("", document.read_text(encoding="utf-8")))
        for target in LINK.findall(text):
            if re.match(r"[a-z+]+:", target):
                continue
            name, _, fragment = target.partition("#")
            place = (document.parent / name).resolve() if name else document
            found = place.exists() and place.is_relative_to(root)
            if found and fragment and place.suffix == ".md":
                found = fragment in anchors(place.read_text(encoding="utf-8"))
            if not found:
                yield f"{document.relative_to(root)}: {target}"


def main() -> int:
    """Print the broken links; 1 if there are any."""
    findings = list(broken(ROOT))
    for finding in findings:
        print(f"{finding}: this link leads nowhere", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
