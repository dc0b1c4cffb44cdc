"""What a host has, as text that can be compared: all that an apply can change."""

from __future__ import annotations

from meshlab import MeshLab

# Byte for byte; a service that has been stopped and started is the same.
_FILES = """
find /etc /usr/local /var/lib/meshctl/ledger.json -xdev -printf '%p %m %U %G %y %l\\n' | sort
find /etc /usr/local -xdev -type f -exec sha256sum {} + | sort -k 2
"""
LIVE = f"""{_FILES}
for i in $(wg show interfaces); do wg showconf $i | sort; done
ip -o link show type wireguard; ip -o link | awk '{{print $2, $3, $5}}' | sed 's/@[^ ]*//' | sort; ip -o addr | sort
ip route show table all | sort; ip -6 route show table all | sort; ip rule; ip -6 rule; nft -s list ruleset
systemctl list-units --all --plain --no-legend --type service 'wg*' 'mesh*' 'ssh*' 'app*' | awk '{{print $1, $3, $4}}'
"""
# What is the same after a boot: not the kernel's own numbers and addresses, nor what a name resolves to first.
BOOTED = f"""{_FILES}
wg show all allowed-ips | sort; wg show all listen-port | sort; cat /sys/class/net/wg*/mtu
nft list tables | sort | while read -r _ family name; do nft -s list table "$family" "$name"; done
"""


def state(mesh: MeshLab, node: str, script: str = LIVE) -> list[str]:
    """The lines that the script has there."""
    return mesh.sh(node, script, check=False).splitlines()
