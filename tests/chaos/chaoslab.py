"""The lab of `make chaos`: three hosts, a change that goes back and forth, and how one looks at what became of it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / folder) for folder in ("mesh", "agent")]

from chaosround import LabError, first_round  # noqa: E402
from chaosstates import BARE, COMPARED, HUB, INVENTORY, NODES, OF_A_BOOT, STAYS, STRIP, UNIT, change, write_roles  # noqa: E402
from chaoswatch import more  # noqa: E402
from meshlab import MeshLab, await_decided  # noqa: E402
from meshstate import state  # noqa: E402

from meshctl.lab.names import netns, prefix  # noqa: E402

# What a host is, unless something of both is there that nobody wants. After the first round of an apply in waves it has
# all that is new, and nothing has gone yet: that round is confirmed by itself, and leaves the file as it is by which a
# boot brings up the interface (docs/apply-order.md).
WHOLE = (OLD, BETWEEN, BETWEEN_BOOTED, NEW) = ("old", "first round", "first round, booted", "new")
# What the command line allows at least is for checks over long ways; here they are short, and windows are waited for.
_APPLY = """
import sys
from meshctl.deploy import options
options.CONFIRM_TIMEOUT_MIN_S = 1.0
from meshctl.cli import main
sys.exit(main())
"""
WINDOW_S = 6.0
_CUT = """table netdev cut {{
 chain in {{ type filter hook ingress device "{0}" priority 0; policy drop; }}
 chain out {{ type filter hook egress device "{0}" priority 0; policy drop; }}
}}"""
# What a controller has sent before it was killed may not have begun, but begins all the same: sshd has it.
_BEGUN = "timeout 60 sh -c 'while pgrep -f \"^sshd: root|meshctl-agent-[^ ]*pyz\" > /dev/null; do sleep 0.1; done'"
# Who was at work when the controller died is at work until it has ended.
_IDLE = "[ ! -e /run/meshctl/apply.lock ] || flock -w 60 /run/meshctl/apply.lock true || true"
# What was staged by who was killed before it changed anything goes with the next apply.
_STAGED = ".meshctl-"
_LEFT = f"find /etc /var/lib/meshctl /opt/meshctl -name '{_STAGED}*'"
_LOCKED = """
[ ! -e /run/meshctl/apply.lock ] || flock -w 60 /run/meshctl/apply.lock true || echo locked
"""
_UP = "timeout 60 systemctl is-system-running --wait || true"


@dataclass(frozen=True)
class Way:
    """How a host comes to a state: `bare` from nothing of meshctl's."""

    node: str
    second: bool
    bare: bool


