"""The script itself: quoted by type, valid for dash, run here for real where that needs no root."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meshctl.core.sysctl import proc_path
from meshctl.facts import FactsRequest, parse, request_for, script
from meshctl.model.places import SEARCH_PATH
from meshctl.model.resources import File, Nftables, NodeDoc, Package, Service, Sysctl

NAMES = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), min_size=1, max_size=12)


def run(text: str) -> str:
    return subprocess.run(["/bin/sh", "-s"], input=text, capture_output=True, text=True, check=True).stdout


def test_the_request_names_what_the_document_names_once() -> None:
    doc = NodeDoc(
        "web1",
        (
            Package(("b", "a")), Package(("a",)), File("/etc/x"), Sysctl("a.b", "1"), Service("s"),
            Nftables("inet", "t", ""),
        ),
    )
    assert request_for(doc) == FactsRequest(
        paths=("/etc/x",), packages=("a", "b"), sysctls=("a.b",), units=("s",), tables=("inet t",)
    )


def test_files_links_and_folders_with_odd_names_are_told_apart(tmp_path: Path) -> None:
    names = ["plain", "a b", "new\nline", "quo'te\"s", "back\\slash", "é", "-n", "*", "$(touch x)", "@END@"]
    for name in names:
        (tmp_path / name).write_text(name)
    (tmp_path / "link to").symlink_to(tmp_path / "new\nline")
    (tmp_path / "dir").mkdir(mode=0o750)
    paths = tuple(str(tmp_path / name) for name in [*names, "link to", "dir", "missing"])
    files = parse("web1", run(script(FactsRequest(paths=paths)))).files
    assert {p: f.sha256 for p, f in files.items() if f.kind == "file"} == {
        str(tmp_path / name): hashlib.sha256(name.encode()).hexdigest() for name in names
    }
    assert files[str(tmp_path / "link to")].target == str(tmp_path / "new\nline")
    assert (files[str(tmp_path / "dir")].kind, files[str(tmp_path / "dir")].mode) == ("directory", "0750")
    assert str(tmp_path / "missing") not in files


def test_a_host_without_any_tool_still_answers_to_the_end(tmp_path: Path) -> None:
    request = FactsRequest(("/etc/x",), ("p",), ("net.ipv4.ip_forward",), ("u",), ("wg0",), ("/k",), ("inet t",))
    text = script(request)
    facts = parse("web1", run(text.replace(SEARCH_PATH, str(tmp_path))))
    assert (facts.has_wg, facts.tools, facts.python, facts.interfaces) == (False, frozenset(), None, {})


def test_a_script_that_is_cut_short_runs_nothing() -> None:
    text = script(FactsRequest())
    ran = subprocess.run(["/bin/sh", "-s"], input=text[: len(text) - 60], capture_output=True, text=True, check=False)
    assert ran.stdout == ""


def test_the_script_is_valid_for_a_plain_posix_shell_whatever_the_names() -> None:
    @given(NAMES)
    def check(name: str) -> None:
        text = script(FactsRequest((name,), (name,), (name,), (name,), (name,), (name,), (f"inet {name}",)))
        subprocess.run(["/bin/sh", "-n"], input=text.encode(), check=True)

    check()


def test_a_sysctl_has_the_file_that_sysctl_8_gives_it() -> None:
    assert proc_path("net.ipv4.ip_forward") == "/proc/sys/net/ipv4/ip_forward"
    assert proc_path("net.ipv4.conf.eth0/100.rp_filter") == "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"
    assert proc_path("net/ipv4/conf/eth0.100/rp_filter") == "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"
