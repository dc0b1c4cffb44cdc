"""What a failed step's output is taken for, and what stays behind of earlier versions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from meshctl.agent import process, units, versions
from meshctl.agent.compiled import SUFFIX
from meshctl.agent.failure import classify_output, redact

FALLBACK = "Error: Unknown device type.\n[!] Missing WireGuard kernel module. Falling back to slow userspace\n"


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("Error: Unknown device type.\nCannot find device wg0\n", "wireguard"),
        ("wireguard-go: not found\n", "wireguard"),
        # wireguard-go is there and something else stopped it, or its interface has just gone.
        (FALLBACK + "Unable to modify interface: Connection reset by peer\n", "command"),
        (FALLBACK + "Name or service not known: `fra1.example.net:51820'\n", "command"),
        ("Unable to access interface: Protocol not supported\n", "command"),
        ("dpkg: error: No space left on device\n", "disk-full"),
    ],
)
def test_a_failure_is_classified_by_what_stopped_it(output: str, kind: str) -> None:
    assert classify_output(output) == kind


def test_the_name_that_does_not_resolve_is_told_and_the_key_beside_it_is_not() -> None:
    stdin = b"PresharedKey = c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I=\nEndpoint = fra1.example.net:51820\n"
    said = redact("no `fra1.example.net:51820' c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I=", stdin)
    assert said == "no `fra1.example.net:51820' (redacted)"


def test_a_program_that_repeats_itself_is_quoted_once() -> None:
    assert redact("Ign: nftables\nIgn: nftables\n\nErr: nftables\n") == "Ign: nftables / Err: nftables"


def test_wg_gives_up_soon_on_a_name_that_does_not_resolve() -> None:
    ran = process.run([sys.executable, "-c", "import os; print(os.environ['WG_ENDPOINT_RESOLUTION_RETRIES'])"])
    assert 1 <= int(ran.stdout) <= 3


def test_only_systemctl_has_a_unit_to_ask() -> None:
    assert units.own_words(["ip", "link", "show"]) == ""


def test_the_zipapp_that_runs_the_one_before_and_the_agent_s_stay(tmp_path: Path) -> None:
    for age, name in enumerate(["running", "before", "older", "oldest"]):
        path = tmp_path / f"meshctl-agent-{name}.pyz"
        path.write_bytes(b"")
        os.utime(path, (1000 - age, 1000 - age))
        for suffix in (SUFFIX, ".cpython-26-0000", f"{SUFFIX}.new"):
            path.with_name(path.name + suffix).write_bytes(b"")
    others = {"theirs.pyz", "theirs.pyz.cpython-39-0000", "meshctl-agent-coming.pyz.4711"}
    for theirs in others:
        (tmp_path / theirs).write_bytes(b"")
    (tmp_path / "meshctl-agent.pyz").symlink_to(tmp_path / "meshctl-agent-oldest.pyz")
    versions.forget_old(tmp_path / "meshctl-agent-running.pyz")
    left = {path.name for path in tmp_path.iterdir()}
    kept = {f"meshctl-agent-{name}.pyz{suffix}" for name in ("running", "before", "oldest") for suffix in ("", SUFFIX)}
    assert left == {"meshctl-agent.pyz", *kept, *others}
