"""Splices on a real kernel: which packets they rewrite, which they spare, and that nothing of them stays."""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from agentnode_hosts import WIREGUARD_PORT, Space, cable, data, document, received, run, stun
from agentnode_space import key

from meshctl.agent.node.ruletable import SWEEP_AFTER_S
from meshctl.agent.node.splices import Splices
from meshctl.core.agent.address import Address
from meshctl.core.agent.events import Action, InstallSplice, OpenPorts, RemoveSplice
from meshctl.model.places import SPLICES_TABLE

PORT = 20000
FAMILIES = pytest.mark.parametrize("family", [4, 6])
OURS, THEIRS = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}
# A host that lets in answers alone.
FIREWALL = """
table inet strict {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		meta l4proto ipv6-icmp accept
	}
}
"""


@dataclass
class Pair:
    """This host with its splices, and the peer's host."""

    here: Space
    there: Space
    splices: Splices

    def do(self, *actions: Action) -> None:
        """In the host's namespace."""
        for action in actions:
            self.here.inside(lambda action=action: self.splices.do(action))

    def tables(self) -> str:
        """Of the agent."""
        return "".join(line for line in self.here.run("nft", "list", "tables").splitlines() if SPLICES_TABLE in line)

    def restart(self) -> None:
        """The agent dies, and another one starts."""
        self.splices.close()
        self.splices = self.here.inside(lambda: Splices(document("one", "two"), 0.0))


@pytest.fixture
def pair(ends: ExitStack) -> Pair:
    here, there = Space(ends), Space(ends)
    cable(here, there, *((f"{OURS[f]}/{bits}", f"{THEIRS[f]}/{bits}") for f, bits in ((4, 24), (6, 64))))
    found = Pair(here, there, here.inside(lambda: Splices(document("one", "two"), 0.0)))
    ends.callback(lambda: found.splices.close())
    return found


def splice(family: int, port: int = PORT, remote_port: int = 1111, peer: str = "one") -> tuple[Action, Action]:
    where = Address(THEIRS[family], remote_port)
    return OpenPorts(key(peer), (port,)), InstallSplice(key(peer), where, port)


def unsplice(family: int, port: int = PORT, remote_port: int = 1111, peer: str = "one") -> tuple[Action, Action]:
    where = Address(THEIRS[family], remote_port)
    return RemoveSplice(key(peer), where, port), OpenPorts(key(peer), ())


@FAMILIES
def test_packets_for_the_peer_leave_from_the_port_of_the_splice_and_come_back_to_wireguards(
    pair: Pair, family: int
) -> None:
    pair.here.run("nft", "-f", "-", text=FIREWALL)
    pair.do(*splice(family))
    wireguard, peer = pair.here.udp(WIREGUARD_PORT, family=family), pair.there.udp(1111, family=family)
    wireguard.sendto(data(1), (THEIRS[family], 1111))
    assert received(peer) == (data(1), Address(OURS[family], PORT))
    peer.sendto(data(2), (OURS[family], PORT))
    assert received(wireguard) == (data(2), Address(THEIRS[family], 1111))


@FAMILIES
def test_stun_from_and_to_both_ports_is_as_it_was(pair: Pair, family: int) -> None:
    pair.do(*splice(family))
    wireguard, peer = pair.here.udp(WIREGUARD_PORT, family=family), pair.there.udp(1111, family=family)
    wireguard.sendto(stun(), (THEIRS[family], 1111))
    assert received(peer) == (stun(), Address(OURS[family], WIREGUARD_PORT))
    peer.sendto(stun(b"1234"), (OURS[family], WIREGUARD_PORT))
    assert received(wireguard) == (stun(b"1234"), Address(THEIRS[family], 1111))
    peer.sendto(stun(), (OURS[family], PORT))
    assert received(wireguard) is None


@FAMILIES
def test_packets_of_other_peers_and_of_other_programs_are_as_they_were(pair: Pair, family: int) -> None:
    pair.do(*splice(family))
    wireguard, program = (pair.here.udp(port, family=family) for port in (WIREGUARD_PORT, 3333))
    peer, other = (pair.there.udp(port, family=family) for port in (1111, 2222))
    wireguard.sendto(data(), (THEIRS[family], 2222))
    assert received(other) == (data(), Address(OURS[family], WIREGUARD_PORT))
    program.sendto(data(), (THEIRS[family], 1111))
    assert received(peer) == (data(), Address(OURS[family], 3333))
    other.sendto(data(), (OURS[family], PORT))
    assert received(wireguard) is None


