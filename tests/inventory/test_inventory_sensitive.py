"""Source lines that findings quote: values of secrets are masked, everything else stays readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.cli import run
from meshctl.inventory.sensitive import mask

NAMES = [
    "password", "pasword", "passwrd", "db_password", "ssh.pasword", "dbPassword", "passwd", "pass", "secret",
    "client_secret", "secert", "token", "api-token", "TOKEN", "private_key", "privatekey", "preshared_key", "psk",
    "key", "api_key",
]  # fmt: skip
OPEN = ["public_key", "pubkey", "publicKey", "host_key", "keepalive", "mtu", "monkey", "passage", "endpoint", "roles"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "around",
    [
        "{}: hunter2", "  - {}: hunter2  # mine", "{}:hunter2", "'{}': 'hunter2'", "a: {{{}: hunter2, mtu: 9}}",
        "{}: {{value: hunter2}}", "{}: {{a: 'x}}hunter2', b: [1, {{c: hunter2}}]}}", "{}: a, hunter2", "{} = hunter2",
        "# {}: hunter2", '{}: "a\\"hunter2"', "{}: [x, hunter2",
    ],
)  # fmt: skip
def test_the_value_of_a_secret_is_masked_and_nothing_moves(name: str, around: str) -> None:
    line = around.format(name)
    shown = mask(line)
    assert "hunter2" not in shown
    assert len(shown) == len(line)
    assert name in shown


@pytest.mark.parametrize("name", OPEN)
def test_what_everybody_may_see_stays(name: str) -> None:
    for line in (f"{name}: hunter2", f"a: {{{name}: hunter2, x: [1]}}"):
        assert mask(line) == line


def test_neighbours_keys_and_words_that_are_no_secret_stay() -> None:
    assert mask("a: {psk: no, token: x, mtu: 9}") == "a: {psk: no, token: *, mtu: 9}"
    assert mask("secret: {command: [pass], file: x}") == "secret: {command: [****], file: *}"
    assert mask("ssh: {key: ~/.ssh/id_ed25519, password: x}") == "ssh: {key: ~/.ssh/id_ed25519, password: *}"
    assert mask("password: a b  # why") == "password: ***  # why"


@given(st.text(max_size=40))
def test_any_line_keeps_its_length(text: str) -> None:
    for line in (text, f"password: {text}", f"{{token: {text}"):
        assert len(mask(line)) == len(line)


@pytest.mark.parametrize(
    "text",
    [
        "nodes: {a: {ssh: {pasword: hunter2}}}",
        "nodes:\n  a:\n    ssh:\n      pasword: hunter2",
        "nodes: {a: {vars: {db_password: hunter2}, mtuu: 9}}",
        "nodes: {a: {}}\nsecret: {value: hunter2}",
        "nodes: {a: {}}\nsecret:\n  value: hunter2",
        "nodes: {a: {psk: {x: hunter2}}}",
        "nodes: {a: {psk: {x: [hunter2,\n     hunter2]}}}",
    ],
)
@pytest.mark.parametrize("style", ["human", "json", "github"])
def test_no_finding_shows_a_secret(
    text: str, style: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path_factory.mktemp("mesh") / "inventory.yml"
    path.write_text(f"version: 1\nnetworks: {{corp: {{cidr: 10.42.0.0/16}}}}\n{text}\n")
    assert run(["validate", str(path), "-o", style]) == 65
    assert "hunter2" not in "".join(capsys.readouterr())


def test_a_node_called_like_a_secret_is_shown_as_any_other(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path_factory.mktemp("mesh") / "inventory.yml"
    path.write_text("version: 1\nnetworks: {corp: {cidr: 10.42.0.0/16}}\nnodes:\n  token:\n    mtu: x9\n")
    assert run(["validate", str(path)]) == 65
    assert "    mtu: x9\n" in capsys.readouterr().out
