"""Rules about the mesh as a whole."""

from __future__ import annotations


def check_rules(resolved, names, findings, *, whole):
    pass
