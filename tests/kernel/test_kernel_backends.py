"""Both backends on the kernel's own WireGuard, with systemd and networkd as a Debian server has them.

The tests build on each other, in the order of the file: a boot under emulation is too dear for one each.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel_guest import Guest
from kernel_mesh import KernelMesh

pytestmark = pytest.mark.lab

NETWORK_FILE = "/etc/systemd/network/50-meshctl-wg0.network"
# Everything that an apply could touch, with its modification time. The agent saves its own state when it learns a path.
MTIMES = (
    "find /etc /opt/meshctl /var/lib/meshctl -xdev -path /var/lib/meshctl/agent -prune -o -newermt 2000-01-01"
    " -printf '%p %T@\\n' | sort"
)
# What the agent may not write to, and then what it may, as in docs/agent-node.md.
READ_ONLY = "/ /etc /usr /boot /opt/meshctl /var /var/lib/meshctl /run /run/lock /run/systemd /dev /sys"
WRITABLE = "/var/lib/meshctl/agent /run/meshctl /tmp /var/tmp /dev/shm"
TRY = "nsenter -m -t $(systemctl show -p MainPID --value meshctl-agent) sh -c 'touch {0}/x && rm {0}/x && echo {0}'"
KERNEL = "wg show wg0 dump | cut -f 1,3- | sed 1d | cut -f 1,3; ip -o addr; ip route; ip -6 route; nft -s list ruleset"


@pytest.fixture(scope="module")
def mesh(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelMesh]:
    """The guest after a first apply with systemd-networkd, and a second one that let the client in."""
    made = KernelMesh(guest, tmp_path_factory.mktemp("mesh"), "systemd-networkd")
    first = made.apply()
    assert ("interface", "create", "wg0") in first
    made.enrol_client()
    assert {kind for kind, _, _ in made.apply()} == {"file", "peer"}
    made.start_client()
    yield made
    made.guest.sh("ip netns del phone", check=False)


def test_networkd_makes_the_interface_from_its_files(mesh: KernelMesh) -> None:
    link = mesh.networkd()
    assert link["Kind"] == "wireguard"
    assert link["AdministrativeState"] == "configured"
    assert link["NetworkFile"] == NETWORK_FILE
    assert "wireguard" in mesh.guest.sh("lsmod"), "the kernel's module does it"
    assert mesh.guest.sh("pgrep wireguard-go", check=False) == ""


def test_a_stock_client_reaches_the_node_through_the_kernels_tunnel(mesh: KernelMesh) -> None:
    assert mesh.client_reaches_node()
    assert mesh.client_reaches_node(family=6)
    assert mesh.handshake() > 0


def test_a_second_apply_changes_nothing(mesh: KernelMesh) -> None:
    before = _state(mesh)
    handshake = mesh.handshake()
    with mesh.lossless():
        assert mesh.apply() == []
    assert _state(mesh) ^ before == set()
    assert mesh.handshake() >= handshake > 0


def test_the_agent_may_write_to_its_folders_alone_and_says_what_to_do_when_one_is_removed(mesh: KernelMesh) -> None:
    sh = mesh.guest.sh
    tried = "; ".join(TRY.format(place) for place in f"{READ_ONLY} {WRITABLE}".split())
    assert sh(tried, check=False).split() == WRITABLE.split()
    sh("rm -r /run/meshctl")
    assert "systemctl restart meshctl-agent" in sh("timeout 60 journalctl -f -u meshctl-agent | grep -m 1 'of=Control'")
    sh("systemctl restart meshctl-agent")
    assert sh("meshctl-agent status").startswith("kern: ")
    assert sh("stat -c %a /run/meshctl") == "755\n"


def test_a_changed_mtu_changes_only_that_and_loses_no_packet(mesh: KernelMesh) -> None:
    mesh.set(mtu=1400)
    with mesh.lossless():
        changes = mesh.apply()
    assert {kind for kind, _, _ in changes} - {"file"} == {"mtu"}
    assert mesh.guest.sh("cat /sys/class/net/wg0/mtu") == "1400\n"
    assert mesh.plan() == []


def test_a_changed_address_changes_only_that_and_networkd_agrees(mesh: KernelMesh) -> None:
    kept = mesh.address("kern")
    mesh.set(address=[kept, "fd42:42::77"])
    with mesh.lossless():
        changes = mesh.apply()
    assert {kind for kind, _, _ in changes} - {"file"} == {"address", "table"}
    mesh.guest.sh("networkctl reload")
    addresses = mesh.guest.sh("ip -o -6 addr show dev wg0")
    assert "fd42:42::77/48" in addresses
    assert addresses.count("inet6") == 1
    assert mesh.networkd()["AdministrativeState"] in {"configured", "configuring"}
    assert mesh.plan() == []


def test_drift_made_by_hand_is_shown_and_repaired(mesh: KernelMesh) -> None:
    mesh.guest.sh(
        f"ip addr del {mesh.address('kern', 6)}/48 dev wg0 && wg set wg0 listen-port 51999"
        f" && ip link set wg0 mtu 1333 && echo '# drift' >>{NETWORK_FILE}"
    )
    drift = mesh.plan()
    assert {kind for kind, _, _ in drift} == {"address", "listen-port", "mtu", "file"}
    assert mesh.apply() == drift
    assert mesh.plan() == []
    assert mesh.client_reaches_node()


def test_what_others_did_to_the_interface_stays(mesh: KernelMesh) -> None:
    mesh.guest.sh("wg set wg0 peer $(wg genkey | wg pubkey) && ip addr add 192.0.2.77/32 dev wg0")
    mesh.set(mtu=1410)
    mesh.apply()
    assert len(mesh.guest.sh("wg show wg0 peers").split()) == 2
    assert "192.0.2.77/32" in mesh.guest.sh("ip -o addr show dev wg0")


def test_a_reboot_brings_the_mesh_back(mesh: KernelMesh) -> None:
    mesh.guest.reboot()
    mesh.guest.sh("/lib/systemd/systemd-networkd-wait-online --interface=wg0 --timeout=120")
    assert mesh.plan() == []
    mesh.start_client()
    assert mesh.client_reaches_node()
    assert mesh.networkd()["AdministrativeState"] == "configured"


def test_a_change_of_backend_to_wg_quick_keeps_the_tunnel(mesh: KernelMesh) -> None:
    mesh.set(backend="wg-quick")
    with mesh.lossless():
        mesh.apply()
    assert mesh.plan() == []
    assert mesh.guest.sh("ls /etc/systemd/network") == "10-uplink.network\n"


def test_wg_quick_brings_the_kernels_interface_up_from_its_file(mesh: KernelMesh) -> None:
    # As after a boot: networkd knows nothing of the interface, and the interface nothing of its past.
    mesh.guest.sh("systemctl restart systemd-networkd; ip link del wg0; systemctl restart wg-quick@wg0")
    assert "wireguard" in mesh.guest.sh("ip -d link show wg0")
    assert mesh.guest.sh("pgrep wireguard-go", check=False) == ""
    assert mesh.networkd()["AdministrativeState"] == "unmanaged"
    assert mesh.client_reaches_node()
    assert mesh.plan() == []


def test_a_live_interface_is_adopted_without_losing_a_packet_and_is_networkds_from_its_next_start_on(
    mesh: KernelMesh,
) -> None:
    mesh.set(backend="systemd-networkd")
    with mesh.lossless():
        mesh.apply()
    assert mesh.plan() == []
    mesh.guest.sh("systemctl restart systemd-networkd; /lib/systemd/systemd-networkd-wait-online --interface=wg0")
    assert mesh.networkd()["NetworkFile"] == NETWORK_FILE
    assert mesh.client_reaches_node()
    assert mesh.plan() == []


def _state(mesh: KernelMesh) -> set[str]:
    """The lines that differ when anything has changed."""
    return set(mesh.guest.sh(f"{MTIMES}; {KERNEL}").splitlines())
