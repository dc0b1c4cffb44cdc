"""The mesh secret: from $MESHCTL_SECRET, `--secret-file`, or the inventory's `secret: {file | command}`."""

from __future__ import annotations

import math
import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from meshctl.core.psk import PskRing
from meshctl.errors import MeshctlError
from meshctl.model.keys import Secret
from meshctl.model.mesh import Mesh

VARIABLE = "MESHCTL_SECRET"
# A pre-shared key is 32 bytes; a secret with less in it would be the weakest part of every pair.
MINIMUM_BYTES = 32
# A password manager may ask for a touch or a PIN; longer than this, and something hangs.
COMMAND_TIMEOUT_S = 60
MAKE_ONE = "make one with `openssl rand -base64 48`"


class SecretError(MeshctlError):
    """The mesh secret cannot be had, or is too weak. The text never holds any part of it."""


def find_secret(
    mesh: Mesh, secret_file: str | None = None, environ: Mapping[str, str] = os.environ
) -> Secret | None:
    """The mesh secret without surrounding white space; None when no source is named.

    Order: `secret_file`, the variable, the inventory. A relative `secret.file` and the command start from the
    inventory's folder. Raises SecretError for an unreadable source or a secret of less than 32 bytes of entropy.
    """
    if secret_file:
        return _checked(_read(Path(secret_file)), secret_file)
    if VARIABLE in environ:
        return _checked(environ[VARIABLE], f"${VARIABLE}")
    if mesh.secret.file:
        path = Path(mesh.base_dir) / Path(mesh.secret.file).expanduser()
        return _checked(_read(path), str(path))
    if mesh.secret.command:
        return _checked(_run(mesh.secret.command, mesh.base_dir), mesh.secret.command[0])
    return None


def ring_for(
    mesh: Mesh, secret_file: str | None = None, environ: Mapping[str, str] = os.environ
) -> PskRing | None:
    """The ring that `Renderer` takes; None when no pair wants a pre-shared key (`psk: false`) and no node an agent.

    Raises SecretError, also when keys are wanted and no source is named: a mesh must not lose them in silence.
    """
    if not _wanted(mesh):
        return None
    secret = find_secret(mesh, secret_file, environ)
    if secret is None:
        raise SecretError(
            "there is no mesh secret to make the keys of pairs from",
            hint=f"{MAKE_ONE} and set ${VARIABLE}, --secret-file PATH or the inventory's `secret: {{file: PATH}}`; "
            "`defaults: {psk: false, agent: false}` does without pre-shared keys and agents",
        )
    return PskRing(secret)


def _wanted(mesh: Mesh) -> bool:
    """Whether two nodes of one network both want pre-shared keys, or one of them an agent."""
    nodes = mesh.nodes.values()
    members = Counter(a.network for node in nodes for a in node.attachments)
    psks = Counter(a.network for node in nodes if node.psk for a in node.attachments)
    agents = {a.network for node in nodes if node.has_agent for a in node.attachments}
    return any(psks[name] > 1 or (name in agents and count > 1) for name, count in members.items())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise SecretError(f"cannot read the mesh secret: {reason}", where=str(path), hint=MAKE_ONE) from None


def _run(argv: tuple[str, ...], folder: str) -> str:
    hint = "run it by hand; its standard output must be the mesh secret"
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False, text=True)
    except subprocess.TimeoutExpired:
        raise SecretError(f"gave no mesh secret within {COMMAND_TIMEOUT_S} s", where=argv[0], hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its output is not text"
        raise SecretError(f"cannot get the mesh secret: {reason}", where=argv[0], hint=hint) from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        detail = f": {said[-1]}" if said else ""
        raise SecretError(f"exited with status {done.returncode}{detail}", where=argv[0], hint=hint)
    return done.stdout


def _checked(text: str, where: str) -> Secret:
    text = text.strip()
    if not text:
        raise SecretError("the mesh secret is empty", where=where, hint=MAKE_ONE)
    if entropy_bytes(text) < MINIMUM_BYTES:
        message = f"the mesh secret is too weak: it must hold at least {MINIMUM_BYTES} bytes of randomness"
        raise SecretError(message, where=where, hint=MAKE_ONE)
    return Secret(text)


def entropy_bytes(text: str) -> float:
    """An upper estimate of the randomness in a text, in bytes: length times the bits of its alphabet.

    The alphabet is hexadecimal digits or base64's letters where the text has no others, and a text that repeats few
    characters is counted by how often each occurs (Shannon), so that `aaaa…` is not taken for a secret.
    """
    if all(c in "0123456789abcdefABCDEF" for c in text):
        bits = 4.0
    elif all(c.isascii() and (c.isalnum() or c in "+/=-_") for c in text):
        bits = 6.0
    else:
        bits = math.log2(95)  # printable ASCII
    counts = Counter(text)
    repeated = max(counts.values()) > len(text) / 2 or len(counts) < 8
    if repeated:
        bits = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    return len(text) * bits / 8
