"""A real miniupnpd on a router: UPnP IGD, NAT-PMP and PCP."""

from __future__ import annotations

import socket
import time
import uuid

from meshctl.lab import procs
from meshctl.lab.blueprint import LAN_BRIDGE, WAN, Router
from meshctl.lab.names import LabError, netns, netns_path, state_dir
from meshctl.lab.nat import TABLE, UPNP_CHAINS
from meshctl.lab.netns import within

NAT_PMP_PORT = 5351
# miniupnpd answers after some 20 ms; five seconds are for a machine that is busy booting hosts.
RETRY_S = 0.02
ATTEMPTS = 250


def running(lab: str, router: str) -> bool:
    """Whether the router has its miniupnpd."""
    return bool(procs.marked(lab, router))


def start(lab: str, router: Router) -> None:
    """Start the daemon and wait until it listens."""
    folder = state_dir(lab) / "upnp"
    folder.mkdir(exist_ok=True)
    config = folder / f"{router.name}.conf"
    config.write_text(_config(lab, router))
    log = folder / f"{router.name}.log"
    words = ["ip", "netns", "exec", netns(lab, router.name), "miniupnpd", "-d", "-f", str(config)]
    pid_file = folder / f"{router.name}.pid"
    pid_file.unlink(missing_ok=True)  # of one that was killed
    words += ["-P", str(pid_file)]
    procs.spawn(lab, router.name, words, log)
    address = router.lan[0].partition("/")[0]
    if not within(netns_path(lab, router.name), lambda: _answers(address)):
        said = log.read_text(errors="replace").splitlines()[-5:]
        raise LabError("\n".join(["miniupnpd did not start:", *said]), where=router.name, hint=f"all of it is in {log}")


def _answers(address: str) -> bool:
    """Whether NAT-PMP answers (RFC 6886 section 3.2), asked again until it does as the RFC has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect((address, NAT_PMP_PORT))
        asker.settimeout(RETRY_S)
        for _ in range(ATTEMPTS):
            try:
                asker.send(b"\0\0")
                asker.recv(64)
            except ConnectionRefusedError:
                # Nobody listens yet, and nothing tells us when: wait for the next attempt.
                time.sleep(RETRY_S)
            except TimeoutError:
                continue
            else:
                return True
    return False


def stop(lab: str, router: str) -> None:
    """End the daemon; its mappings are in the router's ruleset and go with that."""
    procs.kill(procs.marked(lab, router))


def _config(lab: str, router: Router) -> str:
    forward, prerouting, postrouting = UPNP_CHAINS
    lan = router.lan[0]
    return f"""\
ext_ifname={WAN}
listening_ip={LAN_BRIDGE}
enable_upnp=yes
enable_natpmp=yes
secure_mode=yes
system_uptime=yes
uuid={uuid.uuid5(uuid.NAMESPACE_DNS, netns(lab, router.name))}
upnp_table_name={TABLE}
upnp_nat_table_name={TABLE}
upnp_forward_chain={forward}
upnp_nat_chain={prerouting}
upnp_nat_postrouting_chain={postrouting}
allow 1024-65535 {lan} 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""
