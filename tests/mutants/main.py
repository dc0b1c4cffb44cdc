"""Mutation testing of the path machine: small changes to its modules, each of which a test should notice.

`make mutants` runs this. The changes are made by cosmic-ray's operators and by those of `table_operators`, in the
memory of a child process alone; no file is touched. Prints what survived, and each module's share of the killed.
"""

from __future__ import annotations

import ast
import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator, operator_names
from table_operators import DropElement, OtherMember, members

ROOT = Path(__file__).parents[2]
SUBJECTS = ("path", "choice", "liveness", "blockage", "history")
# Modules that are tested together with others, and by whose tests. `make mutants MUTANTS=peer` takes one of them.
TESTED_BY = {
    "liveness": ("liveness", "liveness_blocked", "handshakes"),
    "blockage": ("blockage", "liveness_blocked"),
    "peer": ("peer", "peerwork", "operators", "doubt", "network"),
    "statemachine": ("peer", "operators", "doubt"),
    "selectedpair": ("peer", "doubt", "blocked", "operators"),
    "detours": ("detours", "peer", "operators", "doubt", "dispatcher", "network"),
    "dispatcher": ("dispatcher", "network", "peer", "doubt"),
}
# The least share of each that is to be killed.
WANTED = 0.9
# The tests of one module take two seconds, those of several ten. A change that makes a loop endless is noticed by this.
PATIENCE_S = 60


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from this source instead of its file."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Of that module."""
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the source."""
        exec(compile(self.source, self.path, "exec"), module.__dict__)  # noqa: S102


@dataclass(frozen=True)
class Subject:
    """A module under test."""

    name: str

    @property
    def path(self) -> Path:
        """Its file."""
        return ROOT / "meshctl" / "core" / "agent" / f"{self.name}.py"

    @property
    def tests(self) -> list[str]:
        """The tests that are to notice its changes."""
        folder = ROOT / "tests" / "agentcore"
        return [str(folder / f"test_agentcore_{name}.py") for name in TESTED_BY.get(self.name, (self.name,))]

    def survives(self, source: str) -> bool:
        """Whether the tests pass with this source; decided in a child, for imports cannot be undone."""
        child = os.fork()
        if child == 0:
            os._exit(self._tested(source))
        return os.waitpid(child, 0)[1] == 0

    def _tested(self, source: str) -> int:
        signal.alarm(PATIENCE_S)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        found = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # and not made smaller
        hypothesis.settings.register_profile("mutants", database=None, derandomize=True, phases=found)
        hypothesis.settings.load_profile("mutants")
        sys.meta_path.insert(0, Mutated(f"meshctl.core.agent.{self.name}", self.path, source))
        try:
            return int(pytest.main(["-x", "-p", "no:cacheprovider", "--assert=plain", *self.tests]))
        except BaseException:  # whatever a change does to pytest itself
            return 1


def mutants(source: str) -> Iterator[str]:
    """Every changed source that means something else, each once."""
    enumerations = members(source)
    operators = [get_operator(name)() for name in operator_names() if not get_operator(name).arguments()]
    seen = {meaning(source)}
    for operator in [*operators, OtherMember(enumerations), DropElement()]:
        for occurrence in range(100_000):
            changed = MutationVisitor.mutate_code(source, operator, occurrence)
            if changed is None:
                break
            means = meaning(changed)
            if means is not None and means not in seen:
                seen.add(means)
                yield changed


class _Essence(ast.NodeTransformer):
    """Less what makes no difference here: annotations are never evaluated (PEP 563), and what is compared by `is`
    (enumerations, None) is the same one exactly when it is equal."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_Is(self, _: ast.Is) -> ast.AST:
        return ast.Eq()

    def visit_IsNot(self, _: ast.IsNot) -> ast.AST:
        return ast.NotEq()


def meaning(source: str) -> str | None:
    """What a module does, apart from how it is written; None when it is not Python."""
    try:
        return ast.dump(_Essence().visit(ast.parse(source)))
    except SyntaxError:
        return None


def examine(subject: Subject) -> float:
    """Try all mutants of a module, print those that survive, and return the share that was killed."""
    source = subject.path.read_text(encoding="utf-8")
    if not subject.survives(source):
        raise SystemExit(f"Error: the tests of {subject.name}.py fail without any change; run `make test` first")
    tried = survived = 0
    for changed in mutants(source):
        tried += 1
        if subject.survives(changed):
            survived += 1
            lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), lineterm="", n=0)
            print("\n".join([f"survived in {subject.name}.py:", *list(lines)[2:]]), flush=True)
    killed = tried - survived
    print(f"{subject.name}.py: {killed} of {tried} killed, {killed / tried:.1%}", flush=True)
    return killed / tried


def main(names: list[str]) -> int:
    """Examine these modules, or all; 1 when too little of one was killed."""
    return int(min([examine(Subject(name)) for name in names or SUBJECTS]) < WANTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
