"""SSH against real servers on loopback."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sshlab import Agent, Sshd, SshLab, free_port, make_key, node

from meshctl.deploy.door import NetworkDoor
from meshctl.deploy.hostkeys import KnownHosts
from meshctl.deploy.ssh import Connections
from meshctl.deploy.sshsettings import SshConfigs, resolve
from meshctl.deploy.sshtransport import _feed
from meshctl.deploy.transport import NotSentError
from meshctl.errors import RemoteError
from meshctl.model.mesh import Node, SshSettings


def connections(*nodes: Node, accept: bool = False) -> Connections:
    return Connections({n.name: n for n in nodes}, NetworkDoor(), accept)


def run(target: Node, command: str, stdin: bytes = b"", *others: Node, accept: bool = False) -> str:
    pool = connections(target, *others, accept=accept)
    try:
        return pool.transport(target).run(command, stdin).text()
    finally:
        pool.close()


def failure(target: Node, *others: Node, accept: bool = False) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        run(target, "true", b"", *others, accept=accept)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_a_command_gets_its_input_and_gives_status_and_both_streams(sshlab: SshLab) -> None:
    sshlab.start("a")
    pool = connections(sshlab.node("a"))
    done = pool.transport(sshlab.node("a")).run("cat; echo err >&2; exit 7", b"in")
    pool.close()
    assert (done.status, done.stdout, done.stderr) == (7, b"in", b"err\n")


def test_megabytes_on_all_three_streams_do_not_block(sshlab: SshLab) -> None:
    sshlab.start("a")
    pool = connections(sshlab.node("a"))
    data = os.urandom(5_000_000)
    done = pool.transport(sshlab.node("a")).run("tee /dev/stderr", data, timeout_s=60)
    pool.close()
    assert done.stdout == data
    assert done.stderr == data[: len(done.stderr)]


def test_a_command_that_does_not_read_its_input_still_ends_with_its_status(sshlab: SshLab) -> None:
    sshlab.start("a")
    pool = connections(sshlab.node("a"))
    done = pool.transport(sshlab.node("a")).run("exit 3", os.urandom(8_000_000), timeout_s=30)
    pool.close()
    assert done.status == 3


def test_input_for_a_connection_that_has_ended_is_dropped_without_a_word(sshlab: SshLab) -> None:
    sshlab.start("a")
    pool = connections(sshlab.node("a"))
    connection = pool.transport(sshlab.node("a"))._connection
    channel = connection.open_session()
    channel.exec_command("cat >/dev/null")
    connection.sock.shutdown(socket.SHUT_WR)  # what reads of it has not noticed yet
    _feed(channel, bytes(100_000))
    pool.close()


def test_a_command_that_runs_too_long_is_a_timeout(sshlab: SshLab) -> None:
    sshlab.start("a")
    pool = connections(sshlab.node("a"))
    with pytest.raises(RemoteError, match="no end of the command") as caught:
        pool.transport(sshlab.node("a")).run("sleep 5", timeout_s=0.2)
    pool.close()
    assert caught.value.kind == "timeout"


def test_an_unknown_host_key_is_refused_with_its_fingerprint(sshlab: SshLab) -> None:
    server = sshlab.start("a", trusted=False)
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(server.folder / "host_key.pub")], capture_output=True, text=True, check=True
    )
    error = failure(sshlab.node("a"))
    assert error.kind == "host-key"
    assert listed.stdout.split()[1] in error.message
    assert "--accept-new-host-keys" in error.hint


def test_a_learned_host_key_is_known_the_next_time(sshlab: SshLab) -> None:
    server = sshlab.start("a", trusted=False)
    sshlab.known_hosts.write_text("# no newline at the end")
    assert run(sshlab.node("a"), "echo hi", accept=True) == "hi\n"
    lines = sshlab.known_hosts.read_text().splitlines()
    assert lines == ["# no newline at the end", f"[127.0.0.1]:{server.port} {server.host_key}"]
    assert run(sshlab.node("a"), "echo hi") == "hi\n"


def test_a_changed_host_key_is_never_learned(sshlab: SshLab) -> None:
    server = sshlab.start("a", trusted=False)
    other = make_key(sshlab.folder / "other")
    wrong = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    sshlab.known_hosts.write_text(f"[127.0.0.1]:{server.port} {wrong}\n")
    error = failure(sshlab.node("a"), accept=True)
    assert error.kind == "host-key"
    assert "has changed" in error.message
    assert "ssh-keygen -R" in error.hint
    assert server.host_key not in sshlab.known_hosts.read_text()


def test_a_known_key_of_another_type_is_a_changed_key(sshlab: SshLab) -> None:
    server = sshlab.start("a", trusted=False)
    other = make_key(sshlab.folder / "other", kind="ecdsa")
    wrong = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    sshlab.known_hosts.write_text(f"[127.0.0.1]:{server.port} {wrong}\n")
    assert "has changed" in failure(sshlab.node("a"), accept=True).message


def test_the_type_of_key_that_is_known_is_asked_for(sshlab: SshLab) -> None:
    second = make_key(sshlab.folder / "rsa_host", kind="rsa")
    server = sshlab.start("a", trusted=False, more=f"HostKey {second}")
    known = " ".join(second.with_suffix(".pub").read_text().split()[:2])
    sshlab.known_hosts.write_text(f"[127.0.0.1]:{server.port} {known}\n")
    assert run(sshlab.node("a"), "echo hi") == "hi\n"


def test_hashed_known_hosts_are_understood(sshlab: SshLab) -> None:
    sshlab.start("a")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(sshlab.known_hosts)], check=True, capture_output=True)
    assert sshlab.known_hosts.read_text().startswith("|1|")
    assert run(sshlab.node("a"), "echo hi") == "hi\n"


def test_a_port_that_nobody_listens_on_is_refused() -> None:
    error = failure(node("a", SshSettings("127.0.0.1", free_port(), config="none")))
    assert error.kind == "refused"
    assert "is sshd running" in error.hint


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    error = failure(node("a", SshSettings("no-such-host.invalid", config="none")))
    assert error.kind == "unreachable"
    assert "cannot resolve no-such-host.invalid" in error.message


def test_a_host_that_accepts_and_says_nothing_ends_in_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = SshSettings("127.0.0.1", silent.getsockname()[1], config="none", connect_timeout_s=0.5)
        assert failure(node("a", settings)).kind == "unreachable"


def test_a_host_that_drops_packets_is_a_timeout() -> None:
    with socket.socket() as full:
        # A listener whose queue is full leaves further SYNs unanswered, as a firewall's drop rule does.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        error = failure(node("a", SshSettings("127.0.0.1", port, config="none", connect_timeout_s=0.5)))
        for filler in fillers:
            filler.close()
    assert error.kind == "timeout"
    assert "within 0.5 s" in error.message


def test_a_key_that_the_server_does_not_know_is_an_auth_failure_that_names_it(sshlab: SshLab) -> None:
    sshlab.start("a")
    stranger = make_key(sshlab.folder / "stranger")
    error = failure(sshlab.node("a", key=str(stranger)))
    assert error.kind == "auth"
    assert str(stranger) in error.message
    assert "ssh-copy-id" in error.hint


def test_an_encrypted_key_says_to_use_an_agent(sshlab: SshLab) -> None:
    sshlab.start("a")
    locked = make_key(sshlab.folder / "locked", passphrase="open sesame")
    error = failure(sshlab.node("a", key=str(locked)))
    assert error.kind == "auth"
    assert f"ssh-add {locked}" in error.hint


def test_an_encrypted_key_that_the_agent_holds_opens_the_door_from_many_threads(
    sshlab: SshLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = make_key(sshlab.folder / "locked", passphrase="open sesame")
    agent = Agent(sshlab.folder)
    try:
        agent.add(locked, "open sesame")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.socket))
        nodes = []
        for name in ("a", "b", "c", "d"):
            server = sshlab.start(name)
            (server.folder / "authorized_keys").write_text(locked.with_suffix(".pub").read_text())
            nodes.append(sshlab.node(name, key=str(locked)))
        pool = connections(*nodes)
        said: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: said.append(pool.transport(n).run("echo hi").text())) for n in nodes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.close()
        assert said == ["hi\n"] * 4
    finally:
        agent.close()


def test_the_users_ssh_config_fills_what_the_inventory_leaves_open(sshlab: SshLab) -> None:
    server = sshlab.start("a", trusted=False)
    known = sshlab.folder / "known_by_alias"
    known.write_text(f"the-alias {server.host_key}\n")
    config = sshlab.folder / "config"
    config.write_text(
        f"Host web1\n  HostName 127.0.0.1\n  Port {server.port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {sshlab.key}\n  IdentitiesOnly yes\n  HostKeyAlias the-alias\n  UserKnownHostsFile {known}\n"
    )
    assert run(node("web1", SshSettings("web1", config=str(config))), "echo hi") == "hi\n"


@pytest.mark.parametrize(("port", "used"), [(None, 2222), (22, 22), (2022, 2022)])
def test_a_port_of_the_inventory_beats_ssh_config_also_when_it_is_22(
    tmp_path: Path, port: int | None, used: int
) -> None:
    config = tmp_path / "config"
    config.write_text("Host web1\n  Port 2222\n")
    assert resolve(SshSettings("web1", port, config=str(config)), SshConfigs(), "web1").port == used


def test_a_proxy_command_carries_the_session(sshlab: SshLab) -> None:
    server = sshlab.start("a")
    config = sshlab.folder / "config"
    relay = (
        f"python3 -c 'import os,socket,threading; s=socket.create_connection((\"127.0.0.1\",{server.port}));"
        " threading.Thread(target=lambda:[os.write(1,d) for d in iter(lambda:s.recv(9999),b\"\")],daemon=True).start();"
        " [s.sendall(d) for d in iter(lambda:os.read(0,9999),b\"\")]'"
    )
    config.write_text(f"Host *\n  ProxyCommand {relay}\n")
    assert run(sshlab.node("a", config=str(config)), "echo hi") == "hi\n"


def test_a_chain_of_jump_hosts_reaches_what_is_behind_it_and_each_jump_is_opened_once(sshlab: SshLab) -> None:
    first, second = sshlab.start("first"), sshlab.start("second")
    sshlab.start("c")
    sshlab.start("d")
    user = getpass.getuser()
    jumps = (f"{user}@127.0.0.1:{first.port}", f"{user}@127.0.0.1:{second.port}")
    nodes = [sshlab.node(name, jump=jumps) for name in ("c", "d")]
    pool = connections(*nodes)
    assert [pool.transport(n).run("echo hi").text() for n in nodes] == ["hi\n", "hi\n"]
    pool.close()
    for jump in (first, second):
        assert sum("Accepted publickey" in line for line in jump.log) == 1


def test_a_jump_that_is_a_node_is_reached_by_that_nodes_settings_and_shares_its_connection(sshlab: SshLab) -> None:
    first = sshlab.start("first")
    sshlab.start("c")
    jump, target = sshlab.node("first"), sshlab.node("c", jump=("first",))
    pool = connections(jump, target)
    assert pool.transport(jump).run("echo one").text() == "one\n"
    assert pool.transport(target).run("echo two").text() == "two\n"
    pool.close()
    assert sum("Accepted publickey" in line for line in first.log) == 1


def test_a_jump_host_that_is_down_is_named_for_the_node_behind_it(sshlab: SshLab) -> None:
    sshlab.start("c")
    error = failure(sshlab.node("c", jump=(f"127.0.0.1:{free_port()}",)))
    assert (error.kind, error.node) == ("refused", "c")
    assert "jump host 127.0.0.1" in error.message


def test_a_target_that_the_jump_host_cannot_reach_is_named(sshlab: SshLab) -> None:
    first = sshlab.start("first")
    sshlab.start("c")
    behind = replace(sshlab.settings("c", jump=(f"{getpass.getuser()}@127.0.0.1:{first.port}",)), port=free_port())
    error = failure(node("c", behind))
    assert error.kind == "unreachable"
    assert "cannot reach 127.0.0.1" in error.message


def test_jump_hosts_in_a_circle_are_an_error_and_no_hang(sshlab: SshLab) -> None:
    sshlab.start("a")
    sshlab.start("b")
    one, two = sshlab.node("a", jump=("b",)), sshlab.node("b", jump=("a",))
    assert "circle" in failure(one, two).message


def test_a_server_that_dies_in_the_middle_is_a_lost_connection(sshlab: SshLab) -> None:
    sshlab.start("a")
    target = sshlab.node("a")
    pool = connections(target)
    with pytest.raises(RemoteError, match="connection was lost") as caught:
        pool.transport(target).run("kill -9 $PPID", timeout_s=10)
    pool.close()
    assert caught.value.kind == "unreachable"


def broken(server: Sshd, connection: Any) -> None:
    """What is sent fails; what reads of it does not notice."""
    server.hang()
    connection.sock.shutdown(socket.SHUT_WR)


def test_connections_whose_way_has_broken_are_closed_without_a_word(sshlab: SshLab) -> None:
    first = sshlab.start("first")
    sshlab.start("c")
    jump, target = sshlab.node("first"), sshlab.node("c", jump=("first",))
    pool = connections(jump, target)
    connection = pool.transport(jump)._connection
    behind = pool.transport(target)._connection
    broken(first, connection)
    pool.close()
    assert (connection.is_active(), behind.is_active()) == (False, False)


def test_a_command_on_a_connection_that_has_broken_meanwhile_ends_as_it_would_else(sshlab: SshLab) -> None:
    server = sshlab.start("a")
    pool = connections(sshlab.node("a"))
    transport = pool.transport(sshlab.node("a"))
    timer = threading.Timer(0.5, broken, (server, transport._connection))
    timer.start()
    with pytest.raises(RemoteError, match="no end of the command"):
        transport.run("sleep 30", timeout_s=2)
    timer.join()
    pool.close()


def test_an_ssh_session_that_fails_on_a_broken_way_says_what_failed(
    sshlab: SshLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sshlab.start("first")
    sshlab.start("c", trusted=False)
    jump, target = sshlab.node("first"), sshlab.node("c", jump=("first",))
    pool = connections(jump, target)
    connection = pool.transport(jump)._connection
    refuse = KnownHosts.check

    def check(known: KnownHosts, *words: str) -> None:
        broken(first, connection)
        refuse(known, *words)

    monkeypatch.setattr(KnownHosts, "check", check)
    with pytest.raises(RemoteError) as caught:
        pool.transport(target)
    pool.close()
    assert caught.value.kind == "host-key"


@pytest.mark.parametrize("size", [0, 30_000_000], ids=["said", "saying"])
def test_a_server_that_hangs_is_lost_long_before_the_command_may_end(sshlab: SshLab, size: int) -> None:
    server = sshlab.start("a")
    pool = connections(sshlab.node("a", keepalive_s=1))
    transport = pool.transport(sshlab.node("a", keepalive_s=1))
    transport._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # soon full, as on a slow line
    timer = threading.Timer(0.5, server.hang)
    timer.start()
    with pytest.raises(RemoteError, match="was lost: its SSH has not answered for 3 s") as caught:
        transport.run("cat >/dev/null; sleep 60", bytes(size), timeout_s=30)
    timer.join()
    assert caught.value.kind == "unreachable"
    with pytest.raises(NotSentError):
        transport.run("true", timeout_s=30)
    pool.close()


def test_of_a_connection_that_is_closed_nothing_goes_on(sshlab: SshLab) -> None:
    sshlab.start("a")
    before = set(threading.enumerate())
    pool = connections(sshlab.node("a"))
    pool.transport(sshlab.node("a"))
    began = [thread for thread in threading.enumerate() if thread not in before and thread.ident]
    assert began
    pool.close()
    for thread in began:
        thread.join(5.0)
    assert [thread.name for thread in began if thread.is_alive()] == []


def test_a_command_that_says_nothing_for_long_is_waited_for(sshlab: SshLab) -> None:
    sshlab.start("a")
    target = sshlab.node("a", keepalive_s=1)
    assert run(target, "sleep 6; echo hi") == "hi\n"


def test_no_key_of_ours_is_ever_in_what_a_failure_says(sshlab: SshLab) -> None:
    sshlab.start("a")
    stranger = make_key(sshlab.folder / "stranger")
    text = Path(stranger).read_text().splitlines()[1]
    assert text not in str(failure(sshlab.node("a", key=str(stranger))))
