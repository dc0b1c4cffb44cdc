"""Building a lab, and converging one that is up to a changed inventory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from meshctl.lab import hosts, nat, network, procs, state, upnp, wiring
from meshctl.lab.blueprint import Blueprint, Host, Link
from meshctl.lab.design import design
from meshctl.lab.image import ensure_image, image_path
from meshctl.lab.limits import raise_limits
from meshctl.lab.names import INTERNET, LabError, check_name, netns, state_dir
from meshctl.lab.shell import ip_batch, require_root, run
from meshctl.lab.teardown import disks, halt, remove_elements
from meshctl.model.mesh import Mesh

# A booting host keeps one core busy for a third of a second; two for each core keep the disk busy as well.
BOOTS_PER_CORE = 2
SECRET_BYTES = 32


def up(mesh: Mesh, name: str, *, ssh_over_mesh: bool = False) -> state.State:
    """Bring the lab to what the inventory says: what is missing is built, what is no longer wanted goes.

    Hosts that stay are not restarted. Returns the new state; raises LabError.
    """
    check_name(name)
    require_root()
    wanted = design(mesh)
    images = {suite: ensure_image(suite) for suite in _releases(wanted)}
    raise_limits()
    with state.exclusive(name):
        before = state.load_if_any(name)
        _check_releases(wanted, before)
        if before is None or not before.complete:
            # What a crash left may be half configured; hosts then boot again, over their own disks.
            halt(name)
            before = None
        now = state.State(
            wanted, kinds={r.name: r.nat for r in wanted.routers}, leaders=before.leaders if before else {},
            ssh_over_mesh=ssh_over_mesh, complete=False,
        )
        state.save(name, now)
        remove_elements(name, {*network.existing(name), *disks(name)} - {INTERNET, *wanted.elements()})
        _build_network(name, wanted, before)
        _login_files(name)
        now = replace(now, leaders=_boot_missing(name, wanted, now.leaders, images), complete=True)
        state.save(name, now)
    return now


def images_to_make(mesh: Mesh) -> tuple[str, ...]:
    """Debian releases of which `up` has to make the image first; raises LabError for what cannot be built."""
    return tuple(suite for suite in _releases(design(mesh)) if not image_path(suite).is_dir())


def reboot(name: str, node: str, *, power_cut: bool = False) -> None:
    """Restart one host over its own disk, with an empty kernel state as after a real boot."""
    require_root()
    with state.changing(name) as now:
        host = state.host(name, now, node)
        hosts.stop(name, node, power_cut=power_cut)
        links = now.blueprint.links_of(node)
        network.disconnect(name, links)
        network.delete_namespaces(name, [node])
        network.create_namespaces(name, [node])
        _plug(name, links)
        now = replace(now, unplugged=tuple(n for n in now.unplugged if n != node))
        _rewire(name, now.blueprint, now.unplugged)
        now = replace(now, leaders={**now.leaders, node: hosts.boot(name, host)})
        state.save(name, now)


def set_nat(name: str, target: str, kind: str) -> None:
    """Make the node's own router (or the router itself) a NAT of that kind; all mappings are forgotten.

    A node behind a carrier has two: `cgnat` makes both translate, any other kind leaves the carrier transparent.
    """
    require_root()
    with state.changing(name) as now:
        chosen = state.routers_for(now, target, kind)
        for router, its_kind in chosen.items():
            nat.apply(name, router, its_kind)
            if router.upnp:
                upnp.stop(name, router.name)
                upnp.start(name, router)
        state.save(name, replace(now, kinds={**now.kinds, **{r.name: k for r, k in chosen.items()}}))


def set_link(name: str, node: str, *, up: bool) -> None:
    """Plug or unplug the node's own cable; it sees its carrier come and go."""
    require_root()
    with state.changing(name) as now:
        state.host(name, now, node)
        link = next(k for k in now.blueprint.links if k.child == node)
        unplugged = {n for n in now.unplugged if n != node} | (set() if up else {node})
        now = replace(now, unplugged=tuple(sorted(unplugged)))
        if link in _wired(name, now.blueprint):
            _rewire(name, now.blueprint, now.unplugged)
        else:
            lines = network.parent_lines(link) if up else [f"link set {link.parent_device} down"]
            ip_batch(lines, lab=name, element=link.parent)
            if up:
                network.await_up(name, node, link.device)
        state.save(name, now)


