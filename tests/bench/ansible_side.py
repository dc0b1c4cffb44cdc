"""The same files by Ansible, as somebody who cares for speed would write it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from meshctl.model.resources import File, Service

if TYPE_CHECKING:
    from bench_apply import Bench

FORKS = 20
CONFIG = """[defaults]
forks = {forks}
gathering = explicit
host_key_checking = true
interpreter_python = /usr/bin/python3
[ssh_connection]
pipelining = true
control_path_dir = {folder}/cp
ssh_args = -F none -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={known_hosts}
"""


def prepare(bench: Bench, binaries: Path, key: Path, known_hosts: Path) -> Callable[[], float]:
    """Write playbook, inventory and files; gives the function that runs them once."""
    folder = bench.folder / "ansible"
    (folder / "cp").mkdir(parents=True, exist_ok=True)
    config = CONFIG.format(forks=FORKS, folder=folder, known_hosts=known_hosts)
    (folder / "ansible.cfg").write_text(config, encoding="utf-8")
    hosts = {
        name: {"ansible_host": address, "ansible_user": "root", "ansible_ssh_private_key_file": str(key)}
        for name, address in bench.addresses.items()
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}), encoding="utf-8")
    write_files(bench, folder)
    (folder / "play.yml").write_text(yaml.safe_dump([play(bench, folder)], sort_keys=False), encoding="utf-8")
    words: list[str | Path] = [binaries / "ansible-playbook", "-i", folder / "hosts.yml", folder / "play.yml"]
    environment = {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "PATH": f"{binaries}:{os.environ['PATH']}"}
    return lambda: bench.inside(words, environment)


def write_files(bench: Bench, folder: Path) -> None:
    """Every node's files under `folder/files/NODE/…`."""
    for node, document in bench.documents.items():
        for resource in document.resources:
            if isinstance(resource, File) and resource.content is not None:
                path = folder / "files" / node / resource.path.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(resource.content)


def play(bench: Bench, folder: Path) -> dict[str, object]:
    """One task a resource. All nodes have the same paths; only the contents differ."""
    tasks: list[dict[str, object]] = []
    for resource in next(iter(bench.documents.values())).resources:
        if isinstance(resource, File):
            common = {"mode": resource.mode, "owner": resource.owner, "group": resource.group}
            if resource.state == "directory":
                tasks.append({"ansible.builtin.file": {"path": resource.path, "state": "directory", **common}})
            else:
                source = f"{folder}/files/{{{{ inventory_hostname }}}}{resource.path}"
                tasks.append({"ansible.builtin.copy": {"src": source, "dest": resource.path, **common}})
    for resource in next(iter(bench.documents.values())).resources:
        if isinstance(resource, Service):
            unit = {"name": resource.name, "state": "started", "enabled": True}
            tasks.append({"ansible.builtin.systemd_service": unit})
    return {"hosts": "all", "gather_facts": False, "tasks": tasks}
