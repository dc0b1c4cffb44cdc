"""The mesh secret: where it comes from, and what is too weak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from render_meshes import mesh, node

from meshctl.model.mesh import SecretSource
from meshctl.render.secret import SecretError, find_secret, ring_for

GOOD = "q8Zt5n0mB1Vw3yXk7uJ2cR4sL6dH9fGpTaEeOoIiUuQ="
OTHER = "00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def made(folder: Path, **source: object) -> object:
    return replace(mesh(node("a", 1), base_dir=str(folder)), secret=SecretSource(**source))  # type: ignore[arg-type]


def test_without_any_source_there_is_no_secret(tmp_path: Path) -> None:
    assert find_secret(made(tmp_path), environ={}) is None


def test_wanted_keys_without_a_secret_are_an_error_that_names_every_way_out() -> None:
    with pytest.raises(SecretError, match="no mesh secret") as caught:
        ring_for(mesh(node("a", 1), node("b", 2)), environ={})
    for way in ("openssl rand", "$MESHCTL_SECRET", "--secret-file", "secret: {file: PATH}", "psk: false"):
        assert way in caught.value.hint


def test_a_mesh_in_which_no_pair_wants_keys_needs_no_secret() -> None:
    assert ring_for(mesh(node("a", 1, agent=False), node("b", 2, psk=False, agent=False)), environ={}) is None
    assert ring_for(mesh(node("a", 1), node("b", 2, networks=("lab",))), environ={}) is None


def test_agents_know_each_other_by_keys_of_the_secret_also_where_wireguard_has_none() -> None:
    with pytest.raises(SecretError, match="no mesh secret") as caught:
        ring_for(mesh(node("a", 1, psk=False), node("b", 2, psk=False, agent=False)), environ={})
    assert "agent: false" in caught.value.hint


def test_the_option_s_file_comes_before_the_variable_and_that_before_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "option").write_text(f"  {GOOD}\n")
    (tmp_path / "inventory").write_text(OTHER)
    m = made(tmp_path, file="inventory")
    environ = {"MESHCTL_SECRET": GOOD + "x"}
    assert find_secret(m, str(tmp_path / "option"), environ).reveal() == GOOD
    assert find_secret(m, None, environ).reveal() == GOOD + "x"
    assert find_secret(m, None, {}).reveal() == OTHER


def test_a_command_s_output_is_the_secret_and_it_starts_in_the_inventory_s_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text(GOOD + "\n")
    assert find_secret(made(tmp_path, command=("cat", "kept")), environ={}).reveal() == GOOD


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("false",), "exited with status 1"),
        (("sh", "-c", "echo the vault is locked >&2; exit 3"), "the vault is locked"),
        (("/no/such/program",), "No such file or directory"),
        (("true",), "the mesh secret is empty"),
    ],
)
def test_a_failing_command_is_explained(tmp_path: Path, command: tuple[str, ...], words: str) -> None:
    with pytest.raises(SecretError, match=words) as caught:
        find_secret(made(tmp_path, command=command), environ={})
    assert command[0] in caught.value.where
    assert caught.value.hint


def test_an_unreadable_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="No such file"):
        find_secret(made(tmp_path, file="nowhere"), environ={})


@pytest.mark.parametrize("weak", ["", "   ", "hunter2", "a" * 200, "ab" * 100, GOOD[:40], OTHER[:62]])
def test_less_than_32_bytes_of_entropy_is_refused_without_showing_any_of_it(tmp_path: Path, weak: str) -> None:
    with pytest.raises(SecretError) as caught:
        find_secret(made(tmp_path), environ={"MESHCTL_SECRET": weak})
    assert "openssl rand" in caught.value.hint
    assert not weak.strip() or weak not in str(caught.value)


@pytest.mark.parametrize("strong", [GOOD, OTHER, "correct horse battery staple and some more words"])
def test_32_bytes_of_base64_hex_or_words_are_enough(tmp_path: Path, strong: str) -> None:
    assert find_secret(made(tmp_path), environ={"MESHCTL_SECRET": strong}).reveal() == strong
