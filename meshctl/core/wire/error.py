"""The one error that the parsers of this package raise."""

from __future__ import annotations


class WireError(ValueError):
    """What arrived, or is to be sent, does not have the format. The text is the reason in one line; of what a stranger
    sent it quotes at most a number."""
