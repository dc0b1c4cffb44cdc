"""Running the system's own tools, with an explained failure when one is missing or says no."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence

from meshctl.lab.names import LabError, netns

# No tool that the lab calls takes longer, but for debootstrap, which has a limit of its own.
COMMAND_TIMEOUT_S = 60.0


def run(argv: Sequence[str], *, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S, where: str = "") -> str:
    """Standard output of `argv`. Raises LabError with what the tool printed when it fails or is not there."""
    try:
        done = subprocess.run(
            argv, check=False, input=stdin, text=True, capture_output=True, timeout=timeout_s, start_new_session=True,
        )
    except FileNotFoundError:
        hint = "install the lab's packages with `make setup` (they are listed in meshctl/lab/packages.txt)"
        raise LabError(f"{argv[0]} is not installed", where=where, hint=hint) from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)} did not end within {timeout_s:.0f} s", where=where) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(argv)} ended with {done.returncode}: {said}", where=where)
    return done.stdout


def ip_batch(lines: Iterable[str], *, lab: str = "", element: str = "", force: bool = False) -> None:
    """Run iproute2 commands in one process, inside the element's namespace when one is named.

    With `force`, failures (of things that are there or gone already) do not count.
    """
    text = "".join(f"{line}\n" for line in lines)
    if not text:
        return
    place = ["-n", netns(lab, element)] if element else []
    if not force:
        run(["ip", *place, "-batch", "-"], stdin=text, where=element)
        return
    subprocess.run(
        ["ip", *place, "-force", "-batch", "-"], check=False, input=text, text=True, capture_output=True,
        timeout=COMMAND_TIMEOUT_S,
    )


def in_netns(lab: str, element: str, argv: Sequence[str], *, stdin: str = "") -> str:
    """Standard output of `argv` run in the element's network namespace."""
    return run(["ip", "netns", "exec", netns(lab, element), *argv], stdin=stdin, where=element)


def require_root() -> None:
    """Raise LabError unless this process may make namespaces and mounts."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces and mounts and needs root", hint="run it with sudo")
