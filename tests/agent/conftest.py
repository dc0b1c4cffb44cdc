"""Fixtures of tests that need network namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from agent_node import Node


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """What is to be closed after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Where the applier may do as it likes."""
    found = Node(tmp_path)
    yield found
    found.close()
