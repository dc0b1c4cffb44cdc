"""The main transactions of an apply: rounds of waves, each checked and confirmed before the next begins.

`waves` says who goes with whom, `core.diff.between` what is done in which round, `confirm` what makes an apply stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from meshctl.core.change import Change
from meshctl.core.diff.between import first_round, left_behind
from meshctl.deploy import confirm, keys
from meshctl.deploy.check import Check, try_way
from meshctl.deploy.confirm import Windows
from meshctl.deploy.followed import stayed_behind
from meshctl.deploy.host import Connect, Host, Terms
from meshctl.deploy.options import AUTO, MANUAL, RunOptions
from meshctl.deploy.phases import Phases
from meshctl.deploy.waves import Share, Through, sizes_of, waves
from meshctl.errors import RemoteError
from meshctl.model.mesh import Mesh
from meshctl.model.resources import NodeDoc
from meshctl.render import zipapp

# What connects to a host by its name, with nothing in it of before the time that it was made at.
Anew = Callable[[str], Connect]


@dataclass(frozen=True)
class Part:
    """What one round does on a host: the changes, and the document that they lead to."""

    doc: NodeDoc
    changes: tuple[Change, ...]


class Rollout:
    """The state of the main part of one apply: which hosts it is about, how many failed, and whether it goes on. The
    hosts `outside` are those of the mesh that it is not about."""

    def __init__(
        self, hosts: Mapping[str, Host], outside: Mapping[str, Host], options: RunOptions, terms: Terms,
        phases: Phases, anew: Callable[[], Anew], path: Through, canaries: frozenset[str],
    ) -> None:  # fmt: skip
        self._hosts, self._outside = hosts, outside
        self._options, self._terms, self._phases = options, terms, phases
        self._anew, self._path, self._canaries = anew, path, canaries
        self._begun: dict[str, Host] = {}
        self._total = 0

    def resume(self) -> None:
        """Take up what a killed run of the same author has left to be confirmed, by what the nodes say: what is as
        wanted is checked and stays, all else is undone at once."""
        own = []
        for host in self._hosts.values():
            pending = host.facts.pending if host.facts and host.error is None else None
            if pending is None:
                continue
            mine = pending.who == self._options.who
            then = "goes on with" if mine else "leaves alone"
            self._phases.note(f"{host.name}: {then} {pending.words}")
            own += [host] if mine else []
        self._phases.each("resuming", own, confirm.take_up, finish=True)
        going = [host for host in own if host.pending and host.error is None]
        as_wanted = [host for host in going if not host.changes]
        self._phases.each("undoing", [host for host in going if host.changes], confirm.go_back, finish=True)
        with Windows() as windows:
            self._settle(as_wanted, Check(as_wanted, self._hosts, self._outside, self._path), windows)
        self._begun.update((host.name, host) for host in own)

    def end_abandoned(self) -> None:
        """What applies before this one have left that nobody may confirm any more is undone."""
        left = {h.name: h for h in self._hosts.values() if h.error is None and h.facts and h.facts.may_be_abandoned}
        whose = {name: host.facts.pending.words for name, host in left.items() if host.facts and host.facts.pending}
        self._phases.each("undoing", list(left.values()), confirm.end_abandoned)
        for name, host in left.items():
            if host.error is None and host.facts and not host.facts.pending:
                self._phases.note(f"{name}: {whose[name]}, could not be confirmed any more, and was undone just now")

    def converge(self, mesh: Mesh) -> None:
        """All hosts of the mesh that still differ, in waves; when there are several, in two rounds where that helps."""
        changing = self._differing()
        self._total = len({host.name for host in changing} | self._begun.keys())
        if not changing:
            return
        in_waves = self._waves(changing, frozenset())
        left: set[str] = set()
        going_back = any(host.way for host in changing)  # to what was whole; what goes with it is one step
        # Nobody confirms the first round by hand meanwhile.
        if len(in_waves) > 1 and self._options.confirm != MANUAL and not going_back:
            left = self._left_behind(changing, mesh)
            first = {host.name: self._first(host, host.name in left) for host in changing}
            adding = [host for host in changing if first[host.name].changes]
            if adding and any(first[host.name].changes != host.changes for host in changing):
                self._round(self._waves(adding, frozenset()), " (what is new)", left)
                in_waves = self._waves(self._differing(), frozenset(left))
        self._round(in_waves, "", None)

    # Inside

    def _round(self, in_waves: list[list[str]], what: str, left: set[str] | None) -> None:
        for number, names in enumerate(in_waves, 1):
            wave = [self._hosts[name] for name in names]
            title = f"wave {number} of {len(in_waves)}{what}"
            if not self._may_begin(title):
                return
            if len(in_waves) > 1 or what:
                self._phases.note(f"{title.capitalize()}: {keys.named(names)}")
            self._begun.update((host.name, host) for host in wave)
            if left is None:
                self._wave(wave, self._terms, lambda host: Part(host.doc, host.changes))
            else:
                self._wave(wave, self._terms.first_round(), lambda host: self._first(host, host.name in left))

    def _wave(self, wave: list[Host], terms: Terms, part_of: Callable[[Host], Part]) -> None:
        """All of its hosts converge, then the mesh is checked, and each is confirmed or goes back."""
        check, agent = Check(wave, self._hosts, self._outside, self._path), zipapp.build()

        def converge(host: Host) -> None:
            part = part_of(host)
            try:
                host.converge(part.changes, agent, terms, part.doc)
            finally:
                windows.hold(host)
            host.check_converged(part_of(host).changes)

        with Windows() as windows:
            if self._options.confirm == AUTO:
                self._look(check)
            self._phases.each("applying", wave, converge, finish=True)
            if self._options.confirm == AUTO:
                self._settle([host for host in wave if host.pending], check, windows)

    def _look(self, check: Check) -> None:
        """What there is before the wave changes it."""
        self._phases.each("counting", check.near, check.look, finish=True)
        strangers = [host for host in check.behind if host.name in self._outside]
        self._phases.each("reaching", strangers, try_way, finish=True)
        for host in strangers:
            if host.error is not None:
                self._phases.note(f"{host.name}: not reached, so nobody will see whether the way to it stays open")

    def _settle(self, waiting: list[Host], check: Check, windows: Windows) -> None:
        """Ask who waits and their peers, and get into the hosts behind them anew; each node then keeps what it has, or
        goes back."""
        if not waiting:
            return
        for host in waiting:
            windows.hold(host)
        check.wait(waiting)
        anew = self._anew()
        near = {host.name: host for host in check.near}
        behind = {host.name: host for host in check.behind}
        self._phases.each("counting", list(near.values()), check.count, finish=True, last=True)

        def look(host: Host) -> None:
            if host.name in near:
                check.ask(host)
            if host.name in behind:
                check.reach(host, anew(host.name))

        self._phases.each("checking", list({**near, **behind}.values()), look, finish=True, last=True)
        if self._options.switch:
            changed = {host.name for host in waiting}
            self._check_followed(changed, [host for name, host in near.items() if name not in changed], check)

        def settle(host: Host) -> None:
            windows.let_go(host)
            confirm.settle(host, anew(host.name), check)

        self._phases.each("confirming", waiting, settle, finish=True, last=True)
        confirm.report_open(waiting)

    def _check_followed(self, switched: set[str], peers: list[Host], check: Check) -> None:
        """Note which peers still give the prefixes of a node to its old key, when it has been heard by the new one."""

        def look(host: Host) -> None:
            for name, words in stayed_behind(host, switched).items():
                check.note(name, words)

        self._phases.each("checking", peers, look, finish=True, last=True)

    def _may_begin(self, title: str) -> bool:
        """Whether the run goes on with this wave; if not, the hosts that it has not come to say why."""
        failed = sorted(name for name, host in self._begun.items() if host.error is not None)
        allowed = self._options.max_fail.of(self._total)
        why = ""
        if self._phases.interrupted:
            return False
        if len(failed) > allowed:
            count = f"{len(failed)} of {self._total} host{'s' if self._total != 1 else ''} failed"
            why = f"{count} ({keys.named(failed)}), and --max-fail allows {self._options.max_fail}"
        elif self._options.pause and self._begun and not self._phases.ask(f"Go on with {title}? [y/N] "):
            why = "the operator did not go on after a pause"
        if why:
            for host in self._differing():
                host.error = RemoteError(
                    f"not begun: {why}" if host.name not in self._begun else f"not finished: {why}", node=host.name,
                    kind="skipped", hint="correct what failed, then apply again: it does what is left",
                )  # fmt: skip
        return not why

    def _waves(self, hosts: Iterable[Host], left: frozenset[str]) -> list[list[str]]:
        """Canaries first, in waves of their own, those whom others leave in this round last."""
        names = {host.name for host in hosts}
        size = Share(self._options.forks)
        canaries, last = names & self._canaries, (names & left) - self._canaries
        rest = names - canaries
        sizes = sizes_of(self._options.serial or (size,), len(rest))
        return [
            *waves(canaries, self._path, sizes_of((size,), 0)),
            *waves(rest - last, self._path, sizes), *waves(last, self._path, sizes),
        ]  # fmt: skip

    def _first(self, host: Host, carries: bool) -> Part:
        if host.facts is None:
            raise RuntimeError("rounds come after read")
        return Part(*first_round(host.doc, host.facts, carries=carries))

    def _left_behind(self, hosts: Iterable[Host], mesh: Mesh) -> set[str]:
        """The nodes through which packets of others go now and will not any more."""
        left = {key for host in hosts if host.facts for key in left_behind(host.doc, host.facts)}
        return {n.name for n in mesh.nodes.values() for a in n.attachments if a.public_key in left}

    def _differing(self) -> list[Host]:
        meant = self._options.switch or self._hosts.keys()
        return [host for host in self._hosts.values() if host.error is None and host.differs and host.name in meant]
