"""Going back to what was applied before, days later perhaps. Hunted: what others did since then and is lost, what the
kernel has learned and forgets, a key that goes, a host that is half of each, and a state that nobody can go back to."""

from __future__ import annotations

import json

from agent_node import Node, script, write

from meshctl.core.history import Entry, since, standing, states
from meshctl.deploy import histories
from meshctl.model.ledger import LEDGER_PATH, InterfaceRecord, Ledger, PeerRecord, TableRecord
from meshctl.model.places import AGENT_LINK, PENDING_PATH
from meshctl.model.steps import Result, Step

SNAPSHOTS = "/var/lib/meshctl/snapshots"
NEVER_S = 600.0
# A host with one tunnel, a route and a firewall of its own, and a table of somebody else's.
NETWORK = """
set -e
ip link add d0 type veth peer name e0; ip addr add 192.0.2.2/24 dev d0; ip link set d0 up
wireguard-go wg0 >/dev/null 2>&1
wg genkey >/run/key; for n in ann bob cid; do wg genkey | wg pubkey >/run/$n; done
wg set wg0 private-key /run/key listen-port 51820
wg set wg0 peer $(cat /run/ann) allowed-ips 10.42.0.2/32 endpoint 192.0.2.7:51820
wg set wg0 peer $(cat /run/bob) allowed-ips 10.42.0.3/32 endpoint 192.0.2.8:51820
ip addr add 10.42.0.1/24 dev wg0; ip link set wg0 up mtu 1420
nft 'add table inet meshctl; add chain inet meshctl in; add rule inet meshctl in tcp dport 22 accept'
nft 'add table ip other'
"""
APPLIED = """
set -e
wg set wg0 listen-port 51999 peer $(cat /run/ann) allowed-ips 10.42.0.2/32,10.44.0.0/16 endpoint 192.0.2.99:51820
wg set wg0 peer $(cat /run/bob) remove
wg set wg0 peer $(cat /run/cid) allowed-ips 10.42.0.3/32,10.42.0.9/32
wireguard-go wg1 >/dev/null 2>&1; wg genkey | wg set wg1 private-key /dev/stdin; ip addr add 10.50.0.1/24 dev wg1
ip link set wg1 up; ip route add 10.51.0.0/16 dev wg1; ip link set wg0 mtu 1300; ip route add 10.44.0.0/16 dev wg0
nft 'flush chain inet meshctl in; add rule inet meshctl in tcp dport 80 accept'
"""
# What the agent, the kernel and other people do to the same host.
SINCE = """
set -e
wg set wg0 peer $(cat /run/ann) endpoint 192.0.2.55:7
wg genkey | wg pubkey >/run/theirs; wg set wg0 peer $(cat /run/theirs) allowed-ips 10.60.0.0/16
ip addr add 198.51.100.2/24 dev d0; ip route add 10.70.0.0/16 via 192.0.2.1; ip rule add pref 90 lookup 7
nft 'add chain ip other c; add table inet docker'
"""
STATE = """
for p in ann bob cid theirs; do
  echo $p $(wg show wg0 dump | grep -F "$(cat /run/$p 2>/dev/null || echo -)" | cut -f 3,4)
done
wg show wg0 listen-port; ip -br addr | grep -v -e lo -e e0 | awk '{print $1, $3, $4}'; ip route; ip rule
nft -s list table inet meshctl; nft -s list table ip other; wg show interfaces
ip -o link show wg0 | grep -o 'mtu [0-9]*'
"""


def history(node: Node) -> tuple[Entry, ...]:
    return histories.parse(node.sh(histories.SCRIPT))


def step_back(node: Node, to: str) -> Step:
    known = history(node)
    state = next(entry for entry in states(known) if entry.id == to)
    return Step("restore", argv=tuple(entry.id for entry in since(known, state)), target=to)


def back(node: Node, id_: str, to: str, confirm_s: float = 0.0) -> Result:
    return node.apply(step_back(node, to), confirm_s=confirm_s, id_=id_)


def files(node: Node) -> str:
    return node.sh("cd /mnt; find . -mindepth 1 -printf '%p %m %U %y %l\\n' | sort; cat a b 2>&1 || true")


