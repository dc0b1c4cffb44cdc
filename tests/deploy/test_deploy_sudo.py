"""sudo as it is on a Debian host: without a password, with the right one, a wrong one, none, and not at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import Host
from sshlab import SshLab

from meshctl.deploy.door import NetworkDoor
from meshctl.deploy.ssh import Connections
from meshctl.deploy.transport import Completed
from meshctl.errors import RemoteError
from meshctl.model.keys import Secret

PASSWORD = "open sesame 42"
USER = "opsuser"


@pytest.fixture
def host(sshlab: SshLab) -> Iterator[Host]:
    """A host whose commands run as a user who is not root; the accounts are in its own /etc."""
    found = Host(sshlab.folder / "host")
    found.sh(f"useradd -M -s /bin/sh {USER}; printf '%s:%s' {USER} '{PASSWORD}' | chpasswd; mkdir -p /run/sudo")
    text = found.enter.read_text().replace("-- sh -c", f"-- runuser -u {USER} -- sh -c")
    found.enter.write_text(text)
    sshlab.start("a", force=str(found.enter))
    yield found
    found.close()


def allow(host: Host, rule: str) -> None:
    host.sh(f"printf '%s\\n' '{USER} ALL=(ALL) {rule}' > /etc/sudoers.d/ops; chmod 440 /etc/sudoers.d/ops")


def run(sshlab: SshLab, command: str, stdin: bytes = b"", password: str | None = None) -> Completed:
    node = sshlab.node("a", sudo=True)
    pool = Connections({"a": node}, NetworkDoor(), password=None if password is None else Secret(password))
    try:
        return pool.transport(node).run(command, stdin, timeout_s=30)
    finally:
        pool.close()


def refusal(sshlab: SshLab, password: str | None = None) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        run(sshlab, "id -u", b"line one\nline two\nline three\nline four\n", password)
    assert caught.value.kind == "sudo"
    assert caught.value.hint
    assert PASSWORD not in str(caught.value)
    return caught.value


def test_sudo_without_a_password_gives_the_command_its_whole_input(sshlab: SshLab, host: Host) -> None:
    allow(host, "NOPASSWD: ALL")
    assert run(sshlab, "id -u; cat", b"input\n").stdout == b"0\ninput\n"


def test_a_password_that_sudo_wants_is_not_part_of_the_commands_input(sshlab: SshLab, host: Host) -> None:
    allow(host, "ALL")
    assert run(sshlab, "id -u; cat", b"input\n\x00\xff", PASSWORD).stdout == b"0\ninput\n\x00\xff"


def test_a_password_that_sudo_does_not_want_is_not_part_of_the_commands_input_either(
    sshlab: SshLab, host: Host
) -> None:
    allow(host, "NOPASSWD: ALL")
    assert run(sshlab, "id -u; cat", b"input\n", PASSWORD).stdout == b"0\ninput\n"


def test_a_missing_password_says_how_to_give_one(sshlab: SshLab, host: Host) -> None:
    allow(host, "ALL")
    assert "--ask-sudo-pass" in refusal(sshlab).hint


def test_a_wrong_password_is_said_to_be_wrong(sshlab: SshLab, host: Host) -> None:
    allow(host, "ALL")
    assert "did not accept the password" in refusal(sshlab, "wrong").message


def test_a_user_who_may_not_use_sudo_is_told_so(sshlab: SshLab, host: Host) -> None:
    assert "refused" in refusal(sshlab, PASSWORD).message


def test_a_failing_command_under_sudo_is_not_taken_for_sudos_refusal(sshlab: SshLab, host: Host) -> None:
    allow(host, "NOPASSWD: ALL")
    assert run(sshlab, "echo 'pseudo: no' >&2; exit 5").status == 5
