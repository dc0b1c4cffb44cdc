"""The agent's tables when something goes wrong: nft that refuses, hangs or is gone, answers that come late, and others
who put rulesets in their place."""

from __future__ import annotations

import select
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from agentnode_hosts import REFUSES, Space, nft

from meshctl.agent.node import nfnetlink, ruletable, setvalues
from meshctl.agent.node.nfnetlink import MSG_DELSETELEM, MSG_NEWSETELEM, Nfnetlink
from meshctl.agent.node.relays import REFUSED_S, Relays
from meshctl.agent.node.rulesetwatch import LOST_REST_S, REST_S
from meshctl.agent.node.ruletable import AGAIN_S, SWEEP_AFTER_S, Element, Kind, RuleTable
from meshctl.core.agent.address import Address, canonical
from meshctl.core.agent.events import InstallRelay, RemoveRelay

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[2]
NAME = "meshctl_test"
KINDS = {"doors": Kind(("ipv4_addr",), ("inet_service",))}
CHAINS = "chain open {\ntype filter hook prerouting priority 0;\nudp dport set ip saddr map @doors\n}"
ONE, TWO = (Element("doors", (f"192.0.2.{n}",), (n,)) for n in (1, 2))


@pytest.fixture(name="place")
def _place(ends: ExitStack) -> Space:
    return Space(ends)


class Host:
    """One with a table, and an agent that may start again."""

    def __init__(self, place: Space, ends: ExitStack) -> None:
        self.place = place
        self.swept: list[Element] = []
        self.table: RuleTable | None = None
        self.start()
        ends.callback(lambda: self.table.close())

    def start(self) -> None:
        """At time 0."""
        if self.table is not None:
            self.table.close()
        self.table = self.place.inside(lambda: RuleTable(NAME, KINDS, CHAINS, 0.0, self.swept.extend))

    def add(self, *elements: Element) -> None:
        self.place.inside(lambda: self.table.change(add=elements))

    def remove(self, *elements: Element) -> None:
        self.place.inside(lambda: self.table.change(remove=elements))

    def poll(self, now: float) -> None:
        self.place.inside(lambda: self.table.poll(now))

    def hear(self, now: float) -> bool:
        """What others have done since, as the loop does; whether there was anything."""
        waits = [sock for sock, _ in self.table.sockets()]
        ready = select.select(waits, [], [], 0)[0]
        for sock, readable in list(self.table.sockets()):
            if sock in ready:
                self.place.inside(lambda readable=readable: readable(now))
        self.poll(now)
        return bool(ready)

    def load(self, text: str) -> None:
        """Somebody else does."""
        self.place.run("nft", "-f", "-", text=text)

    def ruleset(self) -> str:
        return self.place.run("nft", "list", "ruleset")

    def handle(self) -> str:
        """Another one for each table that was ever made."""
        return self.place.run("nft", "-a", "list", "table", "inet", NAME).splitlines()[0]

    def there(self) -> set[int]:
        """The doors in the kernel's table."""
        shown = self.ruleset()
        return {e.value[0] for e in (ONE, TWO) if f"{e.key[0]} : {e.value[0]}" in shown}


@pytest.fixture(name="host")
def _host(place: Space, ends: ExitStack) -> Host:
    return Host(place, ends)


