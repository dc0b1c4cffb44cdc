"""The documents say what is so: links, commands, the inventory of the README, nothing of one person's machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from cli_reference import commands
from doc_links import anchors, broken, documents

from meshctl.cli import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = {".md", ".py", ".toml", ".yml", ".yaml", ".json", ".j2", ".txt", ".sh", ".nft", ".conf", ".service", ""}
# Paths of one machine: somebody's home or working folder, a build tree, a wheel cache.
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home/[a-z]|root/\.(?:pyenv|cache|local)|work/|workspace/|Users/|opt/(?:wheels|pypi))"
)


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_every_link_in_the_documents_leads_somewhere() -> None:
    assert not list(broken(ROOT))


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Top one\n[a](docs/a.md) [b](docs/b.md#two) [c](#top-one) [d](docs/a.md#x)\n")
    (tmp_path / "docs" / "a.md").write_text("# A\n[back](../README.md#top-one) [out](https://example.net/x)\n")
    assert list(broken(tmp_path)) == ["README.md: docs/b.md#two", "README.md: docs/a.md#x"]


def test_headings_become_the_anchors_that_github_makes() -> None:
    assert anchors("# Plan, and `apply`\n## A/Z\n```\n# no\n```\n") == {"plan-and-apply", "az"}


def meshctl_calls() -> list[tuple[str, tuple[str, ...]]]:
    """Every `meshctl word …` that a document shows, with the document's name."""
    calls = set()
    for document in documents(ROOT):
        for words in re.findall(r"\bmeshctl((?: [a-z][a-z-]*)+)", "\n".join(code_of(document.read_text("utf-8")))):
            calls.add((document.relative_to(ROOT).as_posix(), tuple(words.split())))
    return sorted(calls)


def code_of(text: str) -> list[str]:
    """Code in a Markdown text: spans, fenced blocks and indented blocks."""
    fences = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*fences, *re.findall(r"^ {4}(.*)$", rest, re.MULTILINE), *re.findall(r"`([^`\n]+)`", rest)]


def test_every_command_that_the_readme_shows_exists() -> None:
    known = {words[1:] for words, _ in commands(cli, ("meshctl",))}
    shown = [words for document, words in meshctl_calls() if document == "README.md"]
    assert shown
    for words in shown:
        longest = max((words[:n] for n in range(len(words) + 1) if words[:n] in known), key=len)
        assert longest, f"no command {' '.join(words)}"


def test_the_readme_lists_every_command() -> None:
    table = {match.split()[0] for match in re.findall(r"^\| `meshctl ([^`]+)` \|", README, re.MULTILINE)}
    assert table == {words[1] for words, _ in commands(cli, ("meshctl",)) if len(words) == 2}


def test_every_make_target_that_the_documents_show_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in documents(ROOT):
        for target in re.findall(r"^make ([a-z-]+)", "\n".join(code_of(document.read_text("utf-8"))), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document.name}: make {target}"


def readme_inventory() -> str:
    block = re.search(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


def test_the_inventory_in_the_readme_is_short() -> None:
    lines = [line for line in readme_inventory().splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 30


def test_the_inventory_in_the_readme_is_valid(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text(readme_inventory(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "meshctl", "validate", "-o", "json", str(tmp_path / "inventory.yml")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["valid"] is True


def test_no_file_names_a_path_of_one_machine() -> None:
    findings = []
    for path in tracked():
        if path.suffix not in TEXT or path.samefile(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE_PATH.search(line):
                findings.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not findings


def test_every_page_of_the_documents_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if ":" not in target:
                waiting.append((page.parent / target).resolve())
    assert {p for p in documents(ROOT) if p.parent.name == "docs"} <= seen