@FAMILIES
def test_a_device_behind_this_host_that_uses_the_same_ports_is_left_alone(
    pair: Pair, ends: ExitStack, family: int
) -> None:
    device = Space(ends)
    cable(pair.here, device, ("10.9.0.1/24", "10.9.0.2/24"), ("fd09::1/64", "fd09::2/64"))
    behind = {4: "10.9.0.2", 6: "fd09::2"}[family]
    device.run("ip", f"-{family}", "route", "add", "default", "via", {4: "10.9.0.1", 6: "fd09::1"}[family])
    pair.there.run("ip", f"-{family}", "route", "add", behind, "via", OURS[family])
    for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
        pair.here.run("sysctl", "-qw", f"net.{name}=1")
    pair.do(*splice(family))
    theirs, peer = device.udp(WIREGUARD_PORT, family=family), pair.there.udp(1111, family=family)
    theirs.sendto(data(), (THEIRS[family], 1111))
    assert received(peer) == (data(), Address(behind, WIREGUARD_PORT))
    on_port = device.udp(PORT, family=family)
    peer.sendto(data(), (behind, PORT))
    assert received(on_port) == (data(), Address(THEIRS[family], 1111))


@FAMILIES
def test_an_open_port_is_taken_and_nobody_is_told_that_it_is_closed(pair: Pair, family: int) -> None:
    asking = pair.there.udp(family=family)
    asking.connect((OURS[family], PORT))

    def refused() -> bool:
        asking.send(stun())
        try:
            asking.recv(100)
        except TimeoutError:
            return False
        except ConnectionRefusedError:
            return True
        raise AssertionError("somebody answered")

    assert refused()
    pair.do(OpenPorts(key("one"), (PORT, PORT + 1)))
    assert not refused()
    assert pair.here.run("ss", "-Huan", f"sport = :{PORT}").split()[1] == "0", "nothing waits for anybody to read it"
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        pair.here.udp(PORT, family=family)
    pair.do(OpenPorts(key("one"), ()))
    assert refused()


def test_a_port_that_another_program_has_hinders_nothing(pair: Pair) -> None:
    pair.here.udp(PORT)
    pair.do(*splice(4))
    wireguard, peer = pair.here.udp(WIREGUARD_PORT), pair.there.udp(1111)
    wireguard.sendto(data(), (THEIRS[4], 1111))
    assert received(peer) == (data(), Address(OURS[4], PORT))


def test_splices_stand_beside_each_other_and_go_one_by_one(pair: Pair) -> None:
    pair.do(*splice(4), *splice(6, PORT + 1, 2222, "two"))
    wireguard = {family: pair.here.udp(WIREGUARD_PORT, OURS[family], family) for family in (4, 6)}
    one, two = pair.there.udp(1111), pair.there.udp(2222, family=6)

    def leaves_from(family: int) -> int:
        wireguard[family].sendto(data(), (THEIRS[family], 1111 if family == 4 else 2222))
        got = received(one if family == 4 else two)
        assert got is not None
        return got[1].port

    assert (leaves_from(4), leaves_from(6)) == (PORT, PORT + 1)
    pair.do(*unsplice(4))
    assert (leaves_from(4), leaves_from(6)) == (WIREGUARD_PORT, PORT + 1)
    pair.do(*splice(4))
    pair.do(*splice(4))  # said twice: nothing changes
    assert (leaves_from(4), leaves_from(6)) == (PORT, PORT + 1)


def test_nothing_is_left_when_the_agent_has_given_everything_back(pair: Pair) -> None:
    pair.here.inside(lambda: pair.splices.poll(SWEEP_AFTER_S))
    pair.do(*splice(4), *splice(6, PORT + 1, 2222, "two"))
    assert pair.tables()
    pair.do(*unsplice(4), *unsplice(6, PORT + 1, 2222, "two"))
    pair.here.inside(lambda: pair.splices.poll(10.0))
    assert pair.splices.due() == 10.0 + SWEEP_AFTER_S
    pair.here.inside(lambda: pair.splices.poll(10.0 + SWEEP_AFTER_S))
    assert pair.tables() == ""
    assert PORT not in bound_ports(pair.here)


def test_an_agent_that_ends_soon_after_its_start_leaves_nothing_either(pair: Pair) -> None:
    pair.do(*splice(4))
    pair.restart()
    pair.do(*splice(4))
    pair.do(*unsplice(4))
    pair.here.inside(pair.splices.close)
    assert pair.tables() == ""


def test_an_agent_that_ends_before_its_core_has_said_what_it_wants_leaves_what_was_there(pair: Pair) -> None:
    pair.do(*splice(4))
    before = pair.tables()
    for _ in range(2):
        pair.restart()
        pair.here.inside(pair.splices.close)
    assert pair.tables() == before