def _build_network(name: str, wanted: Blueprint, before: state.State | None) -> None:
    old_links = before.blueprint.links if before else ()
    old_routers = {r.name: r for r in before.blueprint.routers} if before else {}
    network.disconnect(name, set(old_links) - set(wanted.links))
    renumbered = [r.name for r in wanted.routers if r.name in old_routers and old_routers[r.name].lan != r.lan]
    remove_elements(name, renumbered)
    network.create_namespaces(name, [INTERNET, *wanted.elements()])
    network.prepare_routers(name, wanted.routers)
    there = {e: network.devices(name, e) for e in (INTERNET, *wanted.elements())}
    missing = [k for k in wanted.links if k.device not in there[k.child] or k.parent_device not in there[k.parent]]
    network.disconnect(name, missing)
    _plug(name, missing)
    for link in wanted.links:
        if before and link.child in before.unplugged:
            ip_batch(network.parent_lines(link), lab=name, element=link.parent)
    _rewire(name, wanted, ())
    for router in wanted.routers:
        as_it_was = router == old_routers.get(router.name) and before and before.kinds.get(router.name) == router.nat
        if not as_it_was or router.name in renumbered:
            upnp.stop(name, router.name)
            nat.apply(name, router, router.nat)
        if router.upnp and not upnp.running(name, router.name):
            upnp.start(name, router)


def _plug(name: str, links: list[Link] | tuple[Link, ...]) -> None:
    """Make cables; those with delay or loss by netem, or as TAPs for the wire."""
    slow = wiring.impaired(links)
    if slow and network.has_netem(name):
        network.connect(name, links, frozenset())
        for link in slow:
            network.impair(name, link)
        return
    network.connect(name, links, slow)


def _wired(name: str, blueprint: Blueprint) -> frozenset[Link]:
    slow = wiring.impaired(blueprint.links)
    return frozenset() if not slow or network.has_netem(name) else slow


def _rewire(name: str, blueprint: Blueprint, unplugged: tuple[str, ...]) -> None:
    """Tell the wire of its cables, and wait until they carry."""
    wired = _wired(name, blueprint)
    wiring.lay(name, wired, unplugged)
    for link in wired:
        if link.child not in unplugged:
            network.await_up(name, link.child, link.device)
            network.await_up(name, link.parent, link.parent_device)


def _login_files(name: str) -> None:
    """The lab's SSH key and mesh secret, made once."""
    folder = state_dir(name)
    key = folder / "id_ed25519"
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"meshctl-lab-{name}", "-f", str(key)])
    secret = folder / "secret"
    if not secret.exists():
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(SECRET_BYTES) + "\n")


def _releases(wanted: Blueprint) -> list[str]:
    return sorted({host.debian for host in wanted.hosts})


def _check_releases(wanted: Blueprint, before: state.State | None) -> None:
    """A host's disk lies over its release's image: it cannot be put over another one."""
    for host in wanted.hosts:
        old = before.blueprint.host(host.name) if before else None
        if old and old.debian != host.debian:
            hint = "take the lab down and up again: its hosts begin with new disks"
            raise LabError(f"runs Debian {old.debian}, and cannot become {host.debian}", where=host.name, hint=hint)


def _boot_missing(
    name: str, wanted: Blueprint, leaders: Mapping[str, tuple[int, int]], images: Mapping[str, Path]
) -> dict[str, tuple[int, int]]:
    """Boot hosts that are not running, several at once. Returns every host's leader."""
    login_key = (state_dir(name) / "id_ed25519.pub").read_text()
    running = {n: v for n, v in leaders.items() if wanted.host(n) and procs.start_time(v[0]) == v[1]}

    def start(host: Host) -> tuple[str, tuple[int, int]]:
        # What a crash left of it would hold the disk and the namespace.
        procs.kill(procs.marked(name, host.name) | procs.inside([netns(name, host.name)]))
        return host.name, hosts.boot(name, host)

    with ThreadPoolExecutor((os.cpu_count() or 1) * BOOTS_PER_CORE) as pool:
        list(pool.map(lambda h: hosts.prepare_disk(name, h, wanted, images[h.debian], login_key), wanted.hosts))
        _known_hosts(name, wanted)
        return running | dict(pool.map(start, [h for h in wanted.hosts if h.name not in running]))


def _known_hosts(name: str, wanted: Blueprint) -> None:
    lines = [f"{','.join(h.ssh_names)} {hosts.host_key(name, h.name)}\n" for h in wanted.hosts]
    (state_dir(name) / "known_hosts").write_text("".join(lines))
