"""Did you mean ...?"""

from __future__ import annotations

from collections.abc import Iterable

# Below this likeness (difflib's ratio) a suggestion confuses more than it helps.
CUTOFF = 0.6
# difflib compares with every candidate; more than this many names cost more than a guess is worth.
MAX_CANDIDATES = 2_000
MAX_LENGTH = 100


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The candidate most like `word`, or ""."""
    if len(word) > MAX_LENGTH:
        return ""
    names = sorted(set(candidates))[:MAX_CANDIDATES]
    by_case = [name for name in names if name.lower() == word.lower()]
    if by_case:
        return by_case[0]
    import difflib  # here, for an inventory without errors needs no suggestion

    found = difflib.get_close_matches(word, names, n=1, cutoff=CUTOFF)
    return found[0] if found else ""


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest candidate, else the candidates when they are few, else ""."""
    names = sorted(set(candidates))
    near = nearest(word, names)
    if near:
        return f"did you mean `{near}`?"
    if 0 < len(names) <= 12:
        return f"known: {', '.join(names)}"
    return ""
