"""The dead-man's switch: a host that nobody confirms goes back by itself to what it had before an apply.

`pending.json` is on disk before the host is touched, and gone once the apply is confirmed. A timer of systemd's runs
`meshctl-agent revert` when the window is over, and a unit does at each boot; neither needs the mesh, a connection or
the process that applies. (Without systemd a process waits, and a boot brings back what units and files say.) Who finds
the file and no right to wait, restores the snapshot:

- the applier runs, for it holds the host's lock: wait until it ends, and kill it when it hangs;
- it has ended well: wait for what is left of the window;
- it has ended otherwise (`until` is not there), or the host was started anew since then: restore at once;
- the file is there and cannot be read, of a damaged disk: restore at once what the journals say is waiting.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from meshctl.agent import files, process
from meshctl.agent.failure import ApplyError, raise_for_os_error, redact
from meshctl.agent.journal import make_private_dir, read_all
from meshctl.agent.saved import kept
from meshctl.core.history import Event, armed
from meshctl.model.places import AGENT_DIR, PENDING_PATH, REVERT_LINK
from meshctl.model.steps import Transaction

PENDING = Path(PENDING_PATH)
# What the timer and the unit run, by the Python that the applier itself runs by.
COMMAND = (sys.executable, "-I", "-S", REVERT_LINK, "revert")
# Beyond the limit of the longest step, before an applier that writes nothing into its journal counts as hanging: what
# it reads before, between and after the steps has limits of its own.
PATIENCE_S = 180.0
# Where nobody knows which step is the longest: apt's limit (`ops.host`) is the longest of all.
_PATIENCE_WITH_ANY_S = 900.0 + PATIENCE_S
# One that was killed, or could not run, is begun anew after so long.
_RESTART_S = 5
TIMER = "meshctl-revert-soon"
BOOT_UNIT = Path("/etc/systemd/system/meshctl-revert.service")
BOOT_LINK = BOOT_UNIT.parent / "sysinit.target.wants" / BOOT_UNIT.name
BOOT_TEXT = f"""\
[Unit]
Description=Undo what meshctl has applied and nobody has confirmed
Documentation=https://github.com/meshctl/meshctl
DefaultDependencies=no
ConditionPathExists={PENDING}
RequiresMountsFor={PENDING.parent} {AGENT_DIR} {COMMAND[0]} /etc
After=local-fs.target systemd-tmpfiles-setup.service
Before=meshctl-firewall.service nftables.service systemd-networkd.service systemd-sysctl.service
Before=network-pre.target sysinit.target

