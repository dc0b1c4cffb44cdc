"""The deploy parts that need no host: known_hosts, --limit, plan files, answers, workers."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from meshctl.cli import show
from meshctl.core.change import Change
from meshctl.deploy import confirm, planfile
from meshctl.deploy.check import Counters
from meshctl.deploy.host import Host, applied_changes
from meshctl.deploy.hostkeys import HostKeyRefused, KnownHosts, known_name, parse
from meshctl.deploy.keys import left_out
from meshctl.deploy.outcome import UNCHANGED, ApplyOutcome, NodeOutcome, PlanOutcome
from meshctl.deploy.parallel import Interrupts, Workers
from meshctl.deploy.phases import guarded
from meshctl.deploy.selection import select
from meshctl.deploy.transport import Completed
from meshctl.errors import RemoteError, UsageError
from meshctl.inventory import load_schema
from meshctl.model.facts import PendingApply
from meshctl.model.mesh import Attachment, Mesh, Network, Node, SshSettings
from meshctl.model.resources import NodeDoc
from meshctl.model.steps import Result, Step, StepFailure, Transaction

BLOB = base64.b64encode(b"key").decode()
OTHER = base64.b64encode(b"other").decode()


def known(tmp_path: Path, text: str, *, accept: bool = False) -> KnownHosts:
    path = tmp_path / "known_hosts"
    path.write_text(text)
    return KnownHosts([path], accept)


@given(st.text())
def test_any_text_parses_as_known_hosts(text: str) -> None:
    for key in parse(text):
        key.covers("host")


@pytest.mark.parametrize(
    ("patterns", "name", "covered"),
    [
        ("web1", "web1", True),
        ("web1,web2", "web2", True),
        ("*.example.net", "a.example.net", True),
        ("*.example.net,!b.example.net", "b.example.net", False),
        ("web?", "web1", True),
        ("[web1]:2222", "[web1]:2222", True),
        ("[web1]:2222", "web1", False),
        ("[2001:db8::1]:2222", "[2001:db8::1]:2222", True),
    ],
)
def test_patterns_mean_what_openssh_says(patterns: str, name: str, covered: bool) -> None:
    assert parse(f"{patterns} ssh-ed25519 {BLOB}")[0].covers(name) is covered


def test_names_are_in_lower_case_with_the_port_where_it_is_not_22() -> None:
    assert (known_name("Web1", 22), known_name("Web1", 2222)) == ("web1", "[web1]:2222")


def test_a_revoked_key_is_refused_even_when_another_line_trusts_it(tmp_path: Path) -> None:
    text = f"web1 ssh-ed25519 {BLOB}\n@revoked * ssh-ed25519 {BLOB}\n"
    with pytest.raises(HostKeyRefused, match="revoked"):
        known(tmp_path, text, accept=True).check("web1", "ssh-ed25519", BLOB)


def test_many_threads_learn_every_key_once(tmp_path: Path) -> None:
    hosts = known(tmp_path, "", accept=True)
    threads = [
        threading.Thread(target=hosts.check, args=(f"h{n % 10}", "ssh-ed25519", BLOB)) for n in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "known_hosts").read_text().splitlines()
    assert sorted(lines) == [f"h{n} ssh-ed25519 {BLOB}" for n in range(10)]
    with pytest.raises(HostKeyRefused, match="has changed"):
        hosts.check("h1", "ssh-ed25519", OTHER)


def mesh() -> Mesh:
    def node(name: str, client: bool = False) -> Node:
        return Node(name, (Attachment("corp", "wg0", ("10.0.0.1",), 1),), SshSettings(name), client=client)

    nodes = {name: node(name) for name in ("db1", "web1", "web2", "web3")} | {"phone": node("phone", client=True)}
    groups = {"web": frozenset({"web1", "web2", "web3"})}
    return Mesh({"corp": Network("corp", ("10.0.0.0/8",))}, nodes, groups)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ((), ("db1", "web1", "web2", "web3")),
        (("web1",), ("web1",)),
        (("web,!web3",), ("web1", "web2")),
        (("web*", "db1"), ("db1", "web1", "web2", "web3")),
        (("!web",), ("db1",)),
        (("corp",), ("db1", "web1", "web2", "web3")),
    ],
)
def test_limit_takes_names_groups_networks_globs_and_exclusions(
    limit: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert select(mesh(), limit) == expected


def test_nodes_without_a_key_are_told_of_in_one_line_with_what_to_do() -> None:
    assert left_out(mesh(), {"web2", "phone", "web1"}) == (
        "no key yet, so left out: phone; `meshctl client show NAME` makes a client's key",
        "no key yet, so left out: web1, web2; a node's key is made by the first apply to it",
    )
    assert left_out(mesh(), set()) == ()
    many = {f"n{i}": mesh().nodes["web1"] for i in range(7)}
    assert "n0, n1, n2, n3, n4 and 2 more;" in left_out(replace(mesh(), nodes=many), set(many))[0]


@pytest.mark.parametrize("limit", ["phone", "web9*", "nobody", "web1,!web1"])
def test_a_limit_that_leaves_nobody_is_wrong_usage(limit: str) -> None:
    with pytest.raises(UsageError):
        select(mesh(), (limit,))


@pytest.mark.parametrize(("schema", "outcome"), [
    ("plan", PlanOutcome((), warnings=("web1: look",))),
    ("apply", ApplyOutcome({"web1": NodeOutcome(UNCHANGED)}, warnings=("web1: look",))),
])  # fmt: skip
@pytest.mark.parametrize("output", ["human", "json"])
def test_warnings_are_on_standard_error_and_in_the_json_document(
    schema: str, outcome: PlanOutcome | ApplyOutcome, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show.answer(outcome, output, lambda _: "in words")
    out, err = capsys.readouterr()
    assert err == "Warning: web1: look\n"
    if output == "human":
        assert out == "in words\n"
        return
    document = json.loads(out)
    Draft202012Validator(load_schema(schema)).validate(document)
    assert document["warnings"] == ["web1: look"]


def test_a_plan_file_is_recognised_by_its_content_and_an_inventory_is_not(tmp_path: Path) -> None:
    change = Change("web1", "mtu", "update", "wg0", {"mtu": 1420}, {"mtu": 1400})
    outcome = PlanOutcome((change,))
    file = tmp_path / "anything"
    file.write_text(json.dumps(outcome.to_json()))
    stored = planfile.read_plan(str(file))
    assert stored is not None
    planfile.check_fresh(stored, outcome)
    with pytest.raises(planfile.StalePlanError, match="no longer to do: web1 update mtu wg0"):
        planfile.check_fresh(stored, PlanOutcome(()))
    for text in ("version: 1\n", '{"version": 1, "nodes": {}}', "{", "", "[1]"):
        file.write_text(text)
        assert planfile.read_plan(str(file)) is None
    assert planfile.read_plan(str(tmp_path)) is None


def test_a_change_counts_as_applied_when_all_of_its_steps_ran() -> None:
    changes = tuple(Change("n", "file", "create", name) for name in "abc")
    steps = (Step("write", 0), Step("write", 1), Step("run", 1), Step("write", 2), Step("ledger"))
    assert [c.name for c in applied_changes(changes, steps, (0, 1))] == ["a"]
    assert [c.name for c in applied_changes(changes, steps, (0, 1, 2, 3, 4))] == ["a", "b", "c"]


def test_changes_that_share_a_command_are_applied_together() -> None:
    changes = tuple(Change("n", "peer", "create", name, None, {}) for name in ("a", "b", "c"))
    steps = (Step("ledger"), Step("run", change=0, argv=("wg",)), Step("run", change=2, argv=("ip",)), Step("ledger"))
    assert [c.name for c in applied_changes(changes, steps, (0,))] == []
    assert [c.name for c in applied_changes(changes, steps, (0, 1))] == ["a", "b"]
    assert [c.name for c in applied_changes(changes, steps, (0, 1, 2, 3))] == ["a", "b", "c"]


def test_workers_hand_out_every_name_once_and_stop_when_told() -> None:
    seen: list[str] = []
    with Interrupts() as interrupts:
        workers = Workers(lambda name: name.upper(), [str(n) for n in range(50)], 7, interrupts)
        assert workers.run(lambda _, result: seen.append(result), None)
        assert sorted(seen, key=int) == [str(n) for n in range(50)]
        interrupts.count += 1
        told: list[frozenset[str]] = []
        stopped = Workers(lambda name: name, ["a", "b"], 1, interrupts)
        assert not stopped.run(lambda name, _: seen.append(name), told.append)
        assert told == [frozenset()]
        assert "a" not in seen


class Recorder:
    """A node's side of a connection that answers every command with yes."""

    def __init__(self) -> None:
        self.commands: SimpleQueue[str] = SimpleQueue()

    def run(self, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:  # noqa: ARG002
        self.commands.put(command)
        return Completed(0, Result("id", True, "hold").to_json().encode(), b"")


class Breaking(Recorder):
    """One over which the first command does not come through."""

    def run(self, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:
        first = self.commands.empty()
        completed = super().run(command, stdin, timeout_s)
        if first:
            raise RemoteError("lost", node="early", kind="unreachable")
        return completed


@pytest.mark.parametrize("recorder", [Recorder(), Breaking()])
def test_the_window_of_a_host_that_is_early_is_held_open_until_it_is_let_go(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "AGAIN_S", 0.01)
    host = Host("early", NodeDoc("early", ()), lambda: recorder, recorder, pending=PendingApply("id", "", 0.03))
    with confirm.Windows() as windows:
        windows.hold(host)
        windows.hold(host)
        for _ in range(3):
            assert recorder.commands.get(timeout=10).endswith("hold id")
        windows.let_go(host)
        while not recorder.commands.empty():
            recorder.commands.get()
        with pytest.raises(Empty):
            recorder.commands.get(timeout=0.1)


def test_who_has_a_session_is_a_matter_of_the_hosts_own_clock() -> None:
    text = "1000\nwg0\tann\t821\nwg0\tbob\t820\nwg1\teve\t0\nwg0\tann\t148\t92\n"
    counters = Counters.parse(text)
    assert counters.living == {"ann"}
    assert counters.handshakes == {"ann": 821, "bob": 820, "eve": 0}
    assert counters.received == {("wg0", "ann"): 148}
    with pytest.raises(ValueError, match="invalid literal"):
        Counters.parse("")


def test_a_bug_is_told_by_its_type_and_place_for_its_text_may_quote_a_secret() -> None:
    def work(host: Host) -> None:
        raise ValueError(f"{host.name}: sesame open wide")

    host = Host("one", NodeDoc("one", ()), Recorder)
    guarded(host, work)
    assert host.error is not None
    assert re.match(r"internal error: ValueError at test_deploy_parts\.py:\d+ < phases\.py:\d+$", host.error.message)


# A signal comes at the first line that a pause runs, then in another pause at the second, and so on.
STRIKE = """
import signal, sys
from meshctl.deploy.parallel import Interrupts
left = 0
def trace(frame, event, arg):
    global left
    left -= event == "line"
    if event == "line" and left == 0:
        signal.raise_signal(signal.SIGINT)
    return trace
with Interrupts() as interrupts:
    at = 0
    while left <= 0:
        at = left = at + 1
        interrupts.count = 0
        sys.settrace(trace)
        came = interrupts.pause(0.01)
        sys.settrace(None)
        assert came or left > 0
print(at)
"""


def test_a_ctrl_c_ends_a_pause_at_whatever_line_of_it_it_comes() -> None:
    done = subprocess.run([sys.executable, "-c", STRIKE], capture_output=True, text=True, check=True, timeout=30)
    assert int(done.stdout) > 5, "lines"


steps_strategy = st.builds(
    Step,
    do=st.sampled_from(["run", "write", "key", "ledger"]),
    change=st.integers(-1, 9),
    argv=st.lists(st.text(), max_size=3).map(tuple),
    stdin=st.none() | st.binary(max_size=20),
    content=st.none() | st.binary(max_size=20),
    path=st.text(max_size=9),
)


@given(st.lists(steps_strategy, max_size=4), st.text(max_size=9))
def test_a_transaction_survives_the_wire(steps: list[Step], script: str) -> None:
    transaction = Transaction("id", "node", tuple(steps), script)
    assert Transaction.decode(transaction.encode()) == transaction


@given(st.binary(max_size=60))
def test_anything_else_is_not_a_transaction(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Transaction.decode(raw)


@given(st.booleans(), st.none() | st.builds(StepFailure, st.integers(), st.text(), st.text()), st.text())
def test_a_result_survives_the_wire(ok: bool, failure: StepFailure | None, facts: str) -> None:
    result = Result("id", ok, "done", (1, 2), (2,), failure, facts, ("w",))
    assert Result.from_json(result.to_json()) == result


def test_plan_and_apply_help_import_no_heavy_library() -> None:
    for name in ("plan", "apply"):
        program = (
            f"import sys; from meshctl.cli import run; run(['{name}', '--help'])\n"
            "print([n for n in ('paramiko', 'jinja2', 'rich', 'yaml') if n in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]"
