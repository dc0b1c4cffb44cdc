"""The lock: what it pins, when it is stale, and how it is written. Hunted: what one run wrote and another took out."""

from __future__ import annotations

import dataclasses
import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from meshctl.errors import InventoryError, MeshctlError
from meshctl.inventory import lock_write, read, refreshed, write_lock
from meshctl.inventory.lock import OLD_KEYS_KEPT
from meshctl.model.keys import PublicKey

KEY = PublicKey("A" * 42 + "A=")
OTHER = PublicKey("B" * 42 + "A=")
NEW = PublicKey("C" * 42 + "A=")
TEXT = """\
version: 1
networks: {corp: {cidr: [10.42.0.0/16, "fd42:42::/48"]}}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}
  web1: {}
  phone: {client: true, peers: [hub]}
policies: [{name: p, from: phone, to: hub, allow: [any]}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.yml"
    path.write_text(TEXT)
    return path


def test_a_written_lock_is_not_stale_and_gives_the_same_mesh(file: Path) -> None:
    first = read(file)
    assert first.lock_changes == ("there is no lock yet",)
    assert first.lock_path == file.with_name("inventory.lock.yml")
    write_lock(first)
    second = read(file)
    assert second.lock_changes == ()
    assert second.mesh == first.mesh


def test_the_lock_is_byte_for_byte_the_same_when_written_again(file: Path) -> None:
    write_lock(read(file).with_keys({("hub", "corp"): KEY}))
    before = read(file).lock_path.read_bytes()
    write_lock(read(file))
    assert read(file).lock_path.read_bytes() == before


def test_the_text_of_the_lock_is_stable(file: Path) -> None:
    inventory = read(file).with_keys({("hub", "corp"): KEY})
    lines = inventory.lock.to_yaml().splitlines()
    hub = ", ".join(f'"{a}"' for a in inventory.mesh.nodes["hub"].attachments[0].addresses)
    assert lines[0].startswith("# Written by `meshctl lock`")
    assert lines[2:6] == [
        "version: 1",
        "nodes:",
        '  "hub":',
        f'    "corp": {{addresses: [{hub}], public_key: "{KEY}"}}',
    ]
    assert [line.strip() for line in lines if line.startswith("  ") and line[2] != " "] == [
        '"hub":',
        '"phone":',
        '"web1":',
    ]


def test_keys_go_into_mesh_and_lock_and_survive_a_round_trip(file: Path) -> None:
    inventory = read(file).with_keys({("hub", "corp"): KEY, ("phone", "corp"): OTHER})
    write_lock(inventory)
    again = read(file)
    assert again.mesh.nodes["hub"].attachments[0].public_key == KEY
    assert again.lock.entry("phone", "corp").public_key == OTHER
    assert again.missing_keys == (("web1", "corp"),)
    assert again.without_keys([("hub", "corp")]).missing_keys == (("hub", "corp"), ("web1", "corp"))
    assert again.without_keys([("hub", "corp")]).lock_changes == ("hub: public key in corp removed",)


def test_keys_for_a_pair_that_does_not_exist_are_refused(file: Path) -> None:
    with pytest.raises(KeyError):
        read(file).with_keys({("nobody", "corp"): KEY})
    with pytest.raises(KeyError):
        read(file).with_keys({("hub", "nowhere"): KEY})


def test_a_removed_node_leaves_the_lock_and_is_named(file: Path) -> None:
    write_lock(read(file))
    file.write_text(TEXT.replace("  web1: {}\n", ""))
    inventory = read(file)
    assert inventory.removed == ("web1",)
    assert inventory.lock_changes == ("web1: not in the inventory any more",)
    assert "web1" not in inventory.lock.nodes


def test_a_new_node_and_a_given_address_make_the_lock_stale(file: Path) -> None:
    write_lock(read(file))
    old = read(file).lock.entry("web1", "corp").addresses
    file.write_text(TEXT.replace("web1: {}", "web1: {address: 10.42.0.9}\n  web2: {}"))
    inventory = read(file)
    assert inventory.lock_changes == (
        f"web1: address in corp {old[0]}, {old[1]} → 10.42.0.9, {old[1]}",
        "web2: new",
    )


def test_a_folder_keeps_its_lock_inside_and_does_not_read_it_as_inventory(file: Path) -> None:
    write_lock(read(file.parent))
    assert (file.parent / "inventory.lock.yml").exists()
    assert read(file.parent).lock_changes == ()


BAD_LOCKS = {
    "a merge conflict": ("<<<<<<< HEAD\nversion: 1\n", "yaml-syntax"),
    "an unknown key": ("version: 1\nnodes: {}\nextra: 1\n", "unknown-key"),
    "a bad key": ('version: 1\nnodes: {a: {corp: {addresses: [], public_key: "abc"}}}\n', "bad-format"),
    "a key of other bits": (
        f'version: 1\nnodes: {{a: {{corp: {{addresses: [], public_key: "{"A" * 42}B="}}}}}}\n',
        "bad-key",
    ),
    "an old key of other bits": (
        f'version: 1\nnodes: {{a: {{corp: {{addresses: [], old_public_keys: ["{"A" * 42}B="]}}}}}}\n',
        "bad-key",
    ),
    "an old key that another node has": (
        f'version: 1\nnodes:\n  a: {{corp: {{addresses: [], old_public_keys: ["{KEY}"]}}}}\n'
        f'  b: {{corp: {{addresses: [], public_key: "{KEY}"}}}}\n',
        "duplicate-public-key",
    ),
    "a bad address": ("version: 1\nnodes: {a: {corp: {addresses: [10.0.0.300]}}}\n", "bad-address"),
    "one key for two nodes": (
        f'version: 1\nnodes:\n  a: {{corp: {{addresses: [], public_key: "{KEY}"}}}}\n'
        f'  b: {{corp: {{addresses: [], public_key: "{KEY}"}}}}\n',
        "duplicate-public-key",
    ),
    "an empty file": ("", "empty"),
}


@pytest.mark.parametrize("name", BAD_LOCKS)
def test_a_bad_lock_is_explained_with(name: str, file: Path) -> None:
    text, code = BAD_LOCKS[name]
    lock = file.with_name("inventory.lock.yml")
    lock.write_text(text)
    with pytest.raises(InventoryError) as caught:
        read(file)
    assert {(d.code, d.file) for d in caught.value.diagnostics} == {(code, str(lock))}


def test_a_lock_that_cannot_be_written_is_an_explained_error_and_leaves_nothing_behind(file: Path) -> None:
    inventory = read(file)
    unwritable = dataclasses.replace(inventory, lock_path=file / "inventory.lock.yml")
    with pytest.raises(MeshctlError, match="cannot write the lock"):
        write_lock(unwritable)
    target = file.with_name("taken")
    (target / "x").mkdir(parents=True)
    with pytest.raises(MeshctlError, match="the lock cannot be read any more"):
        write_lock(dataclasses.replace(inventory, lock_path=target))
    assert sorted(p.name for p in file.parent.iterdir()) == ["inventory.yml", "taken"]


def test_a_pending_rotation_is_in_the_lock_until_the_node_has_switched(file: Path) -> None:
    write_lock(read(file).with_keys({("web1", "corp"): KEY}))
    pending = read(file).with_next_keys({("web1", "corp"): OTHER})
    assert pending.lock_changes == ("web1: next public key in corp recorded",)
    write_lock(pending)
    again = read(file)
    assert again.mesh == pending.mesh
    attachment = again.mesh.nodes["web1"].attachments[0]
    assert (attachment.public_key, attachment.next_public_key) == (KEY, OTHER)
    switched = again.switched(["web1", "hub"])
    assert switched.lock.entry("web1", "corp") == dataclasses.replace(
        again.lock.entry("web1", "corp"), public_key=OTHER, next_public_key=None, old_public_keys=(KEY,),
        cleanup_pending=True,
    )  # fmt: skip
    assert switched.mesh.nodes["hub"] == again.mesh.nodes["hub"]


def test_a_next_key_that_another_node_has_is_refused(file: Path) -> None:
    write_lock(read(file).with_keys({("hub", "corp"): KEY}).with_next_keys({("web1", "corp"): KEY}))
    with pytest.raises(InventoryError) as caught:
        read(file)
    assert [d.code for d in caught.value.diagnostics] == ["duplicate-public-key"]


def test_a_revoked_node_has_no_key_nor_gets_one_until_it_is_readmitted(file: Path) -> None:
    before = read(file).with_keys({("web1", "corp"): KEY}).with_next_keys({("web1", "corp"): OTHER})
    write_lock(before)
    write_lock(read(file).revoking(["web1"]))
    revoked = read(file)
    assert revoked.lock_changes == ()
    assert revoked.lock.revoked["web1"].keys == (KEY, OTHER)
    assert revoked.lock.entry("web1", "corp").public_key is None
    assert [n.name for n in revoked.mesh.managed()] == ["hub"]
    assert ("web1", "corp") not in revoked.missing_keys
    write_lock(revoked.readmitting(["web1"]))
    again = read(file)
    assert [n.name for n in again.mesh.managed()] == ["hub", "web1"]
    with pytest.raises(MeshctlError, match="was revoked"):
        again.with_keys({("web1", "corp"): KEY})


def key(number: int) -> PublicKey:
    return PublicKey(chr(ord("D") + number) * 42 + "A=")


def test_the_keys_that_a_node_had_stay_in_the_lock_and_are_revoked_with_it(file: Path) -> None:
    write_lock(read(file).with_keys({("web1", "corp"): KEY}))
    write_lock(read(file).with_next_keys({("web1", "corp"): OTHER}).switched(["web1"]))
    write_lock(read(file).without_keys([("web1", "corp")]).with_keys({("web1", "corp"): NEW}))
    entry = read(file).lock.entry("web1", "corp")
    assert (entry.old_public_keys, entry.cleanup_pending) == ((OTHER, KEY), True)
    write_lock(read(file).cleaned_up([("web1", "corp")]))
    cleaned = read(file)
    assert cleaned.lock.entry("web1", "corp") == dataclasses.replace(entry, cleanup_pending=False)
    write_lock(cleaned.revoking(["web1"]))
    assert read(file).lock.revoked["web1"].keys == (NEW, OTHER, KEY)
    assert read(file).lock.keys_of("web1") == ()


def test_a_key_that_comes_back_is_no_old_one_and_the_oldest_are_forgotten(file: Path) -> None:
    inventory = read(file)
    for number in range(OLD_KEYS_KEPT + 2):
        inventory = inventory.with_keys({("web1", "corp"): key(number)})
    assert inventory.lock.entry("web1", "corp").old_public_keys == tuple(key(n) for n in range(OLD_KEYS_KEPT, 0, -1))
    back = inventory.with_keys({("web1", "corp"): key(OLD_KEYS_KEPT)}).lock.entry("web1", "corp")
    assert back.old_public_keys[:2] == (key(OLD_KEYS_KEPT + 1), key(OLD_KEYS_KEPT - 1))
    assert back.public_key not in back.old_public_keys


def test_a_key_that_another_node_had_is_refused(file: Path) -> None:
    inventory = read(file).with_keys({("web1", "corp"): KEY}).with_keys({("web1", "corp"): OTHER})
    with pytest.raises(MeshctlError, match=r"hub: its key in corp was web1's before"):
        inventory.with_keys({("hub", "corp"): KEY})


def test_what_two_runs_leave_behind_is_in_the_lock_and_neither_takes_it_for_cleaned_up(file: Path) -> None:
    write_lock(read(file).with_keys({("web1", "corp"): KEY}))
    write_lock(read(file).with_next_keys({("web1", "corp"): OTHER}).switched(["web1"]))
    one, other = read(file), read(file)
    write_lock(one.with_keys({("web1", "corp"): NEW}))
    write_lock(other.cleaned_up([("web1", "corp")]))
    entry = read(file).lock.entry("web1", "corp")
    assert (entry.public_key, entry.old_public_keys, entry.cleanup_pending) == (NEW, (OTHER, KEY), True)
    one, other = read(file), read(file)
    write_lock(other.cleaned_up([("web1", "corp")]))
    write_lock(one.with_keys({("hub", "corp"): key(0)}))
    assert read(file).lock.entry("web1", "corp").cleanup_pending is False


def test_a_lock_that_brings_a_revoked_key_back_is_refused(file: Path) -> None:
    write_lock(read(file).with_keys({("web1", "corp"): KEY}))
    text = read(file).lock_path.read_text()
    read(file).lock_path.write_text(f'{text}revoked:\n  "web1": {{keys: ["{KEY}"]}}\n')
    with pytest.raises(InventoryError) as caught:
        read(file)
    assert [d.code for d in caught.value.diagnostics] == ["revoked-key"]


def test_a_jump_host_that_was_revoked_is_warned_about(file: Path) -> None:
    file.write_text(TEXT.replace("web1: {}", "web1: {}\n  behind: {ssh: {jump: web1}}\n  too: {ssh: {jump: behind}}"))
    write_lock(read(file))
    assert read(file).warnings == ()
    write_lock(read(file).revoking(["web1"]))
    (warning,) = read(file).warnings
    assert warning.code == "revoked-jump"
    assert warning.message == "`behind` is reached by way of `web1`, which was revoked"
    write_lock(read(file).revoking(["behind"]))
    assert [found.message for found in read(file).warnings] == [
        "`too` is reached by way of `behind`, which was revoked"
    ]


def test_what_others_wrote_since_the_lock_was_read_stays(file: Path) -> None:
    write_lock(read(file).with_keys({("web1", "corp"): KEY}))
    one, other = read(file), read(file)
    write_lock(other.with_keys({("phone", "corp"): NEW}))
    written = write_lock(one.with_next_keys({("web1", "corp"): OTHER}))
    again = read(file)
    assert again.lock.entry("phone", "corp").public_key == NEW
    assert again.lock.entry("web1", "corp").next_public_key == OTHER
    assert (written.lock, written.mesh, written.lock_changes) == (again.lock, again.mesh, ())


def test_no_rotation_takes_a_revocation_out_and_its_next_key_is_revoked_too(file: Path) -> None:
    write_lock(read(file).with_keys({("web1", "corp"): KEY}))
    rotation = read(file)
    write_lock(read(file).revoking(["web1"]))
    written = write_lock(rotation.with_next_keys({("web1", "corp"): OTHER}))
    again = read(file)
    assert again.lock.revoked["web1"].keys == (KEY, OTHER)
    assert again.lock.entry("web1", "corp").public_key is None
    assert again.mesh.nodes["web1"].revoked
    assert written.mesh == again.mesh


def test_a_revocation_takes_with_it_a_key_that_was_pinned_since_it_read_the_lock(file: Path) -> None:
    write_lock(read(file).with_keys({("web1", "corp"): KEY}))
    revocation = read(file).revoking(["web1"])
    write_lock(read(file).with_next_keys({("web1", "corp"): OTHER}))
    write_lock(revocation)
    assert read(file).lock.revoked["web1"].keys == (KEY, OTHER)
    assert read(file).lock.entry("web1", "corp").next_public_key is None


def test_who_is_let_in_again_stays_so_and_another_revocation_too(file: Path) -> None:
    write_lock(read(file).with_keys({("web1", "corp"): KEY, ("phone", "corp"): OTHER}).revoking(["web1"]))
    readmission = read(file).readmitting(["web1"]).with_keys({("web1", "corp"): NEW})
    write_lock(read(file).revoking(["phone"]))
    write_lock(readmission)
    lock = read(file).lock
    assert (lock.is_revoked("web1"), lock.is_revoked("phone")) == (False, True)
    assert lock.entry("web1", "corp").public_key == NEW


def test_nodes_that_others_added_stay_and_those_that_the_inventory_has_not_go(file: Path) -> None:
    write_lock(read(file))
    file.write_text(TEXT.replace("  web1: {}\n", ""))
    without = read(file)
    file.write_text(TEXT.replace("web1: {}", "web1: {}\n  web2: {}"))
    write_lock(read(file))
    write_lock(without)
    assert set(without.lock.nodes) == {"hub", "phone"}
    file.write_text(TEXT.replace("web1: {}", "web2: {}"))
    assert read(file).lock_changes == ()


@pytest.mark.parametrize("what", ["key", "address"])
def test_what_two_runs_would_change_each_in_another_way_is_refused(file: Path, what: str) -> None:
    write_lock(read(file))
    if what == "key":
        one, other = (read(file).with_keys({("phone", "corp"): key}) for key in (KEY, OTHER))
    else:
        file.write_text(TEXT.replace("web1: {}", "web1: {}\n  web2: {address: 10.42.0.9}"))
        one = read(file)
        file.write_text(TEXT.replace("web1: {}", "web1: {}\n  web3: {address: 10.42.0.9}"))
        other = read(file)
    write_lock(other)
    before = other.lock_path.read_bytes()
    with pytest.raises(MeshctlError, match="the lock has changed meanwhile"):
        write_lock(one)
    assert other.lock_path.read_bytes() == before
    assert sorted(p.name for p in file.parent.iterdir()) == ["inventory.lock.yml", "inventory.yml"]


def test_nothing_is_written_by_who_only_looks(file: Path) -> None:
    write_lock(read(file))
    one = read(file)
    write_lock(read(file).with_keys({("web1", "corp"): KEY}).revoking(["phone"]))
    before = one.lock_path.read_bytes()
    found = refreshed(one)
    assert found.mesh.nodes["web1"].attachments[0].public_key == KEY
    assert found.mesh.nodes["phone"].revoked
    assert one.lock_path.read_bytes() == before


def test_of_many_who_write_at_the_same_time_nobody_is_lost_and_nothing_left_behind(file: Path) -> None:
    names = [f"web{number}" for number in range(1, 17)]
    file.write_text(TEXT.replace("  web1: {}\n", "".join(f"  {name}: {{}}\n" for name in names)))
    write_lock(read(file))
    keys = {name: PublicKey(chr(ord("D") + number) * 42 + "A=") for number, name in enumerate(names)}
    mine = {name: read(file).with_keys({(name, "corp"): key}) for name, key in keys.items()}
    together = Barrier(len(names))

    def write(name: str) -> None:
        together.wait()
        write_lock(mine[name])

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(write, names))
    lock = read(file).lock
    assert {name: lock.entry(name, "corp").public_key for name in names} == keys
    assert sorted(p.name for p in file.parent.iterdir()) == ["inventory.lock.yml", "inventory.yml"]


def test_what_a_killed_run_left_half_written_is_nobodys_hindrance(file: Path) -> None:
    left = file.with_name(".inventory.lock.yml.new")
    left.write_text("version: 1\nnodes: {" + "x" * 100_000)
    write_lock(read(file))
    assert read(file).lock_changes == ()
    assert not left.exists()


def test_a_run_that_is_stopped_while_it_writes_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_write, "WAIT_S", 0.1)
    with file.with_name(".inventory.lock.yml.new").open("w") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        with pytest.raises(MeshctlError, match="another run") as caught:
            write_lock(read(file))
    assert f"fuser {stopped.name}" in caught.value.hint