def test_what_could_not_be_swept_is_swept_later(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no room")

    host.add(ONE)
    host.start()
    with monkeypatch.context() as patched:
        patched.setattr(Nfnetlink, "delete_table", fail)
        with pytest.raises(OSError, match="no room"):
            host.poll(SWEEP_AFTER_S)
    assert (host.there(), host.swept) == ({1}, [])
    assert host.table.due() == SWEEP_AFTER_S + AGAIN_S
    host.poll(SWEEP_AFTER_S + AGAIN_S)
    assert (host.there(), host.swept) == (set(), [ONE])
    assert host.table.due() is None


def test_a_table_of_before_that_cannot_be_taken_over_ends_and_what_conntrack_could_not_be_told_it_is_told_later(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError("no room")

    host.add(ONE)
    host.start()
    with monkeypatch.context() as patched, nft(tmp_path, REFUSES):
        patched.setattr(host.table, "_swept", fail)
        with pytest.raises(OSError, match="no room"):
            host.add(TWO)
    assert host.ruleset() == ""
    host.poll(SWEEP_AFTER_S)
    assert host.swept == [ONE]
    host.add(TWO)
    assert host.there() == {2}


def test_tables_go_without_nft_one_that_is_gone_already_too(host: Host, tmp_path: Path) -> None:
    host.add(ONE)
    with nft(tmp_path, REFUSES) as ran:
        host.remove(ONE)
        host.poll(0.0)
        host.poll(SWEEP_AFTER_S)
        assert host.ruleset() == ""
        host.poll(SWEEP_AFTER_S + AGAIN_S)
    assert ran == []
    link = Nfnetlink()
    with pytest.raises(FileNotFoundError):
        host.place.inside(lambda: link.delete_table(NAME))
    link.close()


def test_what_could_not_be_removed_is_swept_later(host: Host, tmp_path: Path) -> None:
    host.add(ONE, TWO)
    host.poll(SWEEP_AFTER_S)
    host.place.run("nft", "delete", "table", "inet", NAME)
    with nft(tmp_path, REFUSES), pytest.raises(RuntimeError, match="nft refused"):
        host.remove(ONE)
    host.place.inside(lambda: [read(0.0) for _, read in host.table.sockets()])
    assert host.there() == {1, 2}
    host.poll(100.0)
    assert host.table.due() == 100.0 + SWEEP_AFTER_S
    host.poll(100.0 + SWEEP_AFTER_S)
    assert (host.there(), host.swept[-1:]) == ({2}, [ONE])


def test_what_could_not_be_added_is_added_when_it_is_asked_for_again(host: Host, tmp_path: Path) -> None:
    with nft(tmp_path, REFUSES), pytest.raises(RuntimeError, match="nft refused"):
        host.add(ONE)
    assert host.there() == set()
    host.add(ONE)
    assert host.there() == {1}


def test_a_table_that_could_not_be_put_back_is_put_back_later(host: Host, tmp_path: Path) -> None:
    host.add(ONE)
    host.poll(SWEEP_AFTER_S)
    host.place.run("nft", "flush", "ruleset")
    ((_, readable),) = host.table.sockets()
    with nft(tmp_path, REFUSES), pytest.raises(RuntimeError, match="nft refused"):
        host.place.inside(lambda: readable(10.0))
    host.poll(10.0 + REST_S)
    assert host.table.due() == 10.0 + AGAIN_S
    host.poll(10.0 + AGAIN_S)
    assert host.there() == {1}
    assert host.table.due() is None


HARM = {
    "flushed": "flush ruleset",
    "without its rules": f"flush table inet {NAME}",
    "without an element": f"delete element inet {NAME} doors {{ 192.0.2.1 }}",
    "with another value": f"flush map inet {NAME} doors; add element inet {NAME} doors {{ 192.0.2.1 : 2 }}",
    "with one more": f"add element inet {NAME} doors {{ 192.0.2.2 : 2 }}",
    "with a rule before its own": f"insert rule inet {NAME} open accept",
    "asleep": f"add table inet {NAME} {{ flags dormant; }}",
    "with another policy": f"chain inet {NAME} open {{ policy drop; }}",
    "with another name of a chain": f"rename chain inet {NAME} open shut",
}


@pytest.mark.parametrize("harm", HARM)
def test_a_table_that_somebody_changes_is_as_it_was_at_once(host: Host, harm: str) -> None:
    host.add(ONE)
    host.poll(SWEEP_AFTER_S)
    host.hear(SWEEP_AFTER_S)
    host.poll(SWEEP_AFTER_S + REST_S)
    before = host.ruleset()
    host.load(HARM[harm])
    assert host.ruleset() != before
    assert host.hear(10.0)
    assert host.ruleset() == before
    assert ONE in host.swept, "what was decided meanwhile may hold on"


def test_of_a_ruleset_of_another_moment_nothing_stays(host: Host) -> None:
    host.add(TWO)
    saved = f"flush ruleset\n{host.ruleset()}"
    host.poll(SWEEP_AFTER_S)
    host.remove(TWO)
    host.add(ONE)
    host.load(saved)
    assert host.there() == {2}
    host.hear(10.0)
    assert host.there() == {1}
    assert set(host.swept) == {ONE, TWO}


@pytest.mark.parametrize("again", [False, True], ids=["one that had it before", "one that began since"])
def test_a_table_that_somebody_puts_back_when_there_is_to_be_none_is_swept_at_once(host: Host, again: bool) -> None:
    host.add(ONE)
    saved = f"flush ruleset\n{host.ruleset()}"
    host.remove(ONE)
    for now in (10.0, 10.0 + SWEEP_AFTER_S):
        host.poll(now)
    assert host.ruleset() == ""
    if again:
        host.start()
        host.poll(SWEEP_AFTER_S)
    host.load(saved)
    host.hear(20.0)
    assert (host.ruleset(), host.swept) == ("", [ONE])


def test_what_conntrack_could_not_be_told_of_a_change_it_is_told_later(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError("no room")

    host.add(ONE)
    host.poll(SWEEP_AFTER_S)
    host.load(HARM["with one more"])
    with monkeypatch.context() as patched:
        patched.setattr(host.table, "_swept", fail)
        with pytest.raises(OSError, match="no room"):
            host.hear(10.0)
    assert host.there() == {1}
    host.poll(10.0 + AGAIN_S)
    assert set(host.swept) == {ONE, TWO}
    host.swept.clear()
    host.poll(20.0 + AGAIN_S)
    assert host.swept == []


def test_a_change_finds_the_table_mended_though_the_kernel_has_not_told_yet(host: Host) -> None:
    host.add(ONE)
    host.place.run("nft", "flush", "ruleset")
    host.add(TWO)
    assert host.there() == {1, 2}
    assert host.swept == [ONE]


def test_the_table_is_read_when_others_have_changed_it_alone_and_not_again_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    dump = Nfnetlink._dump
    monkeypatch.setattr(Nfnetlink, "_dump", lambda link, request: (reads.append(request), dump(link, request))[1])
    host.add(ONE)
    host.hear(10.0)
    reads.clear()
    for count in range(1, 21):  # another program's table, and an element of its own
        now = 10.0 + count * REST_S
        host.poll(now)
        host.load(f"table inet other {{ set s {{ type inet_service; elements = {{ {count} }}\n}}\n}}")
        host.add(TWO) if count % 2 else host.remove(TWO)
        assert host.hear(now)
        host.load("delete table inet other")
        assert list(host.table.sockets()) == [], "however much others change, it is heard so often at most"
        assert host.table.due() == now + REST_S
    assert reads == []
    host.poll(30.0)
    host.load(HARM["with one more"])
    host.hear(30.0)
    assert len(reads) == 4, "the elements, and then the table, its chains and its rules when it is put back"
    assert host.there() == {1}


@pytest.mark.parametrize("ip", ["::102:304", "2001:db8::1:0:0:1", "2001:db8:0:1:1:1:1:1", "fe80::"])
def test_an_address_of_the_kernels_is_the_one_that_was_given_to_it(ip: str) -> None:
    """Or else the table would be put back for ever."""
    assert setvalues.unpacked(("ipv6_addr",), setvalues.packed(("ipv6_addr",), (ip,))) == (canonical(ip),) == (ip,)


def test_when_more_has_changed_than_is_told_the_table_is_looked_at(host: Host) -> None:
    host.add(ONE)
    host.hear(10.0)
    host.poll(20.0)
    host.load(HARM["without an element"])
    other = f"set s {{ type inet_service; elements = {{ {', '.join(map(str, range(1, 60_000)))} }}\n}}\n"
    host.load(f"table inet other {{ {other} }}")
    host.hear(20.0)
    assert host.there() == {1}
    assert host.table.due() == 20.0 + LOST_REST_S


def test_an_nft_that_hangs_holds_up_the_agent_for_seconds_at_most(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ruletable._NFT_S <= 5.0
    monkeypatch.setattr(ruletable, "_NFT_S", 0.3)
    started = time.monotonic()
    with nft(tmp_path, "exec sleep 60"), pytest.raises(RuntimeError, match="no end after"):
        host.add(ONE)
    assert time.monotonic() - started < 2.0


def test_the_only_element_may_be_replaced_without_another_table(host: Host) -> None:
    host.add(ONE)
    host.poll(SWEEP_AFTER_S)
    before = host.handle()
    host.remove(ONE)
    host.poll(10.0)
    host.add(TWO)
    host.poll(10.0 + SWEEP_AFTER_S)
    assert host.handle() == before
    assert host.there() == {2}
    assert host.table.due() is None


def test_a_kernel_without_netfilter_has_nothing_to_sweep(
    place: Space, ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nfnetlink, "NETLINK_NETFILTER", 31)  # the last of netlink's protocols, and nobody's
    host = Host(place, ends)
    host.poll(SWEEP_AFTER_S)
    assert host.table.due() is None


def test_a_refusal_of_nft_is_told_and_the_next_relays_do_not_wait_for_it(
    place: Space, ends: ExitStack, tmp_path: Path
) -> None:
    place.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    handler = place.inside(lambda: Relays(0.0))
    ends.callback(handler.close)
    pairs = [InstallRelay(p, Address("127.0.0.2", p), Address("127.0.0.3", p)) for p in (40001, 40002, 40003)]
    with nft(tmp_path, REFUSES) as ran:
        for pair in pairs[:2]:
            place.inside(lambda pair=pair: handler.do(pair))
        with pytest.raises(RuntimeError, match=r"nft refused .*Could not process rule"):
            place.inside(lambda: handler.poll(1.0))
        assert place.inside(lambda: handler.poll(1.0)) == [], "it is told once"
    assert ran == ["run"]

    def by_kernel() -> dict[int, bool]:
        return {count.port: count.kernel for count in place.inside(lambda: list(handler.counters()))}

    assert by_kernel() == {40001: False, 40002: False}
    place.inside(lambda: handler.do(pairs[2]))
    assert by_kernel() == {40001: False, 40002: False, 40003: False}, "it is not yet time to try again"
    place.inside(lambda: handler.poll(1.0 + REFUSED_S))
    assert by_kernel() == {40001: True, 40002: True, 40003: True}
    for pair in pairs:
        place.inside(lambda pair=pair: handler.do(RemoveRelay(*(getattr(pair, f) for f in ("port", "a", "b")))))
    assert by_kernel() == {}


def changes(*kinds: tuple[int, Element]) -> list[tuple[int, str, bytes]]:
    """As `change_elements` wants them."""
    table = RuleTable(NAME, KINDS, "", 0.0)
    table.close()
    return [(kind, e.of, nfnetlink.element(*table._packed(e)[: 1 + (kind == MSG_NEWSETELEM)])) for kind, e in kinds]


def test_answers_to_what_was_given_up_are_not_those_to_the_next_question(
    host: Host, ends: ExitStack
) -> None:
    host.add(ONE)
    link = Nfnetlink()
    ends.callback(link.close)
    assert host.place.inside(lambda: link.has_table(NAME))
    asked = link._opened
    assert asked is not None
    # What came too late for a time limit, or was one acknowledgement more than was waited for.
    asked.send(link._message(nfnetlink.NFTABLES << 8 | nfnetlink.MSG_GETTABLE, 1, b"", nfnetlink.netlink.ACK))
    with pytest.raises(FileNotFoundError):
        link.change_elements(NAME, changes((MSG_DELSETELEM, TWO)))
    link.change_elements(NAME, changes((MSG_NEWSETELEM, TWO)))
    assert host.there() == {1, 2}
    assert len(link.elements(NAME, "doors")) == 2
    assert not link.has_table("nosuchtable")


def test_after_a_question_without_an_answer_there_is_another_connection(
    host: Host, ends: ExitStack
) -> None:
    link = Nfnetlink()
    ends.callback(link.close)
    deaf, other = socket.socketpair()
    ends.callback(other.close)
    deaf.settimeout(0.1)
    link._opened = deaf
    with pytest.raises(socket.timeout):
        link.has_table(NAME)
    assert deaf.fileno() == -1
    assert not host.place.inside(lambda: link.has_table(NAME))


def test_who_may_not_change_anything_hears_so_at_once(place: Space) -> None:
    """The kernel then answers the first message of a batch, and none of those that ask for an answer."""
    program = f"""
import time
from meshctl.agent.node.nfnetlink import MSG_NEWSETELEM, Nfnetlink
started = time.monotonic()
try:
    Nfnetlink().change_elements("{NAME}", [(MSG_NEWSETELEM, "doors", b"")] * 2)
except PermissionError:
    print(time.monotonic() - started < 1.0)
"""
    words = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", program]
    assert place.run("env", f"PYTHONPATH={ROOT}", *words) == "True\n"
