"""Everything that is imported may be imported by Apache-2.0 code, and NOTICE names it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
# A library may be under the LGPL if NOTICE says how it is used.
LESSER = {"paramiko"}
PERMISSIVE = re.compile(r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla)\b", re.IGNORECASE)
COPYLEFT = re.compile(r"(?<!L)\bA?GPL|(?<!Lesser )\bGeneral Public Licen[sc]e|\bAffero\b", re.IGNORECASE)


def runtime_closure() -> dict[str, Distribution]:
    """Every distribution that installing wg-meshctl brings here: its dependencies and theirs."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(line).name for line in PROJECT["dependencies"]]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def licence_of(dist: Distribution) -> str:
    """All that the metadata says: the SPDX expression, the old field's first line, the classifiers."""
    metadata = dist.metadata
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    words = [metadata.get("License-Expression") or "", (metadata.get("License") or "").split("\n")[0], *classifiers]
    return " ".join(filter(None, words))


def named_in_notice(name: str) -> bool:
    spelling = re.escape(name).replace(r"\-", "[-_]")
    return re.search(rf"^\s+{spelling}\s{{2,}}\S", NOTICE, re.MULTILINE | re.IGNORECASE) is not None


@pytest.mark.parametrize("name", sorted(runtime_closure()))
def test_a_library_that_is_installed_with_meshctl_is_permissive_or_lesser_gpl(name: str) -> None:
    licence = licence_of(runtime_closure()[name])
    if name in LESSER:
        assert "LGPL" in licence
        return
    assert PERMISSIVE.search(licence), f"{name}: {licence!r} is no licence known here"
    assert not COPYLEFT.search(licence)


@pytest.mark.parametrize("name", sorted(runtime_closure()))
def test_notice_names_every_library_that_is_installed_with_meshctl(name: str) -> None:
    assert named_in_notice(name)


@pytest.mark.parametrize("line", PROJECT["optional-dependencies"]["dev"])
def test_notice_names_every_tool_of_development(line: str) -> None:
    assert re.search(rf"\b{re.escape(Requirement(line).name)}\b", NOTICE, re.IGNORECASE)


@pytest.mark.parametrize("name", sorted(LESSER))
def test_notice_says_how_an_lgpl_library_is_used(name: str) -> None:
    assert re.search(rf"^{name} is the one library under a copyleft licence: LGPL", NOTICE, re.MULTILINE)


@pytest.mark.parametrize(
    ("licence", "refused"),
    [
        ("GPL-3.0-only", True),
        ("AGPL-3.0", True),
        ("License :: OSI Approved :: GNU General Public License v2 (GPLv2)", True),
        ("LGPL-2.1", False),
        ("GNU Lesser General Public License", False),
        ("MIT", False),
    ],
)
def test_the_pattern_for_the_gpl_knows_its_spellings(licence: str, refused: bool) -> None:
    assert bool(COPYLEFT.search(licence)) is refused


def test_the_licence_is_the_apache_licence_in_full() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text.splitlines()[1]
    assert "END OF TERMS AND CONDITIONS" in text