class Chaos:
    """The lab, which of its two inventories its hosts are to have, and what they are then. `lines`: how many an
    undisturbed apply adds to a host's journals; `seconds`: how long it takes."""

    def __init__(self, mesh: MeshLab) -> None:
        self.mesh = mesh
        self.lines: dict[Way, int] = {}
        self.seconds = 0.0
        self._second = self._is_bare = False
        self._known: dict[tuple[str, bool], list[str]] = {}
        self._between: dict[tuple[str, bool, bool], list[str]] = {}
        self._bare: list[str] = []
        self._rebooted: set[str] = set()

    def begin(self) -> None:
        """Both states by each way, without anybody who interferes. Raises LabError."""
        self._known.clear()
        self._between.clear()
        self._edit(second=False)
        if not self._bare:
            self._bare = _without_what_stays(self._state(BARE))
        self.mesh.apply()
        in_two: list[tuple[str, bool, bool]] = []
        for second, bare in ((True, True), (False, True), (True, False), (False, False)):
            self.turn(second=second, bare=bare)
            names = self._pass()
            if not names:
                raise LabError(f"nobody is changed in two rounds ({second=}, {bare=})")
            in_two += [(node, second, bare) for node in names]
        for node, second, bare in in_two:
            self._must_be_between(node, second=second, bare=bare)

    def turn(self, *, second: bool, bare: bool) -> None:
        """The inventory is to be that one; the hosts have the other, one of them perhaps nothing at all. Raises
        LabError."""
        if self._known and self._second == second:
            self._edit(second=not second)
            self.mesh.apply()
        self._edit(second=second)
        self._is_bare = bare
        self._rebooted.clear()
        if bare:
            self.mesh.sh(BARE, STRIP)
            now = _without_what_stays(self._state(BARE))
            if words := _unlike(now, self._bare):
                raise LabError(f"{BARE} still has something of meshctl's: {words}")

    def way(self, node: str) -> Way:
        """That of the apply which is about to begin."""
        return Way(node, self._second, self._is_bare and node == BARE)

    @contextmanager
    def apply(self) -> Iterator[subprocess.Popen[bytes]]:
        """The apply that is to be interrupted."""
        argv = [sys.executable, "-c", _APPLY, "apply", str(self.mesh.path), "--lab", self.mesh.name,
                "--confirm-timeout", str(WINDOW_S)]  # fmt: skip
        nothing = subprocess.DEVNULL
        with subprocess.Popen(argv, stdin=nothing, stdout=nothing, stderr=nothing, cwd=ROOT) as process:
            try:
                yield process
            finally:
                process.kill()

    def settle(self) -> list[str]:
        """Until nothing waits to be confirmed any more; what is left that should not be."""
        for node in NODES:
            self.mesh.sh(node, f"{_UP}; {_BEGUN}; {_IDLE}")
        await_decided(self.mesh, *NODES)
        return [*self._looked(), *(f"{node} stays locked" for node in NODES if self.mesh.sh(node, _LOCKED).strip())]

    def which(self, node: str) -> str:
        """One of WHOLE; else the first lines by which it is none of them."""
        now, old, new = self._state(node), self._known[node, not self._second], self._known[node, self._second]
        between = self._between[node, self._second, self._is_bare]
        if now in (between, new):
            return NEW if now == new else BETWEEN
        if self.way(node).bare:
            now, old = _without_what_stays(now), self._bare
        elif node in self._rebooted and _split(now) == (_split(between)[0], _split(old)[1]):
            return BETWEEN_BOOTED if now != old else OLD
        return OLD if now == old else _unlike(now, old, between, new)

    def finish(self) -> list[str]:
        """The next apply; what does not become of it."""
        done = self.mesh.on_lab("apply", "-o", "json")
        if done.code:
            nodes = json.loads(done.out or "{}").get("nodes", {})
            errors = [node["error"]["message"] for node in nodes.values() if node["error"]]
            return [f"the next apply fails: {'; '.join(errors) or done.err[-300:]}"]
        states = {node: _unlike(self._state(node), self._known[node, self._second]) for node in NODES}
        found = [f"after the next apply {node} is not as wanted: {words}" for node, words in states.items() if words]
        left = {node: self.mesh.sh(node, _LEFT).strip() for node in NODES}
        found += [f"after the next apply {node} still has {what}" for node, what in left.items() if what]
        return found + ([] if self.mesh.plan()["changes"] == [] else ["the next plan is not empty"])

    @contextmanager
    def start(self, node: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command on a host, killed at the end of the block."""
        words = [sys.executable, "-m", "meshctl", "lab", "exec", "--name", self.mesh.name, node, "--", *argv]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    def power_cut(self, node: str) -> None:
        """The host loses power, and has it again."""
        self._rebooted.add(node)
        self.mesh.run("lab", "reboot", "--name", self.mesh.name, "--power-cut", node)

    @contextmanager
    def unplugged(self, node: str) -> Iterator[None]:
        """The far end of the host's cable drops everything for so long: what is down loses its routes, too."""
        space, device = self._far_end(node)
        _ip("netns", "exec", space, "nft", _CUT.format(device))
        try:
            yield
        finally:
            _ip("netns", "exec", space, "nft", "delete table netdev cut")

    @contextmanager
    def small_disk(self, node: str) -> Iterator[None]:
        """meshctl's own folder has little room for so long."""
        there = "/var/lib/meshctl"
        self.mesh.sh(node, f"set -e; mkdir -p /run/small {there}; mount -t tmpfs -o size=4m tmpfs /run/small;"
                           f" cp -a {there}/. /run/small/; mount --bind /run/small {there}")  # fmt: skip
        try:
            yield
        finally:
            await_decided(self.mesh, node)
            self.mesh.sh(node, f"set -e; umount {there}; rm -f /run/small/fill; rm -rf {there}/*;"
                               f" cp -a /run/small/. {there}/; umount /run/small; rmdir /run/small")  # fmt: skip

    # Inside

    def _edit(self, *, second: bool) -> None:
        self._second = second
        self.mesh.reset()
        if second:
            self.mesh.edit(change)

    def _pass(self) -> list[str]:
        """From one state to the other with a look after the first round; who was changed in both rounds."""
        began, before = time.monotonic(), {node: self._journals(node) for node in NODES}
        first_round(self.mesh)
        self._between.update(((node, self._second, self._is_bare), self._state(node)) for node in NODES)
        after_one = {node: self._journals(node) for node in NODES}
        self.mesh.apply()
        self.seconds = time.monotonic() - began
        after = {node: self._journals(node) for node in NODES}
        for node in NODES:
            self.lines[self.way(node)] = more(after[node], before[node])
        for words in self._looked():
            raise LabError(words)
        for node in NODES:
            now = self._state(node)
            if words := _unlike(now, self._known.setdefault((node, self._second), now)):
                raise LabError(f"{node} is another one after another way to the same state: {words}")
        return [node for node in NODES if more(after_one[node], before[node]) and more(after[node], after_one[node])]

    def _must_be_between(self, node: str, *, second: bool, bare: bool) -> None:
        between, old, new = self._between[node, second, bare], self._known[node, not second], self._known[node, second]
        is_old = _without_what_stays(between) == self._bare if bare and node == BARE else between == old
        if is_old or between == new:
            which = OLD if is_old else NEW
            raise LabError(f"{node} is changed in two rounds, but is {which} after the first ({second=}, {bare=})")

    def _looked(self) -> list[str]:
        """Who does not reach the hub, old or new. Who has lost its session in a reboot knows no way to home; home
        notices when what it sends is not answered."""
        pairs = [] if self.way(BARE).bare else [BARE]
        pairs.append("home")
        silent = [node for node in pairs if not self.mesh.reaches(node, HUB)]
        return [f"{node} does not reach the hub" for node in silent]

    def _state(self, node: str) -> list[str]:
        return [line for line in state(self.mesh, node, COMPARED) if _STAGED not in line]

    def _journals(self, node: str) -> dict[str, int]:
        """Journal -> its lines."""
        said = self.mesh.sh(node, "cd /var/lib/meshctl/journal 2>/dev/null && wc -l *.jsonl || true")
        return {name: int(count) for count, name in map(str.split, said.splitlines()) if name != "total"}

    def _far_end(self, node: str) -> tuple[str, str]:
        """Namespace and name of the interface at the other end of the host's own."""
        here = netns(self.mesh.name, node)
        own = next(link for link in _links(here) if link["ifname"] == "eth0")
        for space in _ip("netns", "list").split():
            if space.startswith(prefix(self.mesh.name)) and space != here:
                for link in _links(space):
                    if (link["ifindex"], link.get("link_index")) == (own["link_index"], own["ifindex"]):
                        return space, link["ifname"]
        raise RuntimeError(f"{node} has no cable")


@contextmanager
def running(folder: Path) -> Iterator[Chaos]:
    """The lab, from `lab up` to `lab down`, with both states tried once. Raises LabError."""
    write_roles(folder)
    document = yaml.safe_load(INVENTORY)
    document["defaults"]["vars"]["unit"] = UNIT
    mesh = MeshLab(f"chaos{os.getpid()}", folder / "inventory.yml", document, copy.deepcopy(document))
    mesh.write()
    try:
        up = mesh.run("lab", "up", str(mesh.path), "--name", mesh.name, "--ssh-over-mesh")
        if up.code:
            raise LabError(up.err)
        chaos = Chaos(mesh)
        chaos.begin()
        yield chaos
    finally:
        mesh.run("lab", "down", "--name", mesh.name)


def _without_what_stays(lines: list[str]) -> list[str]:
    return [line for line in lines if not STAYS.search(line)]


def _split(lines: list[str]) -> tuple[set[str], set[str]]:
    """All else, and what a boot makes of the interface's file."""
    of_a_boot = {line for line in lines if OF_A_BOOT.match(line)}
    return set(lines) - of_a_boot, of_a_boot


def _unlike(now: list[str], *known: list[str]) -> str:
    """"" for one of those known, else the first lines by which it is not the likest of them."""
    unlike = min((set(now) ^ set(one) for one in known), key=len)
    if not unlike and now not in known:
        return "the order of lines"
    return " | ".join([("+ " if line in now else "- ") + line for line in sorted(unlike)][:8])


def _links(space: str) -> list[dict[str, object]]:
    links: list[dict[str, object]] = json.loads(_ip("-n", space, "-j", "link"))
    return links


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
