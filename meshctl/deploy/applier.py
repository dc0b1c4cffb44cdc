"""Calling the applier on a node: the command line that runs or brings it, and the answer that it gives."""

from __future__ import annotations

import datetime
import hashlib
import secrets
import shlex

from meshctl.deploy.hints import hint
from meshctl.deploy.transport import Completed
from meshctl.errors import RemoteError
from meshctl.model.facts import HostFacts
from meshctl.model.steps import Result
from meshctl.render import zipapp

# What core, model and agent are written for: Debian 11's.
PYTHON_MIN = (3, 9)
# -I -S: no environment, no site-packages, which is also a third of Python's start-up time.
PYTHON = "python3 -I -S"
# Statuses from here on are signals; 255 is what SSH leaves of one.
KILLED = 128
# Puts the zipapp in its place, then becomes it; what is left on standard input is the transaction.
# os.read, not sys.stdin: a buffered reader would swallow the start of the transaction.
_PUSH = """
import hashlib, os, sys
path, size, want = sys.argv[1], int(sys.argv[2]), sys.argv[3]
data = b""
while len(data) < size:
    part = os.read(0, size - len(data))
    if not part: sys.exit("the zipapp was cut short")
    data += part
if not hashlib.sha256(data).hexdigest().startswith(want): sys.exit("the zipapp was damaged on its way")
os.umask(0o022)
temp = path + ".%d" % os.getpid()
try:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(temp, "wb") as file:
        file.write(data); file.flush(); os.fsync(file.fileno())
    os.replace(temp, path)
except OSError as error:
    if os.path.exists(temp): os.unlink(temp)
    sys.exit("%s: %s" % (path, error.strerror))
os.execvp("python3", ["python3", "-I", "-S", path, "apply"])
"""


def new_id() -> str:
    """A transaction id; ids sort by time."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def command_for(agent: zipapp.Zipapp, transaction: bytes, *, present: bool) -> tuple[str, bytes]:
    """The command line and standard input that run a transaction, the zipapp first where the node lacks it."""
    if present:
        return f"exec {PYTHON} {shlex.quote(agent.path)} apply", transaction
    digest = hashlib.sha256(agent.content).hexdigest()
    command = f"exec {PYTHON} -c {shlex.quote(_PUSH)} {shlex.quote(agent.path)} {len(agent.content)} {digest}"
    return command, agent.content + transaction


def agent_command(path: str, *words: str) -> str:
    """The command line of anything else that a zipapp does which is on the node, at this path."""
    return " ".join(("exec", PYTHON, *map(shlex.quote, (path, *words))))


def read_result(node: str, completed: Completed) -> Result:
    """The applier's answer: the last line of its output. Raises RemoteError when there is none."""
    lines = completed.text().strip().splitlines()
    try:
        return Result.from_json(lines[-1] if lines else "")
    except ValueError as error:
        reason = completed.last_line()
        if not reason and completed.status >= KILLED:
            raise RemoteError(
                f"the applier was killed (status {completed.status}) and may have left some steps undone", node=node,
                kind="interrupted", step="apply",
                hint=f"run apply again: it does what is left; `journalctl -k` on {node} may say what killed it",
            ) from error  # fmt: skip
        reason = reason or f"status {completed.status}"
        kind = "disk-full" if "No space left" in reason else "protocol"
        raise RemoteError(
            f"the applier gave no answer: {reason}", node=node, kind=kind, step="apply", hint=hint(kind, node)
        ) from error


def check_python(node: str, facts: HostFacts) -> None:
    """Raises RemoteError of kind python when the applier could not run there."""
    if facts.python is None:
        raise RemoteError("python3 is missing", node=node, kind="python", hint=hint("python", node))
    if facts.python < PYTHON_MIN:
        have = ".".join(map(str, facts.python))
        raise RemoteError(
            f"python3 is {have}, too old", node=node, kind="python",
            hint=f"needs python3 {PYTHON_MIN[0]}.{PYTHON_MIN[1]} or newer",
        )  # fmt: skip
