"""The plan of real hosts as a comment on a pull request."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from meshlab import MeshLab

from meshctl.reports.markdown import SIZE_MAX_BYTES

pytestmark = pytest.mark.lab


def test_a_change_is_a_comment_with_a_section_for_each_host_that_changes(small: MeshLab, tmp_path: Path) -> None:
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1390))
    small.sh("fra1", "ip link set wg0 mtu 1300")
    comment = tmp_path / "comment.md"
    done = small.on_lab("plan", "--diff", "--report", f"markdown={comment}")
    assert done.code == 0, done.err
    assert small.on_lab("plan", "--diff", "--format", "markdown").out == comment.read_text()
    lines = comment.read_text().splitlines()
    assert lines[0].startswith("<!-- meshctl plan ")
    assert lines[1].endswith("(2 hosts)")
    assert re.findall(r"<summary><code>(\w+)</code>: \d+ changes?</summary>", comment.read_text()) == ["fra1", "web1"]
    assert "      mtu: 1300 -> 1420" in lines
    assert "      mtu: 1420 -> 1390" in lines
    assert "! update file /etc/wireguard/wg0.conf" in lines  # which holds keys, so its text is not shown
    secrets = [small.sh(node, "cat /etc/wireguard/wg0.key; wg show wg0 preshared-keys | cut -f2").split()
               for node in ("fra1", "web1")]  # fmt: skip
    assert all(len(found) > 1 for found in secrets)
    assert not [text for found in secrets for text in found if text in comment.read_text()]
    assert comment.stat().st_size < SIZE_MAX_BYTES
