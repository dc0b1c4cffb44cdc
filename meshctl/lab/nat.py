"""The routers' rulesets: one nftables file for each NAT kind, in the terms of RFC 4787.

| kind | mapping | filtering |
|---|---|---|
| none | no translation | none |
| easy | endpoint-independent, port-preserving | address and port-dependent |
| full-cone | endpoint-independent, port-preserving | endpoint-independent |
| address-dependent | endpoint-independent, port-preserving | address-dependent |
| symmetric | address and port-dependent, random ports | address and port-dependent |
| symmetric-sequential | address and port-dependent, consecutive ports | address and port-dependent |
| udp-blocked | as easy, for TCP and ICMP | no UDP passes, IPv4 or IPv6 |

cgnat is no ruleset: it is an easy home router behind a carrier's router that does the same (`draft.CARRIER_NAT`).
"""

from __future__ import annotations

from meshctl.lab.blueprint import LAN_BRIDGE, WAN, Router
from meshctl.lab.shell import in_netns

# RFC 4787 REQ-5: five minutes are recommended for a UDP mapping. The kernel's own 30 s and 120 s (conntrack) hold for
# filtering and for symmetric mappings.
MAPPING_TIMEOUT_S = 300
# symmetric-sequential hands out ports from here, round and round.
SEQUENTIAL_FIRST, SEQUENTIAL_COUNT = 20_000, 4096
# miniupnpd's own chains (its configuration names them); an administrator's table would have them too.
UPNP_CHAINS = ("upnp_forward", "upnp_prerouting", "upnp_postrouting")
TABLE = "lab"

_INDEPENDENT = ("easy", "full-cone", "address-dependent")
# What is remembered of each mapping: inside to outside port and back, ports that are taken, whom it has talked to.
_MAPS = f"""\
  map mapped {{
    type ipv4_addr . inet_service : inet_service
    flags dynamic,timeout
    timeout {MAPPING_TIMEOUT_S}s
  }}
  map owner {{
    type inet_service : ipv4_addr . inet_service
    flags dynamic,timeout
    timeout {MAPPING_TIMEOUT_S}s
  }}
  set taken {{
    type inet_service
    flags dynamic,timeout
    timeout {MAPPING_TIMEOUT_S}s
  }}
  set contacted {{
    type ipv4_addr . inet_service
    flags dynamic,timeout
    timeout {MAPPING_TIMEOUT_S}s
  }}
"""


def apply(lab: str, router: Router, kind: str) -> None:
    """Load the kind's rules in one transaction and forget all mappings, as a router does that was configured anew."""
    in_netns(lab, router.name, ["nft", "-f", "-"], stdin=ruleset(router, kind))
    in_netns(lab, router.name, ["conntrack", "-F"])


def ruleset(router: Router, kind: str) -> str:
    """The nftables text that makes `router` a NAT of this kind; it replaces whatever the lab loaded before."""
    filtering = "" if kind == "none" else _filter(kind)
    return f"""\
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
{filtering}{_nat(router, kind)}}}
"""


def _filter(kind: str) -> str:
    """Both families: what comes from outside must belong to something (RFC 6092 for IPv6).

    A packet to the router's own address is dropped, not refused: refusing would leave a conntrack entry in the way of
    the mapping that the host behind is about to make.
    """
    blocked = f"    iifname {{ {WAN}, {LAN_BRIDGE} }} meta l4proto udp drop\n" if kind == "udp-blocked" else ""
    return f"""\
  chain upnp_forward {{
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
{blocked}    iifname != {WAN} accept
    ct state established,related accept
    ct status dnat accept
    meta nfproto ipv6 jump upnp_forward
    meta l4proto icmpv6 accept
    drop
  }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname != {WAN} accept
    ct state established,related accept
    meta l4proto {{ icmp, icmpv6 }} accept
    drop
  }}
"""


def _nat(router: Router, kind: str) -> str:
    """IPv4 translation. The maps remember what each host behind was given, which conntrack alone does not:
    it preserves a port only until two hosts use the same one towards the same destination."""
    independent = kind in _INDEPENDENT
    return f"""\
{_MAPS if independent else ""}  chain upnp_prerouting {{
  }}
  chain upnp_postrouting {{
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    meta nfproto ipv6 accept
{_forwards(router)}    iifname {WAN} jump upnp_prerouting
{_unsolicited(kind)}  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    meta nfproto ipv6 accept
    oifname != {WAN} accept
{_own_ports(router)}    jump upnp_postrouting
{_translate(router, kind)}  }}
{_RECORD if independent else ""}"""


def _forwards(router: Router) -> str:
    return "".join(
        f"    ip daddr {f.address} udp dport {f.port} dnat ip to {f.to_address}:{f.to_port}\n" for f in router.forwards
    )


def _own_ports(router: Router) -> str:
    """A forwarded port is the mapping of its host, towards everybody, and nobody else's."""
    return "".join(
        f"    ip saddr {f.to_address} udp sport {f.to_port} snat ip to {f.address}:{f.port}\n"
        f"    udp sport {f.port} masquerade to :1024-65535 random\n"
        for f in router.forwards
    )


def _unsolicited(kind: str) -> str:
    """What may come in without being an answer."""
    if kind == "full-cone":
        return f"    iifname {WAN} dnat ip to udp dport map @owner\n"
    if kind == "address-dependent":
        return f"    iifname {WAN} ip saddr . udp dport @contacted dnat ip to udp dport map @owner\n"
    return ""


def _translate(router: Router, kind: str) -> str:
    if kind == "none":
        return ""
    if kind == "symmetric":
        return "    masquerade fully-random\n"
    if kind == "symmetric-sequential":
        ports = ", ".join(f"{i} : {SEQUENTIAL_FIRST + i}" for i in range(SEQUENTIAL_COUNT))
        next_port = f"numgen inc mod {SEQUENTIAL_COUNT} map {{ {ports} }}"
        return f"    meta l4proto udp snat ip to {router.wan} : {next_port}\n    masquerade\n"
    if kind == "udp-blocked":
        return "    masquerade\n"
    return f"""\
    meta l4proto udp snat ip to {router.wan} : ip saddr . udp sport map @mapped
    meta l4proto udp udp sport @taken masquerade to :1024-65535 random
    masquerade
"""


# After translation, every UDP packet that leaves renews what is known of its mapping (RFC 4787 REQ-6: outbound
# refresh). A reply to somebody from outside has its host in the connection's other direction.
_RECORD = f"""\
  chain translated {{
    type filter hook postrouting priority 150; policy accept;
    oifname != {WAN} accept
    meta nfproto ipv6 accept
    meta l4proto != udp accept
    ct direction original jump own
    ct direction reply jump answer
    update @taken {{ udp sport }}
    update @contacted {{ ip daddr . udp sport }}
  }}
  chain own {{
    meta l4proto udp update @mapped {{ ct original ip saddr . ct original proto-src : udp sport }}
    update @owner {{ udp sport : ct original ip saddr . ct original proto-src }}
  }}
  chain answer {{
    meta l4proto udp update @mapped {{ ct reply ip saddr . ct reply proto-src : udp sport }}
    update @owner {{ udp sport : ct reply ip saddr . ct reply proto-src }}
  }}
"""
