"""What handlers (see Handler) have in common whose actions become elements of a table of nftables."""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.agent.node.handler import HasFileno, Plain, Readable
from meshctl.agent.node.ruletable import RuleTable
from meshctl.core.agent.events import Event


class TableHandler(Plain):
    """Its sockets and times are the table's; a subclass has `do`."""

    def __init__(self, table: RuleTable) -> None:
        self._table = table

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return self._table.sockets()

    def due(self) -> float | None:
        """See Handler."""
        return self._table.due()

    def poll(self, now: float) -> list[Event]:
        """See Handler."""
        self._table.poll(now)
        return []

    def close(self) -> None:
        """See Handler."""
        self._table.close()
