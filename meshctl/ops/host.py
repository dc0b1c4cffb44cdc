"""Steps for packages, files, sysctls, units and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshctl.core.change import Change
from meshctl.core.diff.host import MASKED, is_active
from meshctl.core.sysctl import proc_path
from meshctl.errors import RemoteError
from meshctl.model.facts import HostFacts
from meshctl.model.resources import File, Nftables, NodeDoc
from meshctl.model.steps import Step

# Another apt run (unattended upgrades) holds dpkg's lock for a minute or two at most.
DPKG_LOCK_TIMEOUT_S = 120
PACKAGE_TIMEOUT_S = 900.0
UNIT_TIMEOUT_S = 120.0
APT = (
    "env", "DEBIAN_FRONTEND=noninteractive",
    "apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={DPKG_LOCK_TIMEOUT_S}",
)


def package_steps(first: int, changes: Sequence[Change], facts: HostFacts) -> Iterator[Step]:
    """One run of apt for all of them; its lists are refreshed first, or a fresh image finds nothing."""
    missing = [c.name for c in changes if c.action == "create"]
    surplus = [c.name for c in changes if c.action == "delete"]
    if "apt-get" not in facts.tools:
        raise RemoteError(
            f"cannot install or remove {', '.join(missing + surplus)}: {facts.os_id or 'the host'} has no apt-get",
            node=facts.node, kind="command", step="packages", hint="do it by hand, then apply again",
        )
    if missing:
        yield Step("run", change=first, argv=(*APT, "update"), timeout_s=PACKAGE_TIMEOUT_S)
        install = (*APT, "install", "--no-install-recommends", "--", *missing)
        yield Step("run", change=first, argv=install, timeout_s=PACKAGE_TIMEOUT_S)
    if surplus:
        yield Step("run", change=first, argv=(*APT, "remove", "--", *surplus), timeout_s=PACKAGE_TIMEOUT_S)


def file_steps(index: int, change: Change, doc: NodeDoc) -> Iterator[Step]:
    """Content, attributes or absence of one path."""
    resource = doc.resources[change.resource] if change.resource >= 0 else None
    if change.action == "delete" or not isinstance(resource, File):
        yield Step("remove", change=index, path=change.name)
        return
    path, mode, owner, group = resource.path, resource.mode, resource.owner, resource.group
    differing = set(change.after or ())
    other_kind = change.action == "update" and "state" in differing
    if resource.state == "link":
        yield Step("link", change=index, path=path, target=resource.target)
    elif change.action == "update" and not differing & {"state", "sha256"}:
        yield Step("attrs", change=index, path=path, mode=mode, owner=owner, group=group)
    elif resource.state == "directory":
        if other_kind:
            yield Step("remove", change=index, path=path)
        yield Step("mkdir", change=index, path=path, mode=mode, owner=owner, group=group)
    else:
        content = resource.content or b""
        yield Step("write", change=index, path=path, content=content, mode=mode, owner=owner, group=group)


def sysctl_step(index: int, change: Change) -> Step:
    """tee is in coreutils; sysctl(8) is in a package that minimal images lack."""
    value = str((change.after or {})["value"])
    return Step("run", change=index, argv=("tee", proc_path(change.name)), stdin=value.encode() + b"\n")


def unit_steps(index: int, change: Change, facts: HostFacts) -> Iterator[Step]:
    """Enable or disable, then start or stop."""
    if facts.init != "systemd":
        raise RemoteError(
            f"cannot manage {change.name}: PID 1 is {facts.init or 'unknown'}, not systemd",
            node=facts.node, kind="command", step=change.name, hint="meshctl needs a host that systemd runs",
        )
    after, before = change.after, change.before or {}
    if after is None:  # no longer wanted: back to how it was found
        after = {"enabled": False} if "enabled" in before else {}
        after.update({"state": "stopped"} if "state" in before else {})
    live = facts.units.get(change.name)
    if live is not None and live.file_state == MASKED and (after.get("enabled") or after.get("state") == "started"):
        yield _systemctl(index, "unmask", change.name)
    if "enabled" in after:
        yield _systemctl(index, "enable" if after["enabled"] else "disable", change.name)
    if "state" in after:
        verb = "start" if after["state"] == "started" else "stop"
        if verb == "start" and is_active(live):
            verb = "restart"  # it says that it runs, yet its interface is gone
        yield _systemctl(index, verb, change.name)
    if change.after is None and change.name in facts.ledger.cleanups:
        yield Step("cleanup", change=index, argv=facts.ledger.cleanups[change.name])


def handler_step(index: int, change: Change) -> Step:
    """Ansible's words for systemctl's verbs."""
    after = change.after or {}
    verb = "restart" if after["action"] == "restarted" else "reload-or-restart"
    return _systemctl(index, verb, str(after["service"]))


def daemon_reload() -> Step:
    """systemd reads its unit files again."""
    return Step("run", argv=("systemctl", "daemon-reload"))


def _systemctl(index: int, verb: str, unit: str) -> Step:
    return Step("run", change=index, argv=("systemctl", verb, "--", unit), timeout_s=UNIT_TIMEOUT_S)


def table_steps(index: int, change: Change, doc: NodeDoc) -> Iterator[Step]:
    """One transaction: the old table goes and the new one comes, with no moment between. `add` before `delete`, so
    that it works on a host without the table. Nothing for one that a service makes: the ledger takes note of it."""
    replace = f"add table {change.name}\ndelete table {change.name}\n"
    resource = doc.resources[change.resource] if change.resource >= 0 else None
    text = resource.text if isinstance(resource, Nftables) else ""
    if text is not None:
        yield Step("table", change=index, path=change.name, stdin=(replace + text).encode())
