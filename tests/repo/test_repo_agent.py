"""docs/agent.md says what the agent's core does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from agent_page import BEGIN, CONSTANT, PAGE, diagram, page, table

from meshctl.core.agent.config import OVERRIDES
from meshctl.core.agent.path import State, rows

TEXT = PAGE.read_text(encoding="utf-8")
CORE = Path(__file__).parents[2] / "meshctl" / "core" / "agent"


def test_the_diagram_the_table_and_the_constants_are_those_of_the_code() -> None:
    assert page(TEXT) == TEXT, "run `make docs`"


def test_a_page_with_another_table_or_another_value_is_found_out() -> None:
    constant = next(CONSTANT.finditer(TEXT))
    for wrong in (
        TEXT.replace(table().splitlines()[5], ""),
        TEXT.replace("    [*] -->", "    direct -->"),
        TEXT.replace(constant[0], f"| `{constant[1]}.{constant[2]}` | 4711 s |"),
    ):
        assert wrong != TEXT
        assert page(wrong) == TEXT


def test_a_constant_that_the_code_does_not_have_is_an_error() -> None:
    with pytest.raises(AttributeError, match="NO_SUCH_S"):
        page(f"{TEXT}\n| `choice.NO_SUCH_S` | 1 s | |\n")


def test_the_diagram_has_every_change_of_state_and_every_state() -> None:
    arrows = re.findall(r"^    (\S+) --> (\w+)(?:: (.+))?$", diagram(), re.MULTILINE)
    drawn = {(a, b, word) for a, b, words in arrows[1:] for word in words.split(" / ")}
    assert arrows[0] == ("[*]", "unknown", "")
    assert drawn == {(a.value, f.state.value, t.value) for a, t, f in rows() if f.state is not a}
    assert {word for a, b, _ in drawn for word in (a, b)} == {state.value for state in State}


def test_the_states_are_explained_in_their_order() -> None:
    head = TEXT.partition(BEGIN)[0]
    assert re.findall(r"^\| ([a-z]+) \| ", head, re.MULTILINE)[1:] == [state.value for state in State]


def test_what_the_text_names_is_there() -> None:
    parts = TEXT.partition("## Parts")[2]
    modules = [m for row in re.findall(r"^\| (`.*?) \|", parts, re.MULTILINE) for m in re.findall(r"`(\w+)`", row)]
    assert len(modules) > 10
    assert [m for m in modules if not (CORE / f"{m}.py").is_file()] == []
    assert [mode for mode in OVERRIDES if mode and f"`{mode}`" not in TEXT] == []
