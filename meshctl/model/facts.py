"""What a host has, as parsed from one run of the facts script. Absent things are absent keys or None."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.model.keys import PublicKey, Secret
from meshctl.model.ledger import Ledger
from meshctl.model.places import PENDING_PATH, UNDONE_PATH


@dataclass(frozen=True)
class PeerFacts:
    """One peer from `wg show IFACE dump`. Times are Unix seconds, 0 for never; keepalive 0 is off."""

    public_key: PublicKey
    psk: Secret | None
    endpoint: str | None
    allowed_ips: tuple[str, ...]
    latest_handshake: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    keepalive_s: int = 0


@dataclass(frozen=True)
class InterfaceFacts:
    """A live WireGuard interface. `addresses` carry their prefix length; `routes` are those by this device,
    without the kernel's own connected ones. The private key is never read."""

    name: str
    public_key: PublicKey | None
    listen_port: int
    fwmark: int
    peers: Mapping[PublicKey, PeerFacts]
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    mtu: int = 0
    up: bool = False


@dataclass(frozen=True)
class FileFacts:
    """A path that exists. `sha256` is set for regular files, `target` for links."""

    kind: str  # file | directory | link | other
    mode: str = ""
    owner: str = ""
    group: str = ""
    sha256: str = ""
    target: str = ""


@dataclass(frozen=True)
class UnitFacts:
    """systemd's words: LoadState, ActiveState, UnitFileState."""

    load: str
    active: str
    file_state: str


@dataclass(frozen=True)
class PendingApply:
    """An apply that waits to be confirmed; `window_s` is how long, once it is done. `began` is Unix time by the node's
    clock, 0 when it has just begun. `manual`: a person confirms it; otherwise the run itself does, once it has checked
    the mesh. `damaged`: the node's file cannot be read, and only the node itself can find out which apply it is."""

    id: str
    who: str
    window_s: float
    began: float = 0.0
    manual: bool = False
    boot: str = ""  # the kernel's boot id then
    ended: bool = True  # its applier has, and has not died
    damaged: bool = False

    @property
    def words(self) -> str:
        """Whose it is, and since when by this machine's zone."""
        if self.damaged:
            return f"an apply whose {PENDING_PATH} is damaged"
        since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self.began))
        return f"an apply of {self.who or 'somebody'}, begun {since}"


@dataclass(frozen=True)
class UndoneApply:
    """The last apply that the host has undone, why, and what could not be put back, in words. `damaged`: the node's
    file cannot be read, and says none of it."""

    id: str
    why: str
    left: tuple[str, ...] = ()
    damaged: bool = False

    @property
    def words(self) -> str:
        """Which one, and all that is known of it."""
        if self.damaged:
            return f"an apply was undone, and {UNDONE_PATH}, which says why, is damaged: `meshctl history` may know"
        left = f"; not put back: {', '.join(self.left)}" if self.left else ""
        return f"the apply {self.id} was undone: {self.why}{left}"


@dataclass(frozen=True)
class HostFacts:
    """One host at one moment."""

    node: str
    os_id: str = ""  # ID of /etc/os-release
    python: tuple[int, int] | None = None  # None: no python3
    has_wg: bool = False
    tools: frozenset[str] = frozenset()  # which of wg, nft, ip, systemctl, apt-get there are
    init: str = ""  # "systemd" when PID 1 is
    boot_id: str = ""  # the kernel's: another one after each start of the host
    agents: frozenset[str] = frozenset()  # hashes of the applier's zipapps that are there
    packages: Mapping[str, str] = field(default_factory=dict)  # installed name -> version
    files: Mapping[str, FileFacts] = field(default_factory=dict)  # only paths that exist
    sysctls: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, UnitFacts] = field(default_factory=dict)
    interfaces: Mapping[str, InterfaceFacts] = field(default_factory=dict)
    # interface -> the pieces of wg-quick's default route that are in place: "4 route", "4 rule", "4 suppress" (main's
    # own routes first), and the same for 6.
    policy_routing: Mapping[str, frozenset[str]] = field(default_factory=dict)
    key_files: Mapping[str, PublicKey | None] = field(default_factory=dict)  # path -> public half; only existing
    key_times: Mapping[str, int] = field(default_factory=dict)  # path -> when that key was made, Unix seconds
    tables: Mapping[str, str] = field(default_factory=dict)  # "inet meshctl" -> sha256 of `nft -s list table`
    ledger: Ledger = Ledger()
    pending: PendingApply | None = None
    undone: UndoneApply | None = None  # since then nothing was confirmed

    @property
    def may_be_abandoned(self) -> bool:
        """Whether nobody may confirm any more what is pending: it is of before a boot, or its applier has died, if it
        is not still at work."""
        return self.pending is not None and (not self.pending.ended or self.pending.boot != self.boot_id)