def test_a_host_goes_back_over_several_states_and_forward_again(node: Node) -> None:
    assert node.apply(write("/mnt/a", "1", "0600"), write("/mnt/b", "1"), id_="t1").ok
    was = files(node)
    steps = write("/mnt/a", "2"), Step("remove", path="/mnt/b"), Step("link", path="/mnt/l", target="/")
    assert node.apply(*steps, id_="t2").ok
    assert node.apply(write("/mnt/a", "3"), Step("mkdir", path="/mnt/d"), write("/mnt/d/f", "3"), id_="t3").ok
    newest = files(node)
    result = back(node, "t4", "t1")
    assert (result.ok, result.phase) == (True, "done")
    assert files(node) == was
    newest_entry = history(node)[0]
    assert (newest_entry.id, newest_entry.became, newest_entry.to) == ("t4", "applied", "t1")
    assert back(node, "t5", "t3").ok
    assert files(node) == newest
    assert back(node, "t6", "t1").ok
    assert files(node) == was


def test_what_others_did_and_what_was_learned_since_then_stays(node: Node) -> None:
    node.sh(NETWORK)
    ann = node.sh("cat /run/ann").strip()

    def ledger(endpoint: str) -> Step:
        peers = {ann: PeerRecord(endpoint)}
        text = Ledger({"wg0": InterfaceRecord(True, "kernel", peers)}, tables={"inet meshctl": TableRecord("s", "")})
        return Step("ledger", path=LEDGER_PATH, content=text.to_json().encode())

    assert node.apply(ledger("192.0.2.7:51820"), id_="t1").ok
    node.sh("wg set wg0 peer $(cat /run/bob) endpoint 192.0.2.44:4")
    before = node.sh(STATE)
    assert node.apply(script(APPLIED), ledger("192.0.2.7:51820"), id_="t2").ok
    node.sh(SINCE)
    assert back(node, "t3", "t1").ok
    after = node.sh(STATE)
    node.sh("""set -e; wg set wg0 peer $(cat /run/theirs) remove; ip addr del 198.51.100.2/24 dev d0
        ip route del 10.70.0.0/16; ip rule del pref 90; nft 'delete chain ip other c; delete table inet docker'""")
    assert "ann 192.0.2.55:7 10.42.0.2/32" in after
    assert node.sh(STATE).replace("192.0.2.55:7", "192.0.2.7:51820") == before


def test_an_endpoint_that_the_repository_has_changed_goes_back_too(node: Node) -> None:
    node.sh(NETWORK)
    ann = node.sh("cat /run/ann").strip()
    for name, endpoint in {"t1": "192.0.2.7:51820", "t2": "192.0.2.9:51820"}.items():
        ledger = Ledger({"wg0": InterfaceRecord(True, "kernel", {ann: PeerRecord(endpoint)})})
        moves = script(f"wg set wg0 peer {ann} endpoint {endpoint}")
        assert node.apply(moves, Step("ledger", path=LEDGER_PATH, content=ledger.to_json().encode()), id_=name).ok
    assert back(node, "t3", "t1").ok
    assert "192.0.2.7:51820" in node.sh(f"wg show wg0 endpoints | grep -F {ann}")


def test_a_private_key_is_identity_and_stays(node: Node) -> None:
    assert node.apply(write("/mnt/a", "1"), id_="t1").ok
    key = Step("key", path="/etc/wireguard/wg1.key", interface="wg1")
    assert node.apply(key, prepares="t2", id_="t2-keys").ok
    assert node.apply(key, write("/mnt/a", "2"), id_="t2").ok
    made = node.sh("cat /etc/wireguard/wg1.key")
    assert [entry.id for entry in history(node)] == ["t2", "t1"]
    assert back(node, "t3", "t1").ok
    assert node.sh("cat /mnt/a /etc/wireguard/wg1.key") == f"1{made}"


