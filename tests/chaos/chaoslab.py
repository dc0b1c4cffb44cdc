"""The lab of `make chaos`: three hosts, a change that goes back and forth, and how one looks at what became of it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / folder) for folder in ("mesh", "agent")]

from meshlab import FIRST_ANSWER, MeshLab, await_decided  # noqa: E402
from meshstate import BOOTED, state  # noqa: E402

from meshctl.lab.names import netns, prefix  # noqa: E402

INVENTORY = """
version: 1
defaults: {ssh: {user: root}, agent: false, roles: [app], vars: {setting: 0}}
networks:
  corp: {cidr: [10.42.0.0/16], policy: open}
nodes:
  hub:  {address: 10.42.0.1, roles: [anchor], endpoint: "203.0.113.10:51820"}
  web:  {endpoint: "203.0.113.20:51820"}
  home: {address: 10.42.0.50, ssh: {host: 10.42.0.50, jump: hub}, lab: {nat: easy}}
"""
HUB = "10.42.0.1"
NODES = ("hub", "web", "home")
# What a host is, unless something of both is there.
WHOLE = ("old", "new")
_UNIT = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/cp /etc/app.conf /run/app
ExecStart=/usr/sbin/nft -f /etc/app.nft
[Install]
WantedBy=multi-user.target
"""
# A file with a service that reads it, a table and a sysctl, which are loaded at boot: all that an apply changes.
_ROLE = {
    "tasks/main.yml": """
- copy: {dest: /etc/app.conf, content: "{{ vars.setting }}\\n", mode: "0644"}
  notify: restart app
- copy:
    dest: /etc/systemd/system/app.service
    mode: "0644"
    content: "{{ vars.unit }}"
- template: {src: boot.j2, dest: /etc/app.nft, mode: "0644"}
- service: {name: app, state: started, enabled: true}
- nftables: {table: app, src: app.j2}
- template: {src: sysctl.j2, dest: /etc/sysctl.d/app.conf, mode: "0644"}
- sysctl: {name: net.ipv4.conf.all.log_martians, value: "{{ vars.setting }}"}
""",
    "handlers/main.yml": "- {name: restart app, service: {name: app, state: restarted}}\n",
    "templates/app.j2": "table inet app {\n chain c{{ vars.setting }} { type filter hook input priority 5; }\n}\n",
    "templates/sysctl.j2": "net.ipv4.conf.all.log_martians = {{ vars.setting }}\n",
    "templates/boot.j2": "table inet app\ndelete table inet app\n{% include 'app.j2' %}\n",
}  # fmt: skip
_MORE = "\ncat /run/app /proc/sys/net/ipv4/conf/all/log_martians"
# What the command line allows at least is for checks over long ways; here they are short, and windows are waited for.
_APPLY = """
import sys
from meshctl.deploy import options
options.CONFIRM_TIMEOUT_MIN_S = 1.0
from meshctl.cli import main
sys.exit(main())
"""
WINDOW_S = 6.0
# So long a controller may take at the most, with a host that answers no more.
LATEST_S = 240.0
_CUT = """table netdev cut {{
 chain in {{ type filter hook ingress device "{0}" priority 0; policy drop; }}
 chain out {{ type filter hook egress device "{0}" priority 0; policy drop; }}
}}"""
# Who was at work when the controller died is at work until it has ended.
_IDLE = "[ ! -e /run/meshctl/apply.lock ] || flock -w 60 /run/meshctl/apply.lock true || true"
# What was staged by who was killed before it changed anything goes with the next apply.
_STAGED = ".meshctl-"
_LEFT = f"find /etc /var/lib/meshctl /opt/meshctl -name '{_STAGED}*'"
_LOCKED = """
[ ! -e /run/meshctl/apply.lock ] || flock -w 60 /run/meshctl/apply.lock true || echo locked
"""
_UP = "timeout 60 systemctl is-system-running --wait || true"


class Chaos:
    """The lab, which of its two inventories its hosts have, and what they are then."""

    def __init__(self, mesh: MeshLab) -> None:
        self.mesh = mesh
        self._second = False
        self._known: dict[tuple[str, bool], list[str]] = {}

    def begin(self) -> None:
        """Both states once, without anybody who interferes."""
        self._known.clear()
        for _ in range(2):
            self.turn()
            self.mesh.apply()
            for node in NODES:
                self._known[node, self._second] = self._state(node)

    def turn(self) -> None:
        """The inventory is the other one."""
        self._second = not self._second
        self.mesh.reset()
        if self._second:
            self.mesh.edit(lambda d: d["defaults"].update(mtu=1390, vars={"setting": 1, "unit": _UNIT}))
            self.mesh.edit(lambda d: d["nodes"]["web"].update(endpoint="203.0.113.20:51999", listen_port=51999))

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
            self.mesh.sh(node, f"{_UP}; {_IDLE}")
        await_decided(self.mesh, *NODES)
        # Who has lost its session in a reboot knows no way to home; home notices when what it sends is not answered.
        self.mesh.sh("home", f"ping -q {FIRST_ANSWER} {HUB}")
        return [f"{node} stays locked" for node in NODES if self.mesh.sh(node, _LOCKED).strip()]

    def which(self, node: str) -> str:
        """`old` or `new`; else the first lines by which it is neither."""
        now = self._state(node)
        if now == self._known[node, self._second]:
            return "new"
        if now == self._known[node, not self._second]:
            return "old"
        old, new = (set(self._known[node, second]) for second in (not self._second, self._second))
        return " | ".join([*sorted(set(now) - old - new), *sorted((old & new) - set(now))][:6]) or "a mixture of both"

    def finish(self) -> list[str]:
        """The next apply; what does not become of it."""
        done = self.mesh.on_lab("apply", "-o", "json")
        if done.code:
            nodes = json.loads(done.out or "{}").get("nodes", {})
            errors = [node["error"]["message"] for node in nodes.values() if node["error"]]
            return [f"the next apply fails: {'; '.join(errors) or done.err[-300:]}"]
        found = [f"after the next apply {node} is not as wanted" for node in NODES if self.which(node) != "new"]
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
        self.mesh.sh(node, f"mkdir /run/small; mount -t tmpfs -o size=4m tmpfs /run/small; cp -a {there}/. /run/small/;"
                           f" mount --bind /run/small {there}")  # fmt: skip
        try:
            yield
        finally:
            await_decided(self.mesh, node)
            self.mesh.sh(node, f"umount {there}; rm -f /run/small/fill; rm -rf {there}/*; cp -a /run/small/. {there}/;"
                               " umount /run/small; rmdir /run/small")  # fmt: skip

    # Inside

    def _state(self, node: str) -> list[str]:
        return [line for line in state(self.mesh, node, BOOTED + _MORE) if _STAGED not in line]

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
    """The lab, from `lab up` to `lab down`, with both states tried once."""
    for name, text in _ROLE.items():
        path = folder / "roles" / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    document = yaml.safe_load(INVENTORY)
    document["defaults"]["vars"]["unit"] = _UNIT
    mesh = MeshLab(f"chaos{os.getpid()}", folder / "inventory.yml", document, copy.deepcopy(document))
    mesh.write()
    try:
        up = mesh.run("lab", "up", str(mesh.path), "--name", mesh.name, "--ssh-over-mesh")
        if up.code:
            raise SystemExit(up.err)
        chaos = Chaos(mesh)
        chaos.begin()
        yield chaos
    finally:
        mesh.run("lab", "down", "--name", mesh.name)


def _links(space: str) -> list[dict[str, object]]:
    links: list[dict[str, object]] = json.loads(_ip("-n", space, "-j", "link"))
    return links


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
