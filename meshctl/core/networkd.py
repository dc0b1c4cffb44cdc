"""What systemd-networkd is told when its files have changed: by an apply, and by its undoing."""

from __future__ import annotations

NETWORKD = "systemd-networkd"
NETWORKD_FOLDER = "/etc/systemd/network/"
# Arguments: name, "true" where networkd is wanted, for each interface. networkd names in /run what it works by.
RELOAD_WITHOUT_HANDOVER = """\
while [ $# -gt 1 ]; do
  if [ -e "/sys/class/net/$1" ]; then
    state=/run/systemd/netif/links/$(cat "/sys/class/net/$1/ifindex")
    if grep -qs "^NETWORK_FILE=/etc/systemd/network/.*-$1[.]network" "$state"; then has=true; else has=false; fi
    [ $has = "$2" ] || exit 0
  fi
  shift 2
done
exec networkctl reload
"""
