"""What was recorded on the wire, or written down from what is known of it, as files beside this module."""

from __future__ import annotations

from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"


def from_hex(name: str) -> bytes:
    """Bytes of a `.hex` file; its lines that begin with # are comments."""
    lines = (FIXTURES / name).read_text(encoding="ascii").splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))