def test_a_snapshot_that_is_not_whole_is_refused_before_anything_is_touched(node: Node) -> None:
    for number in range(1, 4):
        assert node.apply(write("/mnt/a", str(number)), id_=f"t{number}").ok
    step = step_back(node, "t1")
    node.sh(f"cp -a {SNAPSHOTS} /run/kept")
    for number, damage in enumerate((
        "rm manifest.json", "rm file-0", "echo x >>file-0", "echo x >network.json", "rm network.json", "rm *",
        "echo '{}' >manifest.json", "echo '[]' >manifest.json", "echo 7 >manifest.json", "echo '[]' >network.json",
        """echo '{"files":7,"units":{},"keys":[]}' >manifest.json""", "head -c 300 /dev/urandom >manifest.json",
        """echo '{"files":{"/mnt/a":{"kind":"file"}},"units":{},"keys":[]}' >manifest.json""",
        """echo '{"files":{},"units":{"x":7},"keys":[]}' >manifest.json""",
        "head -c 300 /dev/urandom >after.json", "echo 7 >after.json", "echo '{}' >after.json",
    )):  # fmt: skip
        node.sh(f"cd {SNAPSHOTS}/t2; {damage}")
        result = node.apply(step, confirm_s=NEVER_S, id_=f"t4{number}")
        assert result.failure is not None, damage
        assert (result.phase, result.failure.kind) == ("stage", "no-state")
        assert "t2" in result.failure.message
        assert node.sh(f"cat /mnt/a; ls {PENDING_PATH} 2>/dev/null || true") == "3"
        node.sh(f"rm -r {SNAPSHOTS}; cp -a /run/kept {SNAPSHOTS}")


def test_a_state_from_before_a_key_was_revoked_is_not_gone_back_to(node: Node) -> None:
    for number in range(1, 4):
        revoked = ("K" * 43 + "=",) if number > 1 else ()
        ledger = Step("ledger", path=LEDGER_PATH, content=Ledger(revoked=revoked).to_json().encode())
        assert node.apply(write("/mnt/a", str(number)), ledger, id_=f"t{number}").ok
    result = back(node, "t4", "t1")
    assert result.failure is not None
    assert (result.phase, result.failure.kind, "K" * 43 in result.failure.message) == ("stage", "revoked", True)
    assert node.sh("cat /mnt/a") == "3"
    assert back(node, "t5", "t2").ok


def test_what_was_applied_since_it_was_read_is_not_taken_back_unseen(node: Node) -> None:
    for number in range(1, 3):
        assert node.apply(write("/mnt/a", str(number)), id_=f"t{number}").ok
    step = step_back(node, "t1")
    assert node.apply(write("/mnt/a", "3"), id_="t3").ok
    result = node.apply(step, id_="t4")
    assert result.failure is not None
    assert (result.failure.kind, "the newest is t3" in result.failure.message) == ("no-state", True)
    assert node.sh("cat /mnt/a") == "3"


def test_what_was_undone_or_has_failed_pushes_no_state_out(node: Node) -> None:
    for number in range(1, 7):
        assert node.apply(write("/mnt/a", str(number)), id_=f"t1{number}").ok
    for number in range(1, 4):
        assert node.apply(write("/mnt/a", "undone"), confirm_s=NEVER_S, id_=f"t2{number}").ok
        assert node.decide("undo", f"t2{number}").ok
        assert not node.apply(write("/mnt/a", "no"), script("exit 1"), confirm_s=NEVER_S, id_=f"t3{number}").ok
    known = history(node)
    assert [entry.id for entry in states(known)] == ["t16", "t15", "t14", "t13", "t12", "t11"]
    assert node.sh(f"ls {SNAPSHOTS}").split() == ["t12", "t13", "t14", "t15", "t16"]
    assert {(entry.became, entry.why) for entry in known if not entry.is_state} == {
        ("undone", "the controller wanted so"), ("undone", "it failed: sh -c exit 1: exit status 1"),
    }  # fmt: skip
    assert back(node, "t99", "t11").ok
    assert node.sh("cat /mnt/a") == "1"


def test_a_hosts_clock_that_was_set_back_changes_no_order(node: Node) -> None:
    later = "sed -i -E 's/\"time\":[0-9.]+/\"time\":4000000000/g' /var/lib/meshctl/journal/*"
    for number in range(3):
        assert node.apply(write("/mnt/a", str(number)), id_=f"t{number}").ok
    node.sh(later)  # then the clock is set right
    for number in range(3, 8):
        assert node.apply(write("/mnt/a", str(number)), id_=f"t{number}").ok
    assert [entry.id for entry in history(node)] == [f"t{number}" for number in range(7, -1, -1)]
    assert node.sh(f"ls {SNAPSHOTS}").split() == [f"t{number}" for number in range(3, 8)]
    assert back(node, "t8", "t6").ok
    assert node.sh("cat /mnt/a") == "6"


def test_ids_of_a_controller_whose_clock_is_behind_change_no_order_either(node: Node) -> None:
    assert node.apply(write("/mnt/a", "9"), id_="t9").ok
    node.sh("""cd /var/lib/meshctl/journal; for n in $(seq 20 40); do sed s/t9/t$n/ t9.jsonl >t$n.jsonl; done""")
    assert not node.apply(write("/mnt/a", "no"), script("exit 1"), id_="t0").ok
    assert history(node)[0].id == "t0", "the newest is evidence of what just happened"


