"""Sets of prefixes, as text."""

from __future__ import annotations

from meshctl.core.prefixes import without_covered


def test_prefixes_of_which_nothing_is_left_are_left_out() -> None:
    halves = ("192.168.0.0/25", "192.168.0.128/25")
    assert without_covered(["192.168.0.0/24", *halves]) == halves
    assert without_covered(["192.168.0.0/24", halves[0]]) == ("192.168.0.0/24", halves[0])
    assert without_covered(["192.168.0.0/24", *halves, "192.168.0.0/26", "192.168.0.64/26"]) == (
        "192.168.0.0/26",
        "192.168.0.64/26",
        "192.168.0.128/25",
    )
    assert without_covered(["fd00::/64", "192.168.0.0/24"]) == ("192.168.0.0/24", "fd00::/64")
