"""The parser against recorded outputs; a case is NAME.txt and the NAME.json that it parses to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.errors import RemoteError
from meshctl.facts import parse
from meshctl.model.keys import PublicKey, Secret

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))
RECORDED = [path.read_text() for path in CASES]


def plain(value: Any) -> Any:
    """Facts as JSON; secrets by their fingerprints."""
    if isinstance(value, PublicKey):
        return value.text
    if isinstance(value, Secret):
        return value.fingerprint()
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_recorded_host_parses_to_what_it_had(path: Path) -> None:
    assert plain(parse("web1", path.read_text())) == json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("text", RECORDED, ids=[p.stem for p in CASES])
def test_output_cut_at_any_line_is_refused_by_name(text: str) -> None:
    last = text.rindex("@@meshctl-facts 1 end@@")
    for cut in range(0, last, 97):
        with pytest.raises(RemoteError) as caught:
            parse("web1", text[:cut])
        assert (caught.value.node, caught.value.kind) == ("web1", "protocol")


@given(st.sampled_from(RECORDED), st.integers(0), st.integers(0, 40), st.text(max_size=20))
def test_mangled_output_is_facts_or_a_remote_error_and_never_a_traceback(
    text: str, start: int, length: int, insert: str
) -> None:
    start %= len(text)
    with contextlib.suppress(RemoteError):
        parse("web1", text[:start] + insert + text[start + length :])


def test_a_malformed_dump_is_reported_without_its_secrets() -> None:
    text = next(t for t in RECORDED if "wgt0\t" in t)
    secret = "4Fm7/lXdUY6mOAd6B2VSILmCnOrvRm6rsuKbTFLW/ps="
    assert secret in text
    with pytest.raises(RemoteError) as caught:
        parse("web1", text.replace(f"{secret}\t(none)\t", f"{secret}\t"))
    assert secret not in f"{caught.value} {caught.value.__cause__!r}"
