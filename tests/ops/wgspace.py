"""A host in miniature: a network namespace with private overlays of /etc and /var, and wireguard-go in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshctl.core.change import Change
from meshctl.core.diff import diff
from meshctl.facts import parse, request_for, script
from meshctl.model.facts import HostFacts
from meshctl.model.resources import NodeDoc
from meshctl.model.steps import Result, Transaction
from meshctl.ops import steps_for

ROOT = Path(__file__).parents[2]
APPLIER = "from meshctl.agent.main import main; raise SystemExit(main())"
SETUP = r"""set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
for dir in etc var; do
  mkdir -p "$1/$dir" "$1/$dir-work"
  mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$1/$dir,workdir=$1/$dir-work" "/$dir"
done
mount -t tmpfs tmpfs /run
ip link set lo up
echo ready
exec sleep infinity"""


class Space:
    """Runs commands inside, and the controller's three steps against it: facts, diff, apply."""

    def __init__(self, pid: int) -> None:
        self._enter = ("nsenter", "-t", str(pid), "-n", "-m")

    def sh(self, command: str, stdin: str = "") -> str:
        """A shell command's standard output; a failure is an error of the test."""
        ran = subprocess.run(
            (*self._enter, "sh", "-c", command), input=stdin, text=True, capture_output=True, check=False, timeout=60
        )
        assert ran.returncode == 0, f"{command}: {ran.stderr}{ran.stdout}"
        return ran.stdout

    def facts_text(self, doc: NodeDoc) -> str:
        """What the facts script prints here."""
        return self.sh("exec sh -s", stdin=script(request_for(doc)))

    def facts(self, doc: NodeDoc) -> HostFacts:
        """The same, parsed."""
        return parse(doc.node, self.facts_text(doc))

    def diff(self, doc: NodeDoc) -> tuple[Change, ...]:
        """What `plan` would show."""
        return diff(doc, self.facts(doc))

    def apply(self, doc: NodeDoc) -> tuple[Change, ...]:
        """One pass of the real applier over the real steps; gives the changes that it made."""
        facts = self.facts(doc)
        changes = diff(doc, facts)
        transaction = Transaction(id="t1", node=doc.node, steps=steps_for(doc, facts, changes))
        ran = subprocess.run(
            (*self._enter, sys.executable, "-c", APPLIER, "apply"),
            input=transaction.encode(), capture_output=True, check=False, timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert ran.stdout, ran.stderr.decode()
        result = Result.from_json(ran.stdout.decode())
        assert result.ok, result.failure
        return changes


@contextmanager
def space(folder: Path) -> Iterator[Space]:
    """A miniature host that is gone afterwards; every process that ran in its namespace has ended."""
    holder = subprocess.Popen(
        ("unshare", "-n", "-m", "sh", "-c", SETUP, "sh", str(folder)), stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        inside = Space(holder.pid)
        yield inside
        inside.sh("for name in $(wg show interfaces); do ip link del dev $name; done")
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
