"""The document as a file on the node: read whole, or why not."""

from __future__ import annotations

import errno
from pathlib import Path

from meshctl.agent.files import read_regular
from meshctl.core.agent.document import AgentDocument, DocumentError, load
from meshctl.errors import Diagnostic

# A hundred times that of a node with 500 peers.
MAX_BYTES = 1 << 24
# The host has run out of something: no other document mends that.
_PASSING = (errno.ENFILE, errno.EMFILE, errno.ENOMEM)


def read_document(path: Path) -> AgentDocument:
    """Raises DocumentError, for a file that cannot be read, too; OSError for what has nothing to do with the file."""
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        if error.errno in _PASSING:
            raise
        hint = "`meshctl apply` writes the document anew"
        raise DocumentError((Diagnostic("document-file", str(error.strerror), str(path), hint=hint),)) from error
    return load(content, str(path))
