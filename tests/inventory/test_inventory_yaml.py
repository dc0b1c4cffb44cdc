"""Bad files: a clear finding in bounded time and memory, never a traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshctl.errors import Diagnostic, InventoryError
from meshctl.inventory import read
from meshctl.inventory.yaml_source import LINE_BREAK

VALID = """\
version: 1
defaults: {ssh: {user: root}, listen_port: 51820}
networks: {corp: {cidr: [10.42.0.0/16, "fd42:42::/48"]}}
groups: {web: {vars: {tags: [http]}}}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}
  web1: {groups: [web], address: 10.42.0.5, ssh: {jump: hub}}
  office: {roles: [gateway], routes: [192.168.10.0/24]}
  phone: {client: true, peers: [office]}
policies:
  - {name: p, from: [phone, "!web1"], to: [192.168.10.0/24], allow: [tcp/22]}
"""


def findings(file: Path, content: bytes) -> tuple[Diagnostic, ...]:
    file.write_bytes(content)
    try:
        return read(file).warnings
    except InventoryError as error:
        return error.diagnostics


CASES = {
    "an empty file": (b"", "empty", 1, 1),
    "only a comment": (b"# nothing\n", "empty", 1, 1),
    "a list at the top": (b"- a\n", "not-a-mapping", 1, 1),
    "a tab for indentation": (b"version: 1\nnodes:\n\ta: {}\n", "yaml-tab", 3, 1),
    "a duplicate key": (b"version: 1\nnodes: {}\nversion: 1\n", "duplicate-key", 3, 1),
    "a byte that is not UTF-8": (b"version: 1\nnodes: {\xff: {}}\n", "not-utf8", 2, 9),
    "UTF-16": ("version: 1".encode("utf-16"), "not-utf8", 1, 1),
    "a NUL": (b"version: 1\n\0", "yaml-syntax", 2, 1),
    "a control character": ("é: \x01".encode(), "yaml-syntax", 1, 4),
    "two documents": (b"version: 1\n---\nversion: 1\n", "yaml-documents", 2, 1),
    "a Python object": (b"version: !!python/object/apply:os.system [id]\n", "yaml-tag", 1, 10),
    "a tag of its own": (b"version: !mine 1\n", "yaml-tag", 1, 10),
    "not a number": (b"vars: .nan\n", "bad-number", 1, 7),
    "infinity": (b"vars: -.inf\n", "bad-number", 1, 7),
    "a number that overflows": (b"vars: 1e999\n", "bad-number", 1, 7),
    "a number of 5,000 digits": (b"vars: " + b"9" * 5000 + b"\n", "bad-number", 1, 7),
    "a key that is a number": (b"nodes: {1: {}}\n", "key-type", 1, 9),
    "a key that is a boolean": (b"nodes: {true: {}}\n", "key-type", 1, 9),
    "a key that is a list": (b"? [a]\n: b\n", "key-type", 1, 3),
    "a list for a key beside a key that is refused": (b"[a]: 1\nx: 1\n", "key-type", 1, 1),
    "a list tagged as text for a key beside a merge": (b"nodes: {<<: {}, !!str [a]: 1}\n", "key-type", 1, 17),
    "an alias without its anchor": (b"nodes: *x\n", "yaml-syntax", 1, 8),
    "an anchor defined twice": (b"a: &x 1\nb: &x 2\n", "yaml-syntax", 2, 4),
    "an alias that holds itself": (b"nodes: &x {a: *x}\n", "yaml-depth", 1, 1),
    "an open bracket": (b"nodes: [a\n", "yaml-syntax", 2, 1),
    "a merge conflict": (b"<<<<<<< HEAD\nversion: 1\n=======\n", "yaml-syntax", 1, 1),
    "brackets 100,000 deep": (b"[" * 100_000, "yaml-depth", 1, 64),
    "dashes 50,000 deep": (b"- " * 50_000, "yaml-depth", 1, 127),
    "a merge conflict further down": (b"version: 1\nnodes:\n  a: {}\n<<<<<<< HEAD\n  b: {}\n", "yaml-syntax", 4, 1),
    "a merge key on a text": (b"version: 1\n<<: x\n", "yaml-merge", 2, 5),
}


@pytest.mark.parametrize("name", CASES)
def test_a_finding_with_its_place_is_given_for(name: str, tmp_path: Path) -> None:
    content, code, line, column = CASES[name]
    found = findings(tmp_path / "inventory.yml", content)
    assert (code, line, column) in [(d.code, d.line, d.column) for d in found]


def test_a_byte_order_mark_is_no_error_and_shifts_no_column(tmp_path: Path) -> None:
    assert findings(tmp_path / "inventory.yml", b"\xef\xbb\xbf" + VALID.encode()) == ()
    found = findings(tmp_path / "inventory.yml", b"\xef\xbb\xbfvresion: 1\n")
    assert ("unknown-key", 1, 1) in [(d.code, d.line, d.column) for d in found]


def test_a_missing_file_and_a_folder_without_yaml_are_explained(tmp_path: Path) -> None:
    for path, word in ((tmp_path / "none.yml", "no such file"), (tmp_path, "no .yml file")):
        with pytest.raises(InventoryError) as caught:
            read(path)
        assert word in caught.value.diagnostics[0].message


def test_a_loop_of_symbolic_links_is_explained(tmp_path: Path) -> None:
    loop = tmp_path / "inventory.yml"
    loop.symlink_to(loop)
    with pytest.raises(InventoryError, match="1 error") as caught:
        read(loop)
    assert caught.value.diagnostics[0].code == "unreadable"


def test_a_folder_merges_and_a_key_in_two_files_names_both(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(VALID)
    (tmp_path / "b.yaml").write_text("version: 1\nnodes: {web2: {groups: [web]}}\nlab: {routers: {x: {}}}\n")
    (tmp_path / "c.yml").write_text("lab: {routers: {y: {behind: x}}}\npolicies:\n")
    (tmp_path / "web_test.yml").write_text("this: is not part of it\n")
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / "x.yml").write_text("neither: is this\n")
    mesh = read(tmp_path).mesh
    assert sorted(mesh.nodes) == ["hub", "office", "phone", "web1", "web2"]
    assert sorted(mesh.lab["routers"]) == ["x", "y"]
    assert mesh.nodes["web2"].position.file == str(tmp_path / "b.yaml")
    (tmp_path / "c.yml").write_text("nodes: {web1: {}}\n")
    with pytest.raises(InventoryError) as caught:
        read(tmp_path)
    (found,) = caught.value.diagnostics
    assert (found.code, found.file, found.line) == ("duplicate-key", str(tmp_path / "c.yml"), 1)
    assert f"{tmp_path / 'a.yml'}:7:3" in found.hint


def test_faults_in_several_files_of_a_folder_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("version: [\n")
    (tmp_path / "b.yml").write_text("nodes:\n\tx: {}\n")
    with pytest.raises(InventoryError) as caught:
        read(tmp_path)
    assert [Path(d.file).name for d in caught.value.diagnostics] == ["a.yml", "b.yml"]


def limited(file: Path) -> subprocess.CompletedProcess[str]:
    """`meshctl validate FILE` with 10 seconds of CPU and 700 MB of address space."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
        resource.setrlimit(resource.RLIMIT_AS, (700_000_000, 700_000_000))

    return subprocess.run(
        [sys.executable, "-m", "meshctl", "validate", str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit,
        check=False,
    )


BOMBS = {
    "a file of 100 MB": (b"nodes: {a: {}}\n" * 7_000_000, "too-large"),
    "billion laughs": (
        b"a0: &a0 [lol, lol]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 30)),
        "yaml-size",
    ),
    "a billion merges": (
        b"a0: &a0 {" + b", ".join(b"k%d: 1" % i for i in range(1000)) + b"}\nb:\n" + b"- {<<: *a0}\n" * 100_000,
        "yaml-size",
    ),
    "a million values": (b"a: [" + b"1, " * 1_000_000 + b"]\n", "yaml-size"),
    "a hundred thousand unknown keys": (b"".join(b"k%d: 1\n" % i for i in range(100_000)), "too-many-errors"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_time_and_memory_are_bounded_for(name: str, tmp_path: Path) -> None:
    content, code = BOMBS[name]
    file = tmp_path / "inventory.yml"
    file.write_bytes(content)
    run = limited(file)
    assert run.returncode == 65, run.stderr[-500:]
    assert f"[{code}]" in run.stdout
    assert "Traceback" not in run.stderr


def check_never_a_traceback(folder: Path, content: bytes) -> None:
    """The invariant: warnings or findings, each with a place inside the file."""
    file = folder / "inventory.yml"
    lines = LINE_BREAK.split(content.decode("utf-8", errors="replace"))
    for d in findings(file, content):
        assert d.code
        assert d.message
        assert 0 <= d.line <= len(lines) + 1
        if 0 < d.line <= len(lines):
            assert 1 <= d.column <= len(lines[d.line - 1]) + 2


QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ALPHABET = st.sampled_from(
    [*"{}[]:,-#&*!|>'\"%@`~ \n\t0123456789abcxyz.<?/é\0", "nodes", "networks", "- ", ": ", "\n  ", "<<: ", "*a", "&a "]
)
YAMLISH = st.lists(ALPHABET, max_size=60).map("".join)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["10.42.0.5", "web", "hub", "*", "tcp/22", "wg0", "auto", "0.0.0.0/0", "a:b", "::", "[::]:1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["corp", "cidr"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@QUICK
@given(YAMLISH)
def test_random_text_never_gives_a_traceback(tmp_path: Path, text: str) -> None:
    check_never_a_traceback(tmp_path, text.encode())


@QUICK
@given(st.integers(0, len(VALID)), st.integers(0, 12), YAMLISH)
def test_a_damaged_inventory_never_gives_a_traceback(tmp_path: Path, at: int, length: int, text: str) -> None:
    check_never_a_traceback(tmp_path, (VALID[:at] + text + VALID[at + length :]).encode())


@QUICK
@given(st.data())
def test_any_value_in_any_place_never_gives_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    import yaml

    document = yaml.safe_load(VALID)
    places = []
    todo = [document]
    while todo:
        here = todo.pop()
        for key in here if isinstance(here, dict) else range(len(here)):
            places.append((here, key))
            if isinstance(here[key], (dict, list)):
                todo.append(here[key])
    where, key = data.draw(st.sampled_from(places))
    where[key] = data.draw(VALUES)
    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    check_never_a_traceback(tmp_path, text.encode("utf-8", errors="surrogatepass"))


@QUICK
@given(st.sampled_from(["policies", "tests", "services", "lab", "secret", "groups", "stun"]), VALUES)
def test_any_value_as_a_section_never_gives_a_traceback(tmp_path: Path, section: str, value: object) -> None:
    import yaml

    document = yaml.safe_load(VALID)
    document[section] = value
    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    check_never_a_traceback(tmp_path, text.encode("utf-8", errors="surrogatepass"))
