"""One guest for all tests of this folder: Debian's own kernel, whose WireGuard this machine's kernel may lack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel_guest import Guest


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, booted; its console log stays in pytest's temporary folder.

    It goes with its module: an idle guest still takes a third of a core.
    """
    with Guest(tmp_path_factory.mktemp("guest")) as running:
        yield running
