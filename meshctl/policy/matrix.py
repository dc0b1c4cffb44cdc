"""Who may open what to whom in one network, as a table, CSV or HTML. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from meshctl.core.traffic import words
from meshctl.model.policy import INTERNET
from meshctl.policy.naming import Party, pair_of
from meshctl.policy.network import NetworkPolicy

# What a cell says where nothing is allowed; it is empty where the two stand at one node.
NOTHING = "-"
_STYLE = (
    "table{border-collapse:collapse}th,td{border:1px solid #999;padding:.2em .5em;text-align:left}"
    "td.allowed{background:#dfd}td.denied{color:#999}caption{font-weight:bold;text-align:left}"
)


@dataclass(frozen=True)
class Matrix:
    """`cells` has a row for each source, with one text for each destination."""

    network: str
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def matrix(policy: NetworkPolicy, parties: Sequence[Party]) -> Matrix:
    """The network's matrix of parties that are alike within themselves, everybody with everybody."""
    sources = [party for party in parties if INTERNET not in party.subjects]
    return Matrix(
        policy.name,
        tuple(party.label for party in sources),
        tuple(party.label for party in parties),
        tuple(tuple(_cell(policy, *pair_of(source, p)) for p in parties) for source in sources),
    )


def to_table(matrices: Iterable[Matrix]) -> str:
    """Aligned columns, a table for each network."""
    return "\n".join(_table(one) for one in matrices)


def to_csv(matrices: Iterable[Matrix]) -> str:
    """One line a pair: network, source, destination, traffic (empty when denied)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("network", "source", "destination", "allowed"))
    for one in matrices:
        for source, row in zip(one.sources, one.cells, strict=True):
            for destination, cell in zip(one.destinations, row, strict=True):
                if cell:
                    writer.writerow((one.network, source, destination, "" if cell == NOTHING else cell))
    return out.getvalue()


def to_html(matrices: Iterable[Matrix]) -> str:
    """One page without scripts or links to elsewhere."""
    tables = "".join(_html_table(one) for one in matrices)
    head = f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>Policies</title><style>{_STYLE}</style>"
    return f"{head}</head><body>\n{tables}</body></html>\n"


def _cell(policy: NetworkPolicy, source: str, destination: str) -> str:
    if policy.home(source) == policy.home(destination, source):
        return ""
    return " ".join(words(policy.allowed(source, destination))) or NOTHING


def _table(one: Matrix) -> str:
    rows = [(one.network, *one.destinations)]
    rows += [(source, *row) for source, row in zip(one.sources, one.cells, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _html_table(one: Matrix) -> str:
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in one.destinations)
    rows = "".join(
        f"<tr><th scope=row>{escape(source)}</th>{''.join(map(_html_cell, row))}</tr>\n"
        for source, row in zip(one.sources, one.cells, strict=True)
    )
    return f"<table><caption>{escape(one.network)}</caption>\n<tr><td></td>{heads}</tr>\n{rows}</table>\n"


def _html_cell(cell: str) -> str:
    kind = "denied" if cell == NOTHING else "allowed" if cell else "same"
    return f"<td class={kind}>{escape(cell)}</td>"
