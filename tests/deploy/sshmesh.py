"""A mesh of hosts behind real sshd processes, as a person has `meshctl` change it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hosts import Host, write_roles
from jsonschema import Draft202012Validator
from sshlab import SshLab

from meshctl.data_files import read_data

ROOT = Path(__file__).resolve().parents[2]


class Mesh:
    """An inventory of hosts whose roles a machine without systemd can follow."""

    def __init__(self, sshlab: SshLab, hosts: dict[str, Host]) -> None:
        self.sshlab = sshlab
        self.hosts = hosts
        self.folder = sshlab.folder / "mesh"
        write_roles(self.folder)
        self.path = self.folder / "inventory.yml"
        self.nodes: dict[str, dict[str, Any]] = {
            name: {"ssh": {"port": sshlab.servers[name].port}, "endpoint": f"192.0.2.{number}:51820"}
            for number, name in enumerate(hosts, 1)
        }
        self.motd = "hello"
        self.write()

    def write(self) -> None:
        ssh = {
            "host": "127.0.0.1", "user": "root", "key": str(self.sshlab.key), "config": "none",
            "known_hosts": str(self.sshlab.known_hosts), "connect_timeout": 5,
        }  # fmt: skip
        document = {
            "version": 1, "defaults": {"ssh": ssh, "vars": {"motd": self.motd}, "agent": False},  # there is no systemd
            "networks": {"corp": {"cidr": ["10.42.0.0/16"], "policy": "open"}}, "nodes": self.nodes,
        }  # fmt: skip
        self.path.write_text(json.dumps(document))  # JSON is YAML

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meshctl", *words], capture_output=True, text=True, check=False, cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1"}, timeout=120,
        )  # fmt: skip

    def apply(self, *words: str, code: int = 0) -> dict[str, Any]:
        return self.answer("apply", *words, code=code)

    def answer(self, command: str, *words: str, code: int = 0) -> dict[str, Any]:
        """What the command says of each node, as its schema has it."""
        done = self.run(command, "-i", str(self.path), "-o", "json", *words)
        assert done.returncode == code, done.stderr + done.stdout
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        Draft202012Validator(json.loads(read_data("schemas", f"{command}.schema.json"))).validate(document)
        nodes: dict[str, Any] = document["nodes"]
        return nodes
