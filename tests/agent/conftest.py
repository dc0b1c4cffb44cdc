"""Fixtures of tests that need network namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from agent_node import Node
from agentnode_space import Space, space


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


@pytest.fixture(name="place", scope="module")
def _place() -> Iterator[Space]:
    """A namespace that the tests of one file share."""
    with space() as made:
        yield made
