"""The zipapp's modules compiled by the Python that runs it, beside it: to compile them at each start takes longer than
all else that a start does."""

from __future__ import annotations

import io
import marshal
import os
import sys
import zipfile
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path

from meshctl.agent import files

# After the zipapp's name. `__main__` of the zipapp (meshctl.render.zipapp) looks for it by the same words.
SUFFIX = f".{sys.implementation.cache_tag}-{MAGIC_NUMBER[:2].hex()}"
ANY_SUFFIX = ".*-*"
# PEP 552: the hash of the source follows, and nobody compares it, for there is no source beside it.
_UNCHECKED_HASH = (1).to_bytes(4, "little")


def make(zipapp: Path) -> None:
    """Write what the next start of this zipapp is to import, if it is not there. It can do without."""
    path = zipapp.with_name(zipapp.name + SUFFIX)
    if path.exists():
        return
    temp = path.with_name(path.name + ".new")
    try:
        archive = _archive(zipapp)
        files.write_and_close(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC), archive)
        temp.chmod(0o644)
        files.replace(temp, path)
    except (OSError, zipfile.BadZipFile):
        files.remove_quietly(temp)


def _archive(zipapp: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(zipapp) as sources, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sources.namelist():
            source = sources.read(name)
            code = compile(source, f"{zipapp}/{name}", "exec", dont_inherit=True)
            archive.writestr(f"{name}c", MAGIC_NUMBER + _UNCHECKED_HASH + source_hash(source) + marshal.dumps(code))
    return buffer.getvalue()
