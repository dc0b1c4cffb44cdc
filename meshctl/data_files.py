"""The four data folders (schemas, templates, roles, inventory), found the same way however we are installed.

A wheel, a zipapp and an editable install carry them as packages `meshctl.data.NAME`; a bare checkout has them
at its root, beside the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

FOLDERS = ("schemas", "templates", "roles", "inventory")


def data_folder(name: str) -> Traversable:
    """The packaged folder `name` (one of FOLDERS) as a Traversable; it need not be a directory on disk."""
    if name not in FOLDERS:
        raise ValueError(f"no data folder {name!r}")
    checkout = Path(__file__).resolve().parent.parent / name
    if (checkout / "__init__.py").is_file():
        return checkout
    from importlib import resources  # brings tempfile and shutil: 10 ms that a checkout need not pay

    return resources.files(f"meshctl.data.{name}")


def read_data(name: str, *parts: str) -> bytes:
    """Bytes of one packaged file, e.g. `read_data("schemas", "inventory.schema.json")`."""
    return data_folder(name).joinpath(*parts).read_bytes()
