"""The pipeline of docs/gitops.md, its commands taken from there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from meshlab import MeshLab

pytestmark = pytest.mark.lab

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "gitops.md"
# What talks to hosts talks to the lab.
WRAPPER = """#!/bin/sh
case "$1" in plan|apply|lock) set -- "$@" --lab {name} ;; esac
exec {python} -m meshctl "$@"
"""


def script(name: str) -> str:
    """The shell block of the document that begins with `# NAME`."""
    found = re.search(rf"```sh\n# {name}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found, f"docs/gitops.md has no script {name!r}"
    return found.group(1)


def run(mesh: MeshLab, name: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the document beside the inventory, with the lab in place of the hosts."""
    folder = mesh.path.parent
    wrapper = folder / "bin" / "meshctl"
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(WRAPPER.format(name=mesh.name, python=sys.executable))
    wrapper.chmod(0o755)
    env = {**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}", "CI": "true"}
    words = ["bash", "-e", "-c", script(name)]
    return subprocess.run(words, check=False, text=True, capture_output=True, cwd=folder, env=env, timeout=120)


def test_a_reviewed_change_goes_through_the_pipeline(mesh: MeshLab) -> None:
    mesh.edit(lambda d: d["nodes"]["home1"].update(mtu=1390))
    checked = run(mesh, "check")
    assert checked.returncode == 0, checked.stderr
    deployed = run(mesh, "deploy")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert mesh.sh("home1", "cat /sys/class/net/wg0/mtu").strip() == "1390"


def test_the_pipeline_stops_at_a_wrong_inventory_and_at_drift(mesh: MeshLab) -> None:
    mesh.edit(lambda d: d["nodes"]["home1"].update(mtuu=1390))
    checked = run(mesh, "check")
    assert checked.returncode == 65
    assert "::error file=inventory.yml,line=" in checked.stdout
    mesh.reset()
    mesh.sh("home1", "ip link set wg0 mtu 1300")
    assert mesh.on_lab("plan", "--detailed-exitcode").code == 2
