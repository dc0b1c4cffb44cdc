"""Nebula on the hosts of a lab: the machine's own program, as Debian packages it, and for each host a certificate, a
configuration and a unit that starts it."""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from measure import run
from paths_lab import NAME

from meshctl import lab

PROGRAM, MAKER = Path("/usr/bin/nebula"), "nebula-cert"
PORT = 4242
RANGE = ipaddress.ip_network("10.99.0.0/16")
INTERFACE = "nebula1"
UNIT = "nebula.service"
FOLDER = "/etc/nebula"
_UNIT_TEXT = f"""\
[Unit]
Description=Nebula
After=network.target
[Service]
ExecStart={PROGRAM} -config {FOLDER}/config.yml
"""
# The authority's certificate, the host's and its key, where the host has them.
_PKI = {"ca": f"{FOLDER}/ca.crt", "cert": f"{FOLDER}/host.crt", "key": f"{FOLDER}/host.key"}
_ANYTHING = [{"port": "any", "proto": "any", "host": "any"}]


def addresses(hosts: Sequence[str]) -> dict[str, str]:
    """Host -> its address inside Nebula."""
    return {host: str(RANGE[number + 1]) for number, host in enumerate(hosts)}


def config(host: str, inside: Mapping[str, str], anchors: Mapping[str, str]) -> dict[str, Any]:
    """The host's configuration: what its neighbourhood asks for, and the program's own defaults.

    `inside`: every host's address in Nebula. `anchors`: host -> its address on the internet. They are lighthouses and
    relays.
    """
    leads = host in anchors
    through = [inside[anchor] for anchor in anchors]
    return {
        "pki": _PKI,
        "static_host_map": {inside[anchor]: [f"{ip}:{PORT}"] for anchor, ip in anchors.items()},
        "lighthouse": {"am_lighthouse": True} if leads else {"am_lighthouse": False, "hosts": through},
        "relay": {"am_relay": True} if leads else {"relays": through},
        "listen": {"port": PORT},
        "punchy": {"punch": True, "respond": True},
        "tun": {"dev": INTERFACE},
        "firewall": {"outbound": _ANYTHING, "inbound": _ANYTHING},
    }


def install(hosts: Sequence[str], anchors: Mapping[str, str]) -> dict[str, str]:
    """Put Nebula on these hosts, anchors among them (`config`), without starting it. Returns `addresses`."""
    inside = addresses(hosts)
    program = PROGRAM.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        run([MAKER, "ca", "-name", "bench"], cwd=Path(folder))
        for host in hosts:
            cert, key = Path(folder, f"{host}.crt"), Path(folder, f"{host}.key")
            run(
                [MAKER, "sign", "-name", host, "-ip", f"{inside[host]}/{RANGE.prefixlen}", "-out-crt", cert,
                 "-out-key", key], cwd=Path(folder),
            )  # fmt: skip
            text = yaml.safe_dump(config(host, inside, anchors), sort_keys=False)
            put(host, str(PROGRAM), program, mode="755")
            put(host, f"{FOLDER}/config.yml", text.encode())
            put(host, _PKI["ca"], Path(folder, "ca.crt").read_bytes())
            put(host, _PKI["cert"], cert.read_bytes())
            put(host, _PKI["key"], key.read_bytes())
            put(host, f"/etc/systemd/system/{UNIT}", _UNIT_TEXT.encode())
    return inside


def put(host: str, path: str, content: bytes, *, mode: str = "600") -> None:
    """A file on a host. Raises SystemExit when it cannot be written."""
    script = f"mkdir -p $(dirname {path}) && cat >{path} && chmod {mode} {path}"
    done = lab.exec_(NAME, host, ["sh", "-c", script], content)
    if done.returncode:
        raise SystemExit(f"bench: {host}: {path}: {done.stderr.decode(errors='replace')}")


def version() -> str:
    """The program's."""
    return run([PROGRAM, "-version"]).stdout.split()[-1]
