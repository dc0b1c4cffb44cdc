"""The two states between which `make chaos` has its hosts go back and forth, and what of a host is compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshstate import BOOTED

NODES = ("hub", "web", "home")
# Who is, in some runs, a host that has nothing of meshctl's: the one that nobody is reached by, and that is reached
# without the mesh.
BARE = "web"
HUB = "10.42.0.1"
INVENTORY = """
version: 1
defaults: {ssh: {user: root}, agent: false, roles: [app], vars: {setting: 0}}
networks:
  corp: {cidr: [10.42.0.0/16, "fd42:42::/48"]}
nodes:
  hub:  {address: 10.42.0.1, roles: [anchor], endpoint: "203.0.113.10:51820"}
  web:  {endpoint: "203.0.113.20:51820"}
  home: {address: 10.42.0.50, ssh: {host: 10.42.0.50, jump: hub}, lab: {nat: easy}}
policies:
  - {name: hub, from: [hub], to: [web, home], allow: [any], both_ways: true}
"""
UNIT = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/cp /etc/app.conf /run/app
ExecStart=/usr/sbin/nft -f /etc/app.nft
ExecStop=/bin/rm -f /run/app
[Install]
WantedBy=multi-user.target
"""
_MORE_UNIT = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/cp /etc/more.conf /run/more
ExecStop=/bin/rm -f /run/more
[Install]
WantedBy=multi-user.target
"""
# A file with a service that reads it, a table and a sysctl, which are loaded at boot; and a role that comes and goes,
# with a folder, a file in it, a link and a service of its own.
_ROLES = {
    "app/tasks/main.yml": """
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
    "app/handlers/main.yml": "- {name: restart app, service: {name: app, state: restarted}}\n",
    "app/templates/app.j2":
        "table inet app {\n chain c{{ vars.setting }} { type filter hook input priority 5; }\n}\n",
    "app/templates/sysctl.j2": "net.ipv4.conf.all.log_martians = {{ vars.setting }}\n",
    "app/templates/boot.j2": "table inet app\ndelete table inet app\n{% include 'app.j2' %}\n",
    "more/tasks/main.yml": """
- file: {path: /etc/more.d, state: directory, mode: "0750", group: adm}
- copy: {dest: /etc/more.d/one.conf, content: "more\\n", mode: "0640", group: adm}
- file: {path: /etc/more.conf, state: link, src: more.d/one.conf}
- copy: {dest: /etc/systemd/system/more.service, content: "{{ vars.more_unit }}", mode: "0644"}
- service: {name: more, state: started, enabled: true}
""",
}  # fmt: skip
# All that is the same after a boot. Left out:
# - where a peer is that follows what is sent to it: home is behind a NAT, and web sends from another port once it has
#   changed, which its peers find out whatever they have become themselves. The hub's endpoint never moves by itself;
# - routes that the kernel, and rules' numbers that nobody, has set;
# - tables of wg-quick's own, which it makes at a boot with a default route, and has until the interface goes;
# - of sysctls, those of single interfaces, which have what `default` had when the interface was made.
COMPARED = "{" + BOOTED + r"""} | sed '/^table ip6* wg-quick-/,/^}/d'
wg show all dump | awk 'NF == 5 {print "interface", $1, $3, $4, $5}
  NF == 9 {print "peer", $1, $2, ($4 ~ /^203\.0\.113\.10:/ ? $4 : "-"), $9}' | sort
wg show all preshared-keys | sort | sha256sum
ip -o addr show scope global | sed 's/^[0-9]*: //; s/ *valid_lft.*//; s/\\//' | sort
ip -o link | awk '{print "link", $2, $3, $5}' | sed 's/@[^ ]*//' | sort
for family in 4 6; do
  ip -o -$family route show table all | grep -v -e 'proto kernel' -e 'proto ra' -e fe80: -e ff00: \
    | sed "s/^/route $family /; s/ linkdown//" | sort
  ip -$family rule | sed "s/^[0-9]*:/rule $family/" | sort
done
cd /proc/sys/net
grep -r . ipv4/ip_forward ipv4/conf/all ipv4/conf/default ipv6/conf/all/forwarding ipv6/conf/default/forwarding
for unit in wg-quick@wg0 meshctl-firewall meshctl-agent app more; do
  echo unit $unit $(systemctl show -p ActiveState,UnitFileState --value $unit)
done
cat /run/app /run/more
"""
# Of these lines, those that a boot makes of the interface's own file.
OF_A_BOOT = re.compile(r"wg0\t|interface |peer |\d{4}$|[0-9a-f]{64}  -$|wg0 .*inet|link wg0|route .* wg0 |rule ")
# What the host's ledger names goes, as if meshctl had never been there; but not the private key, which the lock pins.
STRIP = r"""
[ -e /var/lib/meshctl/ledger.json ] || exit 0
python3 - <<'E'
import json, os, subprocess
ledger = json.load(open("/var/lib/meshctl/ledger.json"))
def run(*argv):
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
for unit, before in ledger["units"].items():
    run("systemctl", "stop", unit)
    run("systemctl", "disable", unit) if before != "enabled" else None
for name in ledger["interfaces"]:
    run("ip", "link", "delete", name)
for name in ledger["tables"]:
    run("nft", "delete", "table", *name.split())
for path in sorted(ledger["files"], reverse=True):
    try:
        os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    except OSError:
        pass
for name, value in ledger["sysctls"].items():
    with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
        file.write(value)
E
rm -rf /var/lib/meshctl /opt/meshctl /etc/systemd/system/*/meshctl-revert.service \
  /etc/systemd/system/meshctl-revert.service /run/app
systemctl daemon-reload
systemctl reset-failed
"""
# What a first apply leaves though it was undone: identity, and what looks after a host at boot.
STAYS = re.compile(r"/etc/wireguard( |$)|/etc/wireguard/wg0\.key|meshctl-revert\.service")


def write_roles(folder: Path) -> None:
    """The inventory's own, where it looks for them."""
    for name, text in _ROLES.items():
        path = folder / "roles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def change(document: dict[str, Any]) -> None:
    """The other inventory: whatever an apply can change comes, goes or is another one."""
    document["defaults"].update(mtu=1390, keepalive=20, roles=["app", "more"])
    document["defaults"]["vars"].update({"setting": 1, "more_unit": _MORE_UNIT})
    nodes: Mapping[str, dict[str, Any]] = document["nodes"]
    nodes["web"].update(
        endpoint="203.0.113.20:51999", listen_port=51999, roles=["gateway"], routes=["192.168.77.0/24", "fd00:77::/64"]
    )
    nodes["hub"].update(exit_node=True, roles=["anchor", "gateway"])
    nodes["home"].update(exit_via="hub")
    document["policies"] += [
        {"name": "pair", "from": ["web"], "to": ["home"], "allow": ["any"], "both_ways": True},
        {"name": "lan", "from": ["hub", "home"], "to": ["192.168.77.0/24", "fd00:77::/64"], "allow": ["tcp/80"]},
        {"name": "out", "from": ["home"], "to": ["internet"], "allow": ["any"]},
    ]