def bound_ports(space: Space) -> set[int]:
    return {int(port) for port in re.findall(r":(\d+) ", space.run("ss", "-Huan"))}


def test_a_splice_lives_through_the_agents_death_and_ends_when_the_next_one_does_not_want_it(pair: Pair) -> None:
    pair.do(*splice(4), *splice(6, PORT + 1, 2222, "two"))
    pair.restart()
    pair.do(*splice(4))
    assert remotes(pair.here) == {"192.0.2.2", "2001:db8::2"}
    assert pair.splices.due() == SWEEP_AFTER_S
    pair.here.inside(lambda: pair.splices.poll(SWEEP_AFTER_S))
    assert remotes(pair.here) == {"192.0.2.2"}
    pair.restart()
    pair.here.inside(lambda: pair.splices.poll(SWEEP_AFTER_S))
    assert pair.tables() == ""


def remotes(space: Space) -> set[str]:
    return {ip for ip in (THEIRS[4], THEIRS[6]) if f"{ip} . " in elements(space)}


def elements(space: Space) -> str:
    return space.run("nft", "list", "table", "inet", SPLICES_TABLE)


def test_a_table_that_somebody_flushes_is_put_back(pair: Pair) -> None:
    pair.do(*splice(4))
    before = elements(pair.here)
    pair.here.run("nft", "flush", "ruleset")
    ((watch, readable),) = pair.splices.sockets()
    assert isinstance(watch, socket.socket)
    pair.here.inside(lambda: readable(0.0))
    assert elements(pair.here) == before


def test_a_splice_for_nobody_is_an_error(pair: Pair) -> None:
    with pytest.raises(ValueError, match="no peer"):
        pair.do(*splice(4, peer="stranger"))
    assert pair.tables() == ""


def test_a_tunnel_runs_over_a_splice_through_a_symmetric_nat(ends: ExitStack) -> None:
    """The recipe: the easy side's endpoint is what the hard NAT gave to the port of the splice."""
    here, router, there = Space(ends), Space(ends), Space(ends)
    cable(here, router, ("10.9.0.2/24", "10.9.0.1/24"))
    cable(router, there, ("192.0.2.1/24", "192.0.2.2/24"))
    here.run("ip", "route", "add", "default", "via", "10.9.0.1")
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    wan = f"to-{there.name[5:]}"
    router.run("nft", "-f", "-", text=f"""table ip nat {{
        chain out {{ type nat hook postrouting priority 100; oifname {wan} masquerade fully-random; }}
        chain filter {{ type filter hook forward priority 0; iifname {wan} ct state new drop; }}
    }}""")
    splices = here.inside(lambda: Splices(document("one"), 0.0))
    ends.callback(splices.close)
    public = {}
    for space, inner in ((here, "10.0.0.1"), (there, "10.0.0.2")):
        wg = f"wg{space.name[5:]}"
        space.run("wireguard-go", wg)
        private = run("wg", "genkey")
        space.run("wg", "set", wg, "listen-port", str(WIREGUARD_PORT), "private-key", "/dev/stdin", text=private)
        space.run("ip", "addr", "add", f"{inner}/24", "dev", wg)
        space.run("ip", "link", "set", wg, "up")
        public[space.name] = run("wg", "pubkey", text=private).strip()
    # The hard side opens a mapping from the port, as the agent's raw socket does.
    here.udp(PORT).sendto(stun(), ("192.0.2.2", WIREGUARD_PORT))
    seen = re.search(rf"sport={PORT} dport={WIREGUARD_PORT}.* dport=(\d+)", router.run("conntrack", "-L", "-p", "udp"))
    assert seen is not None
    for space, other, endpoint in (
        (there, here, f"192.0.2.1:{seen[1]}"), (here, there, f"192.0.2.2:{WIREGUARD_PORT}"),
    ):  # fmt: skip
        words = ["peer", public[other.name], "allowed-ips", "10.0.0.0/24", "endpoint", endpoint]
        space.run("wg", "set", f"wg{space.name[5:]}", *words)
    here.inside(lambda: splices.do(InstallSplice(key("one"), Address("192.0.2.2", WIREGUARD_PORT), PORT)))
    there.run("ping", "-c", "3", "-i", "0.05", "-W", "2", "10.0.0.1")
    shown = there.run("wg", "show", f"wg{there.name[5:]}", "endpoints").split()
    assert shown[1] == f"192.0.2.1:{seen[1]}"
