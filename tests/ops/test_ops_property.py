"""Invariants: applying what diff asks for leaves nothing to do, whatever the host had and whatever it is to have;
what meshctl did not make is never touched; a plan depends on nothing but its two inputs."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from memoryhost import obey
from meshdocs import key, psk, wireguard

from meshctl.core.diff import diff
from meshctl.model.facts import FileFacts, HostFacts, PeerFacts
from meshctl.model.resources import (
    File,
    Handler,
    Nftables,
    NodeDoc,
    Package,
    Peer,
    Resource,
    Service,
    Sysctl,
    WireGuard,
)
from meshctl.ops import steps_for

HOSTS = ("a", "b", "c", "d")
PREFIXES = ("10.42.0.2/32", "10.42.0.3/32", "10.42.0.4/32", "192.168.1.0/24", "fd42::2/128", "fd77::/64")
EMPTY = HostFacts(
    "web1", os_id="debian", python=(3, 11), has_wg=True, init="systemd",
    tools=frozenset({"wg", "nft", "ip", "systemctl", "apt-get"}), sysctls={"net.ipv4.ip_forward": "0"},
)


@st.composite
def interfaces(draw: st.DrawFn) -> WireGuard:
    """An interface whose peers share out some prefixes."""
    names = draw(st.lists(st.sampled_from(HOSTS), unique=True))
    owners = {p: draw(st.sampled_from(names)) for p in draw(st.sets(st.sampled_from(PREFIXES)))} if names else {}
    peers = tuple(
        Peer(
            name, key(name), tuple(p for p in PREFIXES if owners.get(p) == name),
            draw(st.sampled_from([None, "192.0.2.1:1", "192.0.2.2:2", "anchor.example:3"])),
            draw(st.sampled_from([0, 25])),
        )
        for name in sorted(names)
    )
    secrets = tuple(draw(st.sampled_from([None, psk(name), psk("other")])) for name in sorted(names))
    address = draw(st.sampled_from(["10.42.0.1/16", "10.42.0.9/16", "10.43.0.1/24"]))
    return replace(
        wireguard(), peers=peers, psks=secrets, addresses=(address, "fd42::1/48"),
        routes=tuple(draw(st.sets(st.sampled_from(["192.168.1.0/24", "fd77::/64"])).map(sorted))),
        listen_port=draw(st.sampled_from([51820, 51821])), mtu=draw(st.sampled_from([1280, 1420])),
        fwmark=draw(st.sampled_from([0, 7])),
    )


@st.composite
def documents(draw: st.DrawFn) -> NodeDoc:
    """Any mixture of resources; the interface, where there is one, with or without its unit."""
    resources: list[Resource] = []
    if draw(st.booleans()):
        resources.append(Package(("wireguard-tools", "nftables")))
    if draw(st.booleans()):
        resources.append(Sysctl("net.ipv4.ip_forward", draw(st.sampled_from(["0", "1"])), notify=("again",)))
    for path in sorted(draw(st.sets(st.sampled_from(["/etc/x/a", "/etc/x/b", "/etc/systemd/system/c.service"])))):
        state = draw(st.sampled_from(["file", "link", "absent"]))
        content = draw(st.binary(max_size=3)) if state == "file" else None
        mode = draw(st.sampled_from(["0600", "0644"]))
        resources.append(File(path, state, content, mode, target="t", notify=("again",)))
    has_table = draw(st.booleans())
    if has_table:
        resources.append(Nftables("inet", "meshctl", f"table inet meshctl {{ # {draw(st.integers(0, 1))}\n}}\n"))
    if draw(st.booleans()):
        resources.append(Nftables("inet", "runtime" if has_table else "meshctl", None))
    if draw(st.booleans()):
        resources.append(draw(interfaces()))
        if draw(st.booleans()):
            resources.append(Service("wg-quick@wgt0", "started", enabled=True, satisfied_by_interface="wgt0"))
    if draw(st.booleans()):
        state, cleanup = draw(st.sampled_from(["started", "stopped", None])), draw(st.sampled_from([(), ("x", "y")]))
        resources.append(Service("cron", state, draw(st.booleans()), cleanup=cleanup))
    return NodeDoc("web1", tuple(resources), (Handler("again", "thing", "restarted"),))


def applied(doc: NodeDoc, facts: HostFacts) -> HostFacts:
    return obey(facts, steps_for(doc, facts, diff(doc, facts)), doc)


@given(st.lists(documents(), min_size=1, max_size=4))
def test_applying_any_history_of_documents_leaves_nothing_to_do(history: list[NodeDoc]) -> None:
    facts = EMPTY
    for doc in history:
        facts = applied(doc, facts)
        assert diff(doc, facts) == ()


@given(documents(), documents(), st.integers(0, 30))
def test_an_applier_killed_at_any_step_is_made_good_by_the_next_run(before: NodeDoc, doc: NodeDoc, at: int) -> None:
    facts = applied(before, EMPTY)
    steps = steps_for(doc, facts, diff(doc, facts))
    facts = applied(doc, obey(facts, steps[:at], doc))
    assert diff(doc, facts) == ()
    # … and nothing that was made is forgotten: an empty document takes all of it away again.
    facts = applied(NodeDoc("web1", ()), facts)
    assert (facts.interfaces, facts.tables) == ({}, {})
    assert set(facts.files) <= {"/etc/wireguard/wgt0.key"}


@given(documents(), st.integers(0, 30))
def test_what_was_notified_runs_after_it_also_when_the_applier_was_killed_before_it(doc: NodeDoc, at: int) -> None:
    steps = steps_for(doc, EMPTY, diff(doc, EMPTY))
    facts = obey(EMPTY, steps[:at], doc)
    after = steps_for(doc, facts, diff(doc, facts))
    paths = {r.path for r in doc.resources if isinstance(r, File) and r.notify}
    done = [*steps[:at], *after]
    touched = [i for i, step in enumerate(done) if step.path in paths]
    restarts = [i for i, step in enumerate(done) if step.argv == ("systemctl", "restart", "--", "thing")]
    assert not touched or (restarts and restarts[-1] > touched[-1])
    assert obey(facts, after, doc).ledger.handlers == ()


@given(documents(), documents())
def test_what_meshctl_did_not_make_is_left_alone(first: NodeDoc, second: NodeDoc) -> None:
    stranger = PeerFacts(key("stranger"), psk("stranger"), "192.0.2.9:9", ("172.31.0.9/32",))
    facts = replace(EMPTY, tables={"inet theirs": "1"}, files={"/etc/theirs": FileFacts("file", sha256="x")})
    facts = applied(first, facts)
    if "wgt0" in facts.interfaces and second.interfaces():
        live = facts.interfaces["wgt0"]
        peers = {**live.peers, stranger.public_key: stranger}
        live = replace(live, peers=peers, routes=(*live.routes, "172.31.0.0/16"))
        facts = applied(second, replace(facts, interfaces={"wgt0": live}))
        assert "172.31.0.0/16" in facts.interfaces["wgt0"].routes
        assert facts.interfaces["wgt0"].peers[stranger.public_key] == stranger
    assert facts.tables["inet theirs"] == "1"
    assert facts.files["/etc/theirs"].sha256 == "x"


@given(documents())
def test_a_roamed_endpoint_is_never_written_over(doc: NodeDoc) -> None:
    facts = applied(doc, EMPTY)
    for name, live in facts.interfaces.items():
        roamed = {k: replace(p, endpoint="198.51.100.1:1", keepalive_s=3) for k, p in live.peers.items()}
        facts = replace(facts, interfaces={name: replace(live, peers=roamed, mtu=1300)})
        facts = applied(doc, facts)
        assert {p.endpoint for p in facts.interfaces[name].peers.values()} <= {"198.51.100.1:1"}


@given(documents(), documents())
def test_no_pre_shared_key_is_in_a_plan_or_in_an_argument(before: NodeDoc, doc: NodeDoc) -> None:
    facts = applied(before, EMPTY)
    changes = diff(doc, facts)
    secrets = [s.reveal() for name in (*HOSTS, "other") for s in [psk(name)]]
    shown = str([c.to_json() for c in changes]) + str([s.argv for s in steps_for(doc, facts, changes)])
    assert not [s for s in secrets if s in shown]
