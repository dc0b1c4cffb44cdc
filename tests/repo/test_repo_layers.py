"""Imports point down only (docs/architecture.md), and what runs on a node needs nothing but the standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "meshctl"

LAYERS = {
    "errors": 0, "data_files": 0, "model": 0,
    "core": 1,
    "inventory": 2, "policy": 2, "render": 2, "reports": 2, "facts": 2, "ops": 2,
    "deploy": 3, "agent": 3, "lab": 3,
    "cli": 4, "__main__": 5,
}
# What travels to a node inside the applier's zipapp, or is shared with it.
NODE_SIDE = ("errors", "model", "core", "agent")
# `sys.stdlib_module_names` is that of the running Python; these belong to another one's.
STANDARD_LIBRARY = sys.stdlib_module_names | {"_sha2", "_sha256"}


def layer_name(module: str) -> str:
    """`meshctl.core.diff` -> `core`; the package itself (`meshctl`, which holds the version) -> ``."""
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module that the file imports, at whatever depth."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    parent = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parent.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (base, node.module or "")))
            if source == "meshctl":  # `from meshctl import lab` imports the layer, not the package alone
                yield from ((node.lineno, f"meshctl.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, source


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_every_module_stands_in_a_layer() -> None:
    names = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in modules()} - {"__init__"}
    assert names <= set(LAYERS), "a new folder needs a layer, here and in docs/architecture.md"


def test_imports_point_down_only() -> None:
    upward = []
    for path in modules():
        mine = LAYERS.get(path.relative_to(PACKAGE).with_suffix("").parts[0], 0)
        for line, name in imports_of(path):
            theirs = LAYERS.get(layer_name(name)) if name.startswith("meshctl.") else None
            if theirs is not None and theirs > mine:
                upward.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not upward


def test_code_of_the_node_side_imports_the_standard_library_and_its_own_kind_only() -> None:
    foreign = []
    for path in modules():
        if path.relative_to(PACKAGE).with_suffix("").parts[0] not in NODE_SIDE:
            continue
        for line, name in imports_of(path):
            ours = name.startswith("meshctl.") and (layer_name(name) in NODE_SIDE or name == "meshctl.__version__")
            if not ours and name.partition(".")[0] not in STANDARD_LIBRARY:
                foreign.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not foreign


@pytest.mark.parametrize("layer", NODE_SIDE)
def test_importing_all_of_a_node_side_layer_loads_no_third_party_module(layer: str) -> None:
    below = [p for p in modules() if p.relative_to(PACKAGE).with_suffix("").parts[0] == layer]
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in below]
    names = [name for name in names if not name.endswith("__main__")]
    # -S: no site-packages, so that a third-party import fails at once; -I: nor anything of this environment.
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {', '.join(names)}\n"
        "print(*sorted({n.partition('.')[0] for n in sys.modules} - sys.stdlib_module_names))\n"
        f"print(*sorted(n for n in sys.modules if n.startswith('meshctl.') and n.split('.')[1] not in {NODE_SIDE!r}))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    roots, others = done.stdout.split("\n")[:2]
    assert set(roots.split()) <= {"__main__", "meshctl"}
    assert others == ""


@pytest.mark.parametrize("command", ["apply", "revert", "probe"])
def test_what_an_apply_starts_on_a_node_loads_nothing_of_the_paths(command: str) -> None:
    """It starts some times on each host of a run: that would double what a start takes."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport meshctl.agent.{command}\n"
        "print(*sorted(n for n in sys.modules if n.startswith('meshctl.core.agent.') and n.count('.') == 3))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"meshctl.core.agent.address"}
