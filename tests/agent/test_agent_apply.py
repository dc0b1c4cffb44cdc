"""The applier as it ships (the zipapp), in a mount and network namespace of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from agent_node import Node, write

from meshctl.model.ledger import LEDGER_PATH, Ledger, TableRecord
from meshctl.model.steps import Result, Step, Transaction
from meshctl.render import zipapp


def test_the_next_start_finds_what_the_first_one_compiled(node: Node) -> None:
    assert node.apply(write("/mnt/a", "1")).ok
    (compiled,) = node.agent.parent.glob("agent.pyz.cpython-*")
    loaded = node.sh(f"/usr/bin/python3 -v -I -S {node.agent} --help 2>&1 | grep 'meshctl.agent.main'")
    assert compiled.name in loaded
    assert node.apply(write("/mnt/a", "2")).ok


def test_the_zipapp_is_the_same_bytes_every_time() -> None:
    zipapp.build.cache_clear()
    first = zipapp.build().content
    zipapp.build.cache_clear()
    assert zipapp.build().content == first


def test_the_zipapp_is_named_after_its_sources_and_not_after_how_they_are_compressed() -> None:
    one = zipapp.Zipapp({"a.py": b"x = 1\n", "b.py": b""})
    assert one.hash == zipapp.Zipapp({"b.py": b"", "a.py": b"x = 1\n"}).hash
    others = [{"a.py": b"x = 2\n", "b.py": b""}, {"a.py": b"x = 1\n"}, {"a.py": b"", "b.py": b"x = 1\n"}]
    assert one.hash not in {zipapp.Zipapp(members).hash for members in others}


def test_the_zipapp_is_the_same_bytes_from_a_zip_of_the_package(tmp_path: Path) -> None:
    root = Path(zipapp.__file__).parents[2]
    archive = tmp_path / "controller.zip"
    script = (
        "import sys, zipfile, pathlib; root = pathlib.Path(sys.argv[1]); z = zipfile.ZipFile(sys.argv[2], 'w');"
        "[z.write(p, p.relative_to(root)) for p in sorted(root.glob('meshctl/**/*.py'))]; z.close()"
    )
    subprocess.run([sys.executable, "-c", script, str(root), str(archive)], check=True)
    program = "from meshctl.render.zipapp import build; print(build().hash)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(archive)}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == zipapp.build().hash


def test_all_kinds_of_file_steps_do_what_they_say_and_are_idempotent(node: Node) -> None:
    steps = (
        Step("mkdir", path="/mnt/d", mode="0750", owner="root", group="root"),
        write("/mnt/d/deep/er/f", "hello", "0640"),
        Step("link", path="/mnt/l", target="/mnt/d"),
        Step("attrs", path="/mnt/d/deep", mode="0711"),
        Step("remove", path="/mnt/gone"),
        Step("run", argv=("cp", "/dev/stdin", "/mnt/copied"), stdin=b"by cp"),
    )
    for id_ in ("t1", "t2"):
        result = node.apply(*steps, id_=id_)
        assert (result.ok, result.phase, result.done) == (True, "done", tuple(range(6)))
    assert node.sh("cat /mnt/l/deep/er/f /mnt/copied; stat -c ' %a' /mnt/d /mnt/d/deep /mnt/d/deep/er/f") == (
        "helloby cp 750\n 711\n 640\n"
    )
    assert node.sh("find /mnt -name '.meshctl*'") == ""


def test_a_cleanup_that_fails_or_is_not_there_is_a_warning_and_holds_up_nothing(node: Node) -> None:
    result = node.apply(
        Step("cleanup", argv=("sh", "-c", "touch /mnt/cleaned")),
        Step("cleanup", argv=("sh", "-c", "echo all; echo the router is silent >&2; exit 3")),
        Step("cleanup", argv=("/usr/local/bin/gone", "cleanup")),
        write("/mnt/a", "1"),
    )
    assert (result.ok, result.done) == (True, (0, 1, 2, 3))
    assert node.sh("ls /mnt") == "a\ncleaned\n"
    silent, gone = result.warnings
    assert "the router is silent" in silent
    assert gone.startswith("/usr/local/bin/gone cleanup: /usr/local/bin/gone: not found")


def test_the_first_failing_step_ends_it_and_says_which(node: Node) -> None:
    result = node.apply(
        write("/mnt/a", "1"), Step("run", argv=("sh", "-c", "echo broken >&2; exit 4")), write("/mnt/b", "2")
    )
    assert not result.ok
    assert result.failure is not None
    assert (result.phase, result.done, result.failure.index, result.failure.kind) == ("converge", (0,), 1, "command")
    assert "broken" in result.failure.message
    assert node.sh("ls -A /mnt") == "a\n", "no temporary file of the step that was not reached"


def test_a_directory_that_is_not_empty_is_kept_with_a_warning(node: Node) -> None:
    node.sh("mkdir /mnt/d; touch /mnt/d/theirs")
    result = node.apply(Step("remove", path="/mnt/d"))
    assert result.ok
    assert result.warnings == ("/mnt/d is kept: it is not empty",)


def test_a_full_disk_is_noticed_before_anything_is_touched(node: Node) -> None:
    node.sh("echo old > /mnt/a")
    result = node.apply(write("/mnt/a", "new"), write("/mnt/big", "x" * 9_000_000))
    assert result.failure is not None
    assert (result.phase, result.failure.kind) == ("stage", "disk-full")
    assert node.sh("cat /mnt/a; ls -A /mnt") == "old\na\n"


def test_a_full_disk_under_the_journal_is_disk_full_too(node: Node) -> None:
    node.sh("head -c 9M /dev/zero > /var/lib/meshctl/fill", check=False)
    result = node.apply(write("/mnt/a", "new"))
    assert result.failure is not None
    assert result.failure.kind == "disk-full"
    assert node.sh("ls -A /mnt") == ""


def test_a_program_that_is_missing_is_found_out_before_anything_is_touched(node: Node) -> None:
    result = node.apply(write("/mnt/a", "new"), Step("run", argv=("no-such-program",)))
    assert result.failure is not None
    assert (result.phase, result.failure.index) == ("stage", 1)
    assert node.sh("ls -A /mnt") == ""


def test_a_held_package_lock_is_found_out_before_anything_is_touched(node: Node) -> None:
    holder = subprocess.Popen(
        [*node.enter, "sh", "-c", "touch /var/lib/dpkg/lock-frontend; exec "
         "python3 -c \"import fcntl,sys; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f,fcntl.LOCK_EX);"
         " print('held', flush=True); sys.stdin.read()\""],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    result = node.apply(write("/mnt/a", "1"), Step("run", argv=("apt-get", "install", "-y", "wireguard-tools")))
    holder.communicate()
    assert result.failure is not None
    assert (result.phase, result.failure.kind) == ("stage", "package-lock")
    assert node.sh("ls -A /mnt") == ""


def test_a_second_apply_is_told_who_holds_the_lock(node: Node) -> None:
    node.sh("mkfifo /mnt/wait /mnt/started")
    first = node.start(Transaction("t1", "n", (Step("run", argv=("sh", "-c", "echo > /mnt/started; cat /mnt/wait")),)))
    node.sh("cat /mnt/started")
    result = node.apply(write("/mnt/a", "1"), id_="t2")
    node.sh("echo > /mnt/wait")
    out, _ = first.communicate(timeout=30)
    assert Result.from_json(out.decode()).ok
    assert result.failure is not None
    assert result.failure.kind == "locked"
    assert "pid " in result.failure.message
    assert " since " in result.failure.message


def test_a_lost_connection_does_not_stop_it_and_the_result_is_in_the_journal(node: Node) -> None:
    node.sh("mkfifo /mnt/wait /mnt/started")
    steps = (Step("run", argv=("sh", "-c", "echo > /mnt/started; cat /mnt/wait")), write("/mnt/a", "after"))
    process = node.start(Transaction("t1", "n", steps))
    node.sh("cat /mnt/started")
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    node.sh("echo > /mnt/wait")
    process.wait(timeout=30)
    assert node.sh("cat /mnt/a") == "after"
    last = json.loads(node.sh("tail -n 1 /var/lib/meshctl/journal/t1.jsonl"))
    assert (last["event"], last["ok"], last["done"]) == ("end", True, [0, 1])


@pytest.mark.parametrize("killed_at", range(3))
def test_a_kill_at_any_step_leaves_whole_files_and_the_next_run_cleans_up(node: Node, killed_at: int) -> None:
    paths = [f"/mnt/f{number}" for number in range(3)]
    node.sh("".join(f"printf old > {path};" for path in paths))
    steps = [write(path, "new") for path in paths]
    kill = Step("run", argv=("sh", "-c", "kill -9 $PPID"))
    process = node.start(Transaction("t1", "n", (*steps[:killed_at], kill, *steps[killed_at:])))
    process.communicate(timeout=30)
    assert process.returncode != 0
    expected = ["new"] * killed_at + ["old"] * (3 - killed_at)
    assert [node.sh(f"cat {path}") for path in paths] == expected
    assert node.sh("find /mnt -name '.meshctl*'").count("\n") == 3 - killed_at
    assert node.apply(*steps, id_="t2").ok
    assert [node.sh(f"cat {path}") for path in paths] == ["new"] * 3
    assert node.sh("find /mnt -name '.meshctl*'") == ""


def test_a_key_is_made_once_and_only_root_may_read_it(node: Node) -> None:
    step = Step("key", path="/etc/wireguard/wg0.key", interface="wg0")
    assert node.apply(step).ok
    key = node.sh("cat /etc/wireguard/wg0.key")
    assert len(key) == 45
    assert node.sh("stat -c %a /etc/wireguard/wg0.key") == "600\n"
    assert node.apply(step, id_="t2").ok
    assert node.sh("cat /etc/wireguard/wg0.key") == key


def test_a_key_in_an_old_configuration_is_adopted(node: Node) -> None:
    key = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
    node.sh(f"printf '[Interface]\\nprivatekey = {key.strip()}\\n' > /etc/wireguard/wg0.conf")
    assert node.apply(Step("key", path="/etc/wireguard/wg0.key", interface="wg0")).ok
    assert node.sh("cat /etc/wireguard/wg0.key") == key


def test_a_key_file_that_holds_no_key_is_not_overwritten(node: Node) -> None:
    node.sh("echo nonsense > /etc/wireguard/wg0.key")
    result = node.apply(Step("key", path="/etc/wireguard/wg0.key", interface="wg0"))
    assert result.failure is not None
    assert "does not hold a WireGuard private key" in result.failure.message
    assert node.sh("cat /etc/wireguard/wg0.key") == "nonsense\n"


def test_the_ledger_gets_the_hash_of_the_table_as_this_kernel_lists_it(node: Node) -> None:
    ledger = Ledger(tables={"inet meshctl": TableRecord("source", "")})
    result = node.apply(
        Step("table", path="inet meshctl", stdin=b"table inet meshctl { chain c { tcp dport 22 accept; }\n}\n"),
        Step("ledger", content=ledger.to_json().encode()),
    )
    assert result.ok
    listing = node.sh("nft -s list table inet meshctl | sha256sum").split()[0]
    written = Ledger.from_json(node.sh(f"cat {LEDGER_PATH}"))
    assert written.tables["inet meshctl"] == TableRecord("source", listing)


def test_the_snapshot_holds_what_was_there_and_the_last_five_are_kept(node: Node) -> None:
    node.sh("printf before > /mnt/a; chmod 600 /mnt/a")
    for number in range(7):
        assert node.apply(write("/mnt/a", f"v{number}"), id_=f"t{number}").ok
    assert node.sh("ls /var/lib/meshctl/snapshots /var/lib/meshctl/journal").split() == [
        "/var/lib/meshctl/journal:", *(f"t{n}.jsonl" for n in range(7)),
        "/var/lib/meshctl/snapshots:", *(f"t{n}" for n in range(2, 7)),
    ]  # fmt: skip
    manifest = json.loads(node.sh("cat /var/lib/meshctl/snapshots/t2/manifest.json"))
    saved = manifest["files"]["/mnt/a"]
    assert saved["mode"] == "0644"
    assert node.sh(f"cat /var/lib/meshctl/snapshots/t2/{saved['content']}") == "v1"
    assert node.sh("stat -c %a /var/lib/meshctl/snapshots /var/lib/meshctl/snapshots/t2") == "700\n700\n"


def test_verify_returns_what_the_facts_script_prints(node: Node) -> None:
    assert node.apply(write("/mnt/a", "x"), facts_script="cat /mnt/a; echo y").facts == "xy\n"


@pytest.mark.parametrize("document", [b"", b"nonsense", Transaction("t", "n", ()).encode()[:-5]])
def test_a_cut_or_damaged_document_is_answered_and_nothing_is_touched(node: Node, document: bytes) -> None:
    done = subprocess.run(node.command, input=document, capture_output=True, check=False, timeout=30)
    result = Result.from_json(done.stdout.decode())
    assert done.stderr == b""
    assert result.failure is not None
    assert result.failure.kind == "protocol"
    assert node.sh("ls -A /var/lib/meshctl") == ""


def test_no_secret_of_a_step_is_in_the_answer_or_in_the_journal(node: Node) -> None:
    secret = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip()
    word = "correct-horse-battery-staple"
    result = node.apply(
        write("/mnt/a", secret, "0600"),
        Step("run", argv=("sh", "-c", "cat >&2; exit 1"), stdin=f"PresharedKey = {secret} {word}\n".encode()),
    )
    assert result.failure is not None
    said = result.to_json() + node.sh("cat /var/lib/meshctl/journal/*")
    assert secret not in said
    assert word not in said