def test_journals_of_before_they_were_counted_are_older_than_all_others(node: Node) -> None:
    for number in range(2):
        assert node.apply(write("/mnt/a", str(number)), id_=f"t{number}").ok
    node.sh("sed -i -E 's/\"number\":[0-9]+,//; s/\"time\":[0-9.]+/\"time\":4000000000/g' /var/lib/meshctl/journal/*")
    assert node.apply(write("/mnt/a", "2"), id_="t2").ok
    assert [entry.id for entry in history(node)] == ["t2", "t1", "t0"]
    assert back(node, "t3", "t0").ok


def test_journals_are_kept_as_evidence_but_not_for_ever(node: Node) -> None:
    assert node.apply(write("/mnt/a", "1"), id_="t000").ok
    assert not node.apply(Step("run", argv=("no-such-program",)), id_="t001").ok
    node.sh("""cd /var/lib/meshctl/journal; for n in $(seq 2 29); do
        name=t$(printf %03d $n); sed s/t001/$name/ t001.jsonl >$name.jsonl; done""")
    assert not node.apply(Step("run", argv=("no-such-program",)), id_="t030").ok
    assert {entry.id for entry in history(node)} == {"t000", *(f"t{number:03}" for number in range(11, 31))}


def test_what_a_failed_apply_has_left_without_a_window_is_taken_back_with_the_rest(node: Node) -> None:
    node.sh("ip link add d0 type veth peer name e0")
    assert node.apply(write("/mnt/a", "1"), id_="t1").ok
    assert not node.apply(write("/mnt/b", "half"), script("ip link set d0 mtu 1300; exit 1"), id_="t2").ok
    failed = history(node)[0]
    assert (failed.became, failed.stands, failed.is_state) == ("failed", True, False)
    assert back(node, "t3", "t1").ok
    assert "mtu 1500" in node.sh("ip link show d0")
    assert node.sh("ls /mnt") == "a\n"


def test_a_rollback_that_nobody_confirms_is_undone_and_history_says_so(node: Node) -> None:
    for number in range(1, 3):
        assert node.apply(write("/mnt/a", str(number)), id_=f"t{number}").ok
    assert back(node, "t3", "t1", confirm_s=1.0).ok
    assert (history(node)[0].became, node.sh("cat /mnt/a")) == ("waiting", "1")
    node.sh(f"timeout 20 sh -c 'while [ -e {PENDING_PATH} ]; do sleep 0.05; done'")
    assert node.sh("cat /mnt/a") == "2"
    newest = history(node)[0]
    assert (newest.became, newest.why, newest.stands) == ("undone", "nobody confirmed it within 1 s", False)
    assert [entry.id for entry in standing(history(node))] == ["t2", "t1"]


def test_the_agents_program_of_a_state_is_kept_with_it(node: Node) -> None:
    folder = AGENT_LINK.rpartition("/")[0]
    node.sh(f"mkdir {folder}; cp {node.agent} {folder}/meshctl-agent-now.pyz")
    node.command[-2] = f"{folder}/meshctl-agent-now.pyz"
    for number in range(5):
        name = f"{folder}/meshctl-agent-{number}.pyz"
        node.sh(f"touch -d @{number} {name}")
        assert node.apply(Step("link", path=AGENT_LINK, target=name), id_=f"t{number}").ok
    assert back(node, "t9", "t0").ok
    assert node.sh(f"readlink {AGENT_LINK}; ls $(readlink {AGENT_LINK})") == f"{folder}/meshctl-agent-0.pyz\n" * 2


def test_no_secret_is_in_the_history(node: Node) -> None:
    node.sh(NETWORK)
    secret = node.sh("cat /run/key").strip()
    assert node.apply(write("/mnt/a", secret, "0600"), Step("run", argv=("cat",), stdin=secret.encode()), id_="t1").ok
    assert node.apply(write("/mnt/a", "2"), id_="t2").ok
    assert back(node, "t3", "t1").ok
    assert secret not in node.sh(histories.SCRIPT) + node.sh("cat /var/lib/meshctl/journal/*")
    assert json.loads(node.sh(f"cat {SNAPSHOTS}/t3/manifest.json"))["files"]["/mnt/a"]["mode"] == "0644"
