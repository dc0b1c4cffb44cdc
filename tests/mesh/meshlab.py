"""A lab with an inventory that a test can edit, and the real command line run against it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import agentnode_pings
import yaml

from meshctl import lab
from meshctl.lab.names import netns_path

# After an unanswered handshake initiation WireGuard waits this long (REKEY_TIMEOUT of the protocol's paper).
HANDSHAKE_RETRY_S = 5
# So long it goes on by a session that its peer has lost in a reboot (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT).
DEAD_SESSION_S = 15
# ping's options: one a second until the first answer, for as long as that and two tries of a handshake take.
FIRST_ANSWER = f"-c 1 -w {DEAD_SESSION_S + 2 * HANDSHAKE_RETRY_S + 1}"
LOCK = "/run/meshctl/apply.lock"
# Stands before the real `ip` and holds the first change that it is asked for, when the new files are in place already.
WAITS = """#!/bin/sh
case "$*" in *"link set"*)
  touch /run/reached
  while [ -e /run/hold ]; do sleep 0.05; done ;;
esac
exec /usr/sbin/ip "$@"
"""


@dataclass(frozen=True)
class Run:
    """A finished command: exit code and both streams."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


@dataclass
class MeshLab:
    """One running lab and the inventory file that describes it."""

    name: str
    path: Path
    original: dict[str, Any]
    document: dict[str, Any] = field(default_factory=dict)

    def run(self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Run:
        """Run `meshctl WORDS`, as a person would, and capture it."""
        done = subprocess.run(
            [sys.executable, "-m", "meshctl", *words],
            check=False, text=True, capture_output=True, input=stdin, env={**os.environ, **(env or {})}, timeout=300,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def on_lab(self, command: str, *words: str) -> Run:
        """`meshctl COMMAND INVENTORY --lab NAME WORDS`."""
        return self.run(command, str(self.path), "--lab", self.name, *words)

    def plan(self, *words: str) -> dict[str, Any]:
        """The plan document; the command must succeed."""
        done = self.on_lab("plan", "-o", "json", *words)
        assert done.code == 0, done.err
        document: dict[str, Any] = done.json()
        return document

    def apply(self, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """Node name -> its part of the apply document; the command must end with `code`."""
        done = self.on_lab("apply", "-o", "json", *words)
        assert done.code == code, f"exit {done.code}\n{done.out}\n{done.err}"
        nodes: dict[str, dict[str, Any]] = done.json()["nodes"]
        return nodes

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the inventory file."""
        change(self.document)
        self.write()

    def reset(self) -> None:
        """Put the inventory back as it was when the lab came up."""
        self.document = copy.deepcopy(self.original)
        self.write()

    def write(self) -> None:
        """Write the current document to the inventory file."""
        self.path.write_text(yaml.safe_dump(self.document, sort_keys=False))

    def sh(self, node: str, script: str, *, check: bool = True) -> str:
        """Standard output of a shell script on a lab host."""
        done = lab.exec_(self.name, node, ["sh", "-c", script], input=b"")
        text: str = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"{node}: {script!r} ended with {done.returncode}: {text}"
        return text

    @contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """`meshctl apply` in the background, as `on_lab`, killed at the end of the block if it still runs."""
        argv = [sys.executable, "-m", "meshctl", "apply", str(self.path), "--lab", self.name, *words]
        env = {**os.environ, "CI": "true"}
        with subprocess.Popen(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
            try:
                yield process
            finally:
                process.kill()

    def from_inside(self, node: str, *words: str) -> Run:
        """`meshctl WORDS` with this machine's files and the network of a lab host: SSH goes as in production."""
        done = subprocess.run(
            ["nsenter", f"--net={netns_path(self.name, node)}", "--", sys.executable, "-m", "meshctl", *words],
            check=False, text=True, capture_output=True, timeout=300,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def address(self, node: str, family: int = 4, network: str = "corp") -> str:
        """The node's mesh address, from the lab's lock."""
        lock = yaml.safe_load(lab.lock_path(self.name).read_text())
        addresses: list[str] = lock["nodes"][node][network]["addresses"]
        return next(a for a in addresses if (":" in a) == (family == 6))

    def reaches(self, source: str, address: str) -> bool:
        """Whether a ping from `source` is answered, as soon as it is (FIRST_ANSWER)."""
        return self._answers(source, f"{FIRST_ANSWER} {address}")

    def is_denied(self, source: str, address: str) -> bool:
        """Whether pings from `source` stay without an answer."""
        return not self._answers(source, f"-c 3 -i 0.3 -W 1 {address}")

    def _answers(self, source: str, ping: str) -> bool:
        return self.sh(source, f"ping -n -q {ping} >/dev/null 2>&1 && echo yes || true").strip() == "yes"

    @contextmanager
    def lossless(self, *pairs: tuple[str, str]) -> Iterator[None]:
        """Ping a hundred times a second between the pairs of nodes; nothing may speak against their paths."""
        with ExitStack() as stack:
            pings = [stack.enter_context(self._ping(source, self.address(to))) for source, to in pairs]
            yield
            for (source, to), ping in zip(pairs, pings, strict=True):
                said, _ = ping.communicate(timeout=30)
                assert agentnode_pings.sent(said) > 50, f"{source} -> {to}: {said}"
                complaint = agentnode_pings.complaint(said)
                assert complaint == "", f"{source} -> {to}: {complaint}"

    @contextmanager
    def _ping(self, source: str, address: str) -> Iterator[subprocess.Popen[str]]:
        # Says "up" after the first reply, then pings until its standard input is closed.
        # It writes to a file meanwhile, for nobody reads a pipe.
        script = (
            f"told=$(mktemp); ping -n -q {FIRST_ANSWER} {address} >/dev/null && echo up || exit 1;"
            f" ping -n -i {agentnode_pings.INTERVAL_S} {address} >$told & pid=$!; read _;"
            f" timeout {agentnode_pings.LAST_S} tail -n 0 -f $told | grep -q -m 1 ttl;"
            " kill -INT $pid; wait $pid; cat $told; rm $told"
        )
        words = [sys.executable, "-m", "meshctl", "lab", "exec", "--name", self.name, source, "--", "sh", "-c", script]
        with subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "up\n", f"{source} does not reach {address}"
                yield process
            finally:
                process.kill()

    def handshakes(self, node: str) -> dict[str, int]:
        """Public key -> Unix time of the latest handshake on wg0."""
        rows = self.sh(node, "wg show wg0 latest-handshakes").split("\n")
        return {key: int(when) for key, when in (row.split("\t") for row in rows if row)}


@contextmanager
def held(mesh: MeshLab, node: str) -> Iterator[None]:
    """The applier of `node` stops between its files and its interface, until the end of the block."""
    mesh.edit(lambda d: d["defaults"].update(mtu=1390))
    mesh.sh(node, f"touch /run/hold; cat > /usr/local/bin/ip <<'EOF'\n{WAITS}\nEOF\nchmod +x /usr/local/bin/ip")
    try:
        yield
    finally:
        mesh.sh(node, "rm -f /run/hold /run/reached /usr/local/bin/ip")


def await_held(mesh: MeshLab, node: str) -> None:
    """Until the applier stands still."""
    mesh.sh(node, "timeout 60 sh -c 'while [ ! -e /run/reached ]; do sleep 0.05; done'")


def await_end(mesh: MeshLab, node: str) -> None:
    """Until no applier runs there any more."""
    mesh.sh(node, f"timeout 60 flock {LOCK} true")


def read_until(stream: IO[str] | None, text: str) -> str:
    """The lines up to the one with `text`."""
    assert stream is not None
    seen = ""
    for line in stream:
        seen += line
        if text in line:
            break
    assert text in seen, seen
    return seen


def await_decided(mesh: MeshLab, *nodes: str) -> None:
    """Until nothing waits to be confirmed there, for at most a window of the shortest kind and as long again."""
    for node in nodes:
        mesh.sh(node, "timeout 60 sh -c 'while [ -e /var/lib/meshctl/pending.json ]; do sleep 0.1; done'")


def changes_of(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[str, str, str]]]:
    """Node -> (kind, action, name) of each change, for nodes that changed."""
    return {
        name: [(c["kind"], c["action"], c["name"]) for c in node["changes"]]
        for name, node in nodes.items()
        if node["changes"]
    }
