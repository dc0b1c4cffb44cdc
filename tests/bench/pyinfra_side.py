"""The same files by pyinfra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import ansible_side

from meshctl.model.resources import File, Service

if TYPE_CHECKING:
    from bench_apply import Bench


def prepare(bench: Bench, binaries: Path, key: Path, known_hosts: Path) -> Callable[[], float]:
    """Write inventory, operations and files; gives the function that runs them once."""
    folder = bench.folder / "pyinfra"
    folder.mkdir(parents=True, exist_ok=True)
    ansible_side.write_files(bench, folder)
    data = {
        "ssh_user": "root", "ssh_key": str(key), "ssh_known_hosts_file": str(known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }  # fmt: skip
    hosts = [(address, {**data, "node": node}) for node, address in bench.addresses.items()]
    (folder / "inventory.py").write_text(f"hosts = {hosts!r}\n", encoding="utf-8")
    (folder / "deploy.py").write_text(operations(bench, folder), encoding="utf-8")
    words: list[str | Path] = [binaries / "pyinfra", "-y", folder / "inventory.py", folder / "deploy.py"]
    return lambda: bench.inside(words)


def operations(bench: Bench, folder: Path) -> str:
    """The deploy script: one operation a resource."""
    lines = ["from pyinfra import host", "from pyinfra.operations import files, systemd", ""]
    for resource in next(iter(bench.documents.values())).resources:
        if isinstance(resource, File):
            rest = f"mode={resource.mode.lstrip('0')!r}, user={resource.owner!r}, group={resource.group!r}"
            if resource.state == "directory":
                lines.append(f"files.directory(path={resource.path!r}, {rest})")
            else:
                source = f"f'{folder}/files/{{host.data.node}}{resource.path}'"
                lines.append(f"files.put(src={source}, dest={resource.path!r}, {rest})")
    for resource in next(iter(bench.documents.values())).resources:
        if isinstance(resource, Service):
            lines.append(f"systemd.service(service={resource.name!r}, running=True, enabled=True, daemon_reload=False)")
    return "\n".join(lines) + "\n"
