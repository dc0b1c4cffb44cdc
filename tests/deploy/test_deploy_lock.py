"""A run that goes on for minutes beside others who write the lock. Hunted: a revocation that whoever had read the lock
before takes out again, and hosts that are told of the thief after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sshmesh import Mesh

from meshctl.deploy import run
from meshctl.deploy.options import OFF, RunOptions
from meshctl.deploy.progress import Silent
from meshctl.deploy.rotate import rotate
from meshctl.errors import MeshctlError
from meshctl.inventory import Inventory, read, write_lock
from meshctl.model.keys import PublicKey
from meshctl.render.secret import ring_for

NAMES_IT = "wg show all peers; cat /etc/wireguard/wg0.conf"
STOPPED = r"the lock has changed while this ran, which stops here: two: revoked"
OTHER = PublicKey("B" * 42 + "A=")


class After(Silent):
    """Something that happens once, when a phase is over."""

    def __init__(self, phase: str, happens: Callable[[], None]) -> None:
        self._phase, self._happens = phase, [happens]
        self._now = ""

    def begin(self, phase: str, nodes: tuple[str, ...]) -> None:  # noqa: ARG002
        self._now = phase

    def end(self) -> None:
        if self._now == self._phase and self._happens:
            self._happens.pop()()


@pytest.fixture
def inventory(mesh: Mesh) -> Inventory:
    """Of a mesh that is applied, whose lock has no key of node one: who reads that one writes it."""
    mesh.apply("--confirm", "off")
    write_lock(read(mesh.path).without_keys([("one", "corp")]))
    return read(mesh.path)


def revoke_two(mesh: Mesh) -> Callable[[], None]:
    def revoke() -> None:
        done = mesh.run("revoke", "two", "-i", str(mesh.path))
        assert done.returncode == 0, done.stdout + done.stderr

    return revoke


def key_of(mesh: Mesh, name: str) -> str:
    return mesh.hosts[name].sh("wg pubkey </etc/wireguard/wg0.key").strip()


def two_is_out(mesh: Mesh) -> None:
    """In the lock and on node one; and the lock has what the other run learned, too."""
    thief = key_of(mesh, "two")
    lock = read(mesh.path).lock
    assert thief in map(str, lock.revoked["two"].keys)
    assert str(lock.entry("one", "corp").public_key) == key_of(mesh, "one")
    assert thief not in mesh.hosts["one"].sh(NAMES_IT)


@pytest.mark.parametrize("phase", ["reading", "keys"])
def test_a_rotation_stops_when_somebody_is_revoked_and_leaves_that_in_the_lock(
    mesh: Mesh, inventory: Inventory, phase: str
) -> None:
    inventory = write_lock(inventory.with_keys({("one", "corp"): PublicKey(key_of(mesh, "one"))}))
    before = mesh.hosts["one"].sh("wg show wg0 public-key")
    with pytest.raises(MeshctlError, match=STOPPED):
        rotate(inventory, ring_for(inventory.mesh), RunOptions(), ["one"], None, After(phase, revoke_two(mesh)))
    two_is_out(mesh)
    born = read(mesh.path).lock.entry("one", "corp").next_public_key
    assert bool(born) == (phase == "keys"), "the next one goes on with it"
    assert mesh.hosts["one"].sh("wg show wg0 public-key") == before


def test_an_apply_stops_when_somebody_is_revoked_and_leaves_that_in_the_lock(mesh: Mesh, inventory: Inventory) -> None:
    mesh.motd = "changed"
    mesh.write()
    inventory = read(mesh.path)
    ring, options = ring_for(inventory.mesh), RunOptions(confirm=OFF)
    with pytest.raises(MeshctlError, match=STOPPED):
        run.apply(inventory, ring, options, None, After("reading", revoke_two(mesh)))
    two_is_out(mesh)
    assert mesh.hosts["one"].sh("cat /etc/app/motd") == "hello"
    mesh.apply("--limit", "one", "--confirm", "off")
    assert mesh.hosts["one"].sh("cat /etc/app/motd") == "changed"


def test_a_key_that_another_run_has_pinned_meanwhile_is_no_hindrance_and_told_to_hosts(
    mesh: Mesh, inventory: Inventory
) -> None:
    def rotate_two() -> None:
        write_lock(read(mesh.path).with_next_keys({("two", "corp"): OTHER}))

    outcome = run.apply(
        inventory, ring_for(inventory.mesh), RunOptions(confirm=OFF, limit=("one",)), None, After("reading", rotate_two)
    )
    assert outcome.ok, outcome
    lock = read(mesh.path).lock
    assert lock.entry("two", "corp").next_public_key == OTHER
    assert str(lock.entry("one", "corp").public_key) == key_of(mesh, "one")
    assert str(OTHER) in mesh.hosts["one"].sh("wg show wg0 peers")
