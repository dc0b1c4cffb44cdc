"""Commands as root: sudo without a password, or with one that travels as the first line of standard input."""

from __future__ import annotations

import re
import shlex

from meshctl.deploy.transport import Completed
from meshctl.errors import RemoteError
from meshctl.model.keys import Secret

# Everything up to this line is the password, which sudo leaves unread where it needs none. A shell's `read` takes
# one byte at a time, so what follows reaches the command whole.
MARK = "meshctl: input follows"
_SKIP_TO_MARK = f'while IFS= read -r line; do [ "$line" = "{MARK}" ] && break; done; exec sh -c "$0"'
_REFUSED = re.compile(r"^sudo: |^sorry, try again|is not in the sudoers file|is not allowed to |command not found.*sudo"
                      r"|sudo: .*not found", re.IGNORECASE | re.MULTILINE)  # fmt: skip


def wrap(command: str, stdin: bytes, password: Secret | None) -> tuple[str, bytes]:
    """`command` and its input, run as root."""
    if password is None:
        return f"LC_ALL=C exec sudo -n -- sh -c {shlex.quote(command)}", stdin
    inner = f"sh -c {shlex.quote(_SKIP_TO_MARK)} {shlex.quote(command)}"
    head = f"{password.reveal()}\n{MARK}\n".encode()
    return f"LC_ALL=C exec sudo -S -p '' -- {inner}", head + stdin


def check(completed: Completed, node: str, user: str, asked: bool) -> None:
    """Raises RemoteError of kind sudo when sudo itself refused. Its text holds no password."""
    text = completed.stderr.decode(errors="replace")
    if completed.status == 0 or not _REFUSED.search(text):
        return
    if "not found" in text:
        raise RemoteError(
            "sudo is not installed", node=node, kind="sudo", hint="install sudo, or set ssh.user: root"
        )
    if "a password is required" in text and not asked:
        raise RemoteError(
            f"sudo asks for {user}'s password", node=node, kind="sudo",
            hint="use --ask-sudo-pass or MESHCTL_SUDO_PASSWORD, or allow NOPASSWD in sudoers",
        )  # fmt: skip
    if "incorrect password" in text or "try again" in text.lower() or "no password was provided" in text:
        raise RemoteError("sudo did not accept the password", node=node, kind="sudo", hint="enter it again")
    reason = next((line.strip() for line in text.splitlines() if line.strip()), "refused")
    raise RemoteError(
        f"sudo refused {user}: {reason.removeprefix('sudo: ')}", node=node, kind="sudo",
        hint=f"let {user} run sudo there, or set ssh.user: root",
    )  # fmt: skip