[Service]
Type=oneshot
ExecStart={' '.join(COMMAND)} --boot
Restart=on-failure
RestartSec={_RESTART_S}
"""
SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Pending:
    """An apply that is to be confirmed, of `who`; by a person if `manual`. `boot` is the kernel's boot id; `until`, in
    seconds since then, is when the window is over, None while the applier runs. `began` is Unix time. An applier whose
    journal does not grow for `patience_s` hangs. `damaged`: the file cannot be read, and this is from the journals."""

    id: str
    node: str
    who: str
    window_s: float
    began: float
    boot: str
    until: float | None = None
    manual: bool = False
    patience_s: float = PATIENCE_S
    damaged: bool = False

    @classmethod
    def of(cls, transaction: Transaction) -> Pending:
        """That which begins now."""
        longest_s = max((step.timeout_s for step in transaction.steps), default=0.0)
        return cls(
            transaction.id, transaction.node, transaction.who, transaction.confirm_s, round(time.time(), 3), boot_id(),
            manual=transaction.manual, patience_s=longest_s + PATIENCE_S,
        )  # fmt: skip

    @property
    def words(self) -> str:
        """Whose it is, and since when."""
        began = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self.began))
        return f"an apply of {self.who or 'somebody'}, begun {began}, waits to be confirmed"

    @property
    def over(self) -> str:
        """Why nobody may confirm it any more."""
        if self.damaged:
            return f"{PENDING} is damaged, so that nobody can confirm it"
        if self.boot != boot_id():
            return "the host was started anew before it was confirmed"
        return "the applier died" if self.until is None else f"nobody confirmed it within {self.window_s:g} s"

    @property
    def waits_s(self) -> float:
        """How long somebody may still confirm it: 0 when nobody may any more."""
        if self.damaged or self.until is None or self.boot != boot_id():
            return 0.0
        return max(0.0, self.until - now())


def boot_id() -> str:
    """Another one after each start of the host."""
    return _BOOT_ID.read_text().strip()


def now() -> float:
    """Seconds since the host was started, sleep included; nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read() -> Pending | None:
    """The apply that is to be confirmed, if one is. The file is whole or not there, unless the disk is damaged: then it
    is that one of which the journals say so. A file of a newer version may say more."""
    try:
        return _parsed(PENDING.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return _of_journals()


def arm(pending: Pending, running: Path) -> None:
    """From here on the host goes back if nobody says otherwise. Raises ApplyError, with nothing armed."""
    try:
        make_private_dir(PENDING.parent)
        _point(Path(REVERT_LINK), str(running))
        _try_command()
        if SYSTEMD.is_dir():  # the timer first: one that finds nothing does no harm
            if not BOOT_UNIT.is_file() or BOOT_UNIT.read_text() != BOOT_TEXT:
                files.put(BOOT_UNIT, BOOT_TEXT.encode(), 0o644)
            _point(BOOT_LINK, str(BOOT_UNIT))
            _start_timer(pending.window_s)
            _write(pending)
        else:
            _write(pending)
            _start_process()
    except OSError as error:
        disarm()
        raise_for_os_error(error, "arming the dead-man's switch")


def holds_up_boot() -> bool:
    """Whether the host's start waits for the unit that looks at each: not for a second time, when who undoes has died
    and the start has gone on by what there was."""
    shown = process.run(["systemctl", "show", "-p", "NRestarts,ActiveState", "--", BOOT_UNIT.name, "sysinit.target"])
    unit, _, target = shown.stdout.partition("\n\n")
    return "NRestarts=0" in unit.splitlines() and "ActiveState=inactive" in target.splitlines()


def undo_soon() -> None:
    """Have the timer's service undo what is pending: it may start units, of which the host's start has some wait for
    the unit that looks at each. Raises ApplyError."""
    _start_timer(0)


def await_confirmation() -> None:
    """The applier has done its part: the window begins. Raises ApplyError."""
    pending = read()
    if pending is None:
        return
    if pending.damaged:
        raise ApplyError("command", pending.over)
    try:
        _write(replace(pending, until=now() + pending.window_s))
    except OSError as error:
        raise_for_os_error(error, f"writing {PENDING}")


def disarm() -> None:
    """Nothing is pending any more. The timer finds nothing to do; it is stopped all the same. Raises ApplyError when
    the host would go back nevertheless."""
    try:
        with suppress(FileNotFoundError):
            PENDING.unlink()
        files.sync_folder(PENDING.parent)
    except OSError as error:
        raise_for_os_error(error, f"removing {PENDING}, by which this host goes back when its time is over")
    if SYSTEMD.is_dir():
        process.run(["systemctl", "stop", f"{TIMER}.timer"])


def _parsed(text: str) -> Pending:
    """Raises ValueError, TypeError, AttributeError, OverflowError or RecursionError for what nobody has written."""
    said = json.loads(text)
    pending = Pending(**{name: value for name, value in said.items() if name in Pending.__dataclass_fields__})
    texts = (pending.id, pending.node, pending.who, pending.boot)
    times = (pending.window_s, pending.began, pending.patience_s, pending.until or 0.0)
    if not all(isinstance(word, str) for word in texts) or not all(map(math.isfinite, times)):
        raise TypeError("a field is of another type")
    return pending


def _of_journals() -> Pending | None:
    journals = {path.stem: events for path, events in read_all().items()}
    name = armed(journals.values(), kept())
    if name not in journals:
        return None
    begin: Event = next(event for event in journals[name] if event.get("event") == "begin")
    node, who = str(begin.get("node", "")), str(begin.get("who", ""))
    return Pending(name, node, who, 0.0, 0.0, "", patience_s=_PATIENCE_WITH_ANY_S, damaged=True)


def _try_command() -> None:
    """Whether what is to bring the host back can run here. Raises ApplyError."""
    ran = process.run((*COMMAND[:-1], "--help"))
    if ran.status != 0:
        reason = redact(ran.output) or f"exit status {ran.status}"
        raise ApplyError("command", f"the dead-man's switch cannot run ({' '.join(COMMAND)}): {reason}")


def _start_process() -> None:
    """Where there is no systemd: a process of its own, that nothing but the end of the host ends."""
    nothing = subprocess.DEVNULL
    subprocess.Popen(COMMAND, stdin=nothing, stdout=nothing, stderr=nothing, cwd="/", start_new_session=True)


def _start_timer(window_s: float) -> None:
    # The service of one before, too, which may still wait; not in `disarm`, which that service itself may have called.
    process.run(["systemctl", "stop", f"{TIMER}.timer", f"{TIMER}.service"])
    argv: Sequence[str] = (
        "systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={window_s:.3f}",
        "--timer-property=AccuracySec=100ms", "--property=Type=oneshot", "--property=Restart=on-failure",
        f"--property=RestartSec={_RESTART_S}", "--", *COMMAND,
    )  # fmt: skip
    ran = process.run(argv)
    if ran.status != 0:
        raise ApplyError("command", f"systemd-run, for the dead-man's switch: {redact(ran.output)}")


def _write(pending: Pending) -> None:
    files.put(PENDING, json.dumps(asdict(pending), sort_keys=True).encode() + b"\n", 0o600)


def _point(link: Path, target: str) -> None:
    if link.is_symlink() and str(link.readlink()) == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temp = link.with_name(f".{link.name}.new")
    files.remove_quietly(temp)
    temp.symlink_to(target)
    files.replace(temp, link)
