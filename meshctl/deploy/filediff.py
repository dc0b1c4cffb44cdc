"""Old and new text of the files that a plan changes, for `--diff`. Sensitive files are never fetched."""

from __future__ import annotations

import base64
import binascii
import shlex

from meshctl.deploy.host import Host
from meshctl.deploy.outcome import FileDiff
from meshctl.model.resources import File, NodeDoc

# Above this, nobody reads the diff.
SIZE_MAX_BYTES = 256 * 1024
# A configuration that we are about to adopt may hold a private key, which must not leave its host.
_HIDE_KEYS = r"sed -E 's/^([[:space:]]*(PrivateKey|PresharedKey)[[:space:]]*=).*/\1 (sensitive)/I'"


def fetch(host: Host) -> list[FileDiff]:
    """One exec for all files of a host. Raises RemoteError."""
    files = _wanted(host.doc, {change.name for change in host.changes if change.kind == "file"})
    if not files or host.transport is None:
        return []
    script = "\n".join(
        f"if [ -f {q} ]; then head -c {SIZE_MAX_BYTES + 1} < {q} | {_HIDE_KEYS} | base64 | tr -d '\\n'; fi; echo"
        for q in (shlex.quote(f.path) for f in files)
    )
    lines = host.transport.run("exec sh", script.encode()).text().split("\n")
    diffs = []
    for file, line in zip(files, lines, strict=False):
        try:
            before = base64.b64decode(line, validate=True)
        except binascii.Error:
            continue
        after = file.content or b"" if file.state == "file" else b""
        if len(before) <= SIZE_MAX_BYTES and before != after:
            diffs.append(FileDiff(host.name, file.path, _text(before), _text(after)))
    return diffs


def _wanted(doc: NodeDoc, changed: set[str]) -> list[File]:
    return [
        r for r in doc.resources
        if isinstance(r, File) and r.path in changed and not r.sensitive and r.state in ("file", "absent")
    ]  # fmt: skip


def _text(content: bytes) -> str:
    return content.decode(errors="backslashreplace")
