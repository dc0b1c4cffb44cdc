"""What every pipeline starts from: a clone of this project, and somebody's repository with an inventory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOOD = """\
version: 1
networks: {corp: {cidr: 10.42.0.0/16}}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}
  hub2: {roles: [anchor], endpoint: "203.0.113.2:51820"}
  web1: {}
policies:
  - {name: ssh, from: hub, to: web1, allow: [tcp/22], owner: ops, reason: logins}
tests:
  - {from: hub, to: web1, can: [tcp/22], cannot: [tcp/23]}
"""
# One policy more, which the tests do not mind.
WIDER = GOOD.replace("tests:", "  - {name: dns, from: web1, to: hub, allow: [udp/53], owner: net}\ntests:")
FAILING = GOOD.replace("cannot: [tcp/23]", "cannot: [tcp/22]").replace("can: [tcp/22], ", "")
INVALID = GOOD.replace("from: hub,", "from: nobody,", 1)


def run(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(w) for w in words], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.net", "-c", "safe.directory=*")
    return run("git", *who, *words, cwd=folder).strip()


def clone(folder: Path) -> Path:
    """This project as Git would give it to somebody who clones, what is not committed yet included."""
    listing = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def repository(folder: Path, text: str = GOOD) -> Path:
    """A clone whose `origin` has the inventory `text` on its branch `main`, checked out."""
    origin, work = folder / "origin.git", folder / "work"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")  # as GitHub and GitLab have it
    git(folder, "clone", "--quiet", str(origin), str(work))
    git(work, "checkout", "--quiet", "-B", "main")
    (work / "inventory.yml").write_text(text)
    commit(work, "Start")
    git(work, "push", "--quiet", "origin", "main")
    return work


def commit(work: Path, message: str) -> str:
    """Everything in the folder; gives the commit's name."""
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "-m", message)
    return git(work, "rev-parse", "HEAD")


def bare_environment(folder: Path) -> dict[str, str]:
    """An environment with no secret in it, in which pip takes the libraries that are here, from no registry."""
    libraries = [path for path in sys.path if path.endswith("-packages")]
    return {
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "PYTHONPATH": ":".join(libraries),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as `--no-build-isolation`, whatever stands here but 1
        "PIP_NO_CACHE_DIR": "1",
    }
