"""A table of nftables that is the agent's own: fixed chains, and sets whose elements come and go.

Whole tables are put in place by nft(8) in one transaction; elements change, and a table goes, by netlink. What another
agent left there before this one started stays in force until this one has said what it wants, and ends where nft cannot
take it over; and a table that somebody flushes, or puts that of another moment in its place (distributions'
nftables.service does either when it is restarted), is put back.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from meshctl.agent.node import nfnetlink, setvalues
from meshctl.agent.node.handler import HasFileno, Readable
from meshctl.agent.node.netlink import attributes
from meshctl.agent.node.nfnetlink import Nfnetlink
from meshctl.agent.node.rulesetwatch import RulesetWatch
from meshctl.agent.node.setvalues import Field
from meshctl.agent.process import NOT_FOUND, run

Place = tuple[str, tuple[Field, ...]]  # a set's name, and a key
# What was there before the start, and the core has not asked for again by then, is over. So is a table in which there
# has been nothing for as long: between two relays it is not taken away and made again.
SWEEP_AFTER_S = 2.0
# What could not be done is tried again after this.
AGAIN_S = 5.0
# nft takes ten milliseconds, and the agent waits for it: one that hangs is not waited for long.
_NFT_S = 5.0
_KEY, _DATA, _EXPRESSION = 1, 2, 7  # NFTA_SET_ELEM_*
_COUNTER = struct.Struct("!Q")


class Kind(NamedTuple):
    """What a set is of: the types of its key's fields and, for a map, of its value's; `extra` is nftables' own text for
    what else its elements have, a counter say."""

    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    extra: str = ""


class Element(NamedTuple):
    """Of the set of this name."""

    of: str
    key: tuple[Field, ...]
    value: tuple[Field, ...] = ()

    @property
    def place(self) -> Place:
        """Where there is one of them at most."""
        return self.of, self.key


class RuleTable:
    """The table `inet NAME`. `chains` is nftables' text for them. Calls raise OSError or RuntimeError.

    It comes into being with the first element, and takes over those of before. SWEEP_AFTER_S after the start (`now`),
    what is not wanted again ends; at once, and all of it, where it cannot be taken over. What fails of that is tried
    again. `swept` is called with what has ended so, and with all that somebody else's change of the table was about,
    once it is undone.
    """

    def __init__(
        self, name: str, kinds: Mapping[str, Kind], chains: str, now: float,
        swept: Callable[[Iterable[Element]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.name = name
        self._kinds, self._chains, self._swept = kinds, chains, swept
        self._wanted: dict[Place, Element] = {}
        self._before: dict[Place, Element] = {}
        self._loaded = False
        self._sweep_at: float | None = now + SWEEP_AFTER_S
        self._restore_at: float | None = None
        self._netlink = Nfnetlink()
        self._makeup: list[bytes] = []  # of the table that was put in place
        self._unswept: dict[Place, Element] = {}  # that `swept` is to be called with
        self._watch = RulesetWatch(name, self._netlink, self._restore)
        with suppress(OSError):
            self._watch.open()  # a table that is over may be put back by somebody, too

    def close(self) -> None:
        """Leave the table as it is, unless it is known that nothing is in it."""
        with suppress(OSError, RuntimeError):
            if self._loaded and not self._wanted and not self._before:
                self._drop()
        self._netlink.close()
        self._watch.close()

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """As a handler's: what tells of changes of the ruleset."""
        return self._watch.sockets()

    def due(self) -> float | None:
        """As a handler's."""
        times = self._sweep_at, self._restore_at, self._watch.due()
        return min((at for at in times if at is not None), default=None)

    def poll(self, now: float) -> None:
        """As a handler's."""
        self._watch.poll(now)
        if self._restore_at is not None and now >= self._restore_at:
            self._restore(now)
        if self._sweep_at is None:
            if self._before or (self._loaded and not self._wanted):
                self._sweep_at = now + SWEEP_AFTER_S
        elif now >= self._sweep_at:
            self._sweep_at = now + AGAIN_S  # should it fail
            self._sweep()
            self._sweep_at = None

    def change(self, add: Iterable[Element] = (), remove: Iterable[Element] = ()) -> bool:
        """All at once. What is there already, or not there, is no error. Whether anything is another now. After an
        error nothing was added, and what was to be removed has ended with its table or is swept later."""
        if not self._loaded:
            self._before = self._found()
        adding = list(add)
        gone = removed = [known for element in remove if (known := self._known(element))]
        new = []
        for element in adding:
            known = self._known(element)
            if known != element:
                new.append(element)
                gone = [*gone, known] if known else gone
        if not adding and not gone:
            return False
        try:
            if self._loaded:
                self._change(new, gone)
            else:
                self._load(adding, gone)
        except (OSError, RuntimeError):
            self._forget(removed)
            self._before.update((element.place, element) for element in removed)
            raise
        self._forget(gone)
        for element in adding:
            self._before.pop(element.place, None)
            self._wanted[element.place] = element
        return bool(new or gone)

    def replace(self, kinds: Mapping[str, Kind], chains: str, wanted: Iterable[Element]) -> None:
        """Other sets and chains, with these elements in them and those of before as far as there are sets for them.
        Counters begin anew."""
        known = self._kinds, self._chains, self._wanted, self._before
        self._kinds, self._chains = kinds, chains
        self._wanted = {element.place: element for element in wanted}
        self._before = {place: element for place, element in self._before.items() if element.of in kinds}
        try:
            if self._loaded:
                self._load((), ())
        except (OSError, RuntimeError):
            self._kinds, self._chains, self._wanted, self._before = known
            raise

    def counters(self, of: str) -> Iterator[tuple[tuple[Field, ...], int, int]]:
        """Key, packets and bytes of each element of a set whose elements have counters."""
        for raw in self._netlink.elements(self.name, of) if self._loaded else ():
            expression = dict(attributes(raw.get(_EXPRESSION, b"")))
            counts = dict(attributes(expression.get(2, b"")))
            if 1 in counts and 2 in counts:
                (size,), (packets,) = _COUNTER.unpack(counts[1]), _COUNTER.unpack(counts[2])
                yield setvalues.unpacked(self._kinds[of].key, setvalues.value(raw[_KEY])), packets, size

    # Inside

    def _known(self, element: Element) -> Element | None:
        return self._wanted.get(element.place) or self._before.get(element.place)

    def _forget(self, gone: Iterable[Element]) -> None:
        for element in gone:
            self._wanted.pop(element.place, None)
            self._before.pop(element.place, None)

    def _load(self, adding: Iterable[Element], gone: Iterable[Element]) -> None:
        """Put the whole table in place, with all elements after this change, those of before among them; without any
        there is none."""
        kept = {**self._before, **self._wanted}
        for element in gone:
            kept.pop(element.place, None)
        kept.update((element.place, element) for element in adding)
        if not kept:
            self._drop()
            return
        try:
            self._watch.open()
            self._put(kept.values())
        except (OSError, RuntimeError):
            if not self._loaded:
                self._give_up()
            raise
        self._loaded = True

    def _put(self, elements: Iterable[Element]) -> None:
        _nft(self._text(elements))
        self._makeup = self._netlink.makeup(self.name)

    def _sweep(self) -> None:
        """End what is left of before, and a table in which there is nothing."""
        if not self._loaded:
            self._before = self._found()
        if not self._wanted:
            self._drop()
        else:
            self._change([], list(self._before.values()))
        self._unswept.update(self._before)
        self._before = {}
        self._tell()

    def _give_up(self) -> None:
        """End a table of before that cannot be taken over: the kernel would go on by it whatever is wanted, and keep
        packets from who does it instead. What is in `_before` still is swept later, and told if it could not be."""
        gone = self._found()
        self._drop()
        self._unswept.update(gone)
        self._tell()

    def _tell(self) -> None:
        if self._unswept:
            self._swept(self._unswept.values())
            self._unswept = {}

    def _drop(self) -> None:
        if self._netlink.has_table(self.name):
            self._netlink.delete_table(self.name)
        self._loaded = False

    def _restore(self, now: float) -> None:
        """Undo what somebody else has done to the table; or have the table swept that somebody has put there."""
        self._restore_at = now + AGAIN_S  # should it fail
        if self._loaded:
            self._mend()
        elif self._sweep_at is None and self._netlink.has_table(self.name):
            self._sweep_at = now
        self._restore_at = None

    def _mend(self) -> None:
        known, there = {**self._before, **self._wanted}, self._there()
        if there != known or not self._is_ours():
            self._put(known.values())
            # Conntrack has decided for what came meanwhile, or by the other table, and would go on so.
            self._unswept.update({**there, **known})
        self._tell()

    def _is_ours(self) -> bool:
        try:
            return self._netlink.makeup(self.name) == self._makeup
        except FileNotFoundError:
            return False

    def _change(self, new: list[Element], gone: list[Element]) -> None:
        if not self._changed(new, gone):
            self._mend()
            if not self._changed(new, gone):
                raise RuntimeError(f"somebody else goes on changing the agent's table inet {self.name}")

    def _changed(self, new: list[Element], gone: list[Element]) -> bool:
        """Whether it was done; not when the table is another one than is known."""
        changes = [(nfnetlink.MSG_DELSETELEM, e.of, nfnetlink.element(self._packed(e)[0])) for e in gone]
        changes += [(nfnetlink.MSG_NEWSETELEM, e.of, nfnetlink.element(*self._packed(e))) for e in new]
        try:
            # A pair's elements are fewer than that, and so change all at once; a sweep has no need to.
            for first in range(0, len(changes), nfnetlink.MAX_CHANGES):
                self._netlink.change_elements(self.name, changes[first : first + nfnetlink.MAX_CHANGES])
        except (FileNotFoundError, FileExistsError):
            return False
        return True

    def _packed(self, element: Element) -> tuple[bytes, bytes]:
        kind = self._kinds[element.of]
        return setvalues.packed(kind.key, element.key), setvalues.packed(kind.value, element.value)

    def _found(self) -> dict[Place, Element]:
        """What a table of before has, and is not known as wanted."""
        return {place: element for place, element in self._there().items() if place not in self._wanted}

    def _there(self) -> dict[Place, Element]:
        """What the table has, if there is one."""
        found = {}
        for name, kind in self._kinds.items():
            # There may be no such set, or one of another kind by another version of this program.
            with suppress(OSError, ValueError, KeyError):
                for raw in self._netlink.elements(self.name, name):
                    key, value = (setvalues.value(raw.get(part, b"")) for part in (_KEY, _DATA))
                    element = Element(name, setvalues.unpacked(kind.key, key), setvalues.unpacked(kind.value, value))
                    found[element.place] = element
        return found

    def _text(self, elements: Iterable[Element]) -> str:
        lines = [f"table inet {self.name}", f"delete table inet {self.name}", f"table inet {self.name} {{"]
        wanted = sorted(elements, key=str)
        for name, kind in self._kinds.items():
            what = " : ".join(" . ".join(fields) for fields in (kind.key, kind.value) if fields)
            lines += [f"{'map' if kind.value else 'set'} {name} {{", f"type {what}", kind.extra]
            written = [_written(e) for e in wanted if e.of == name]
            lines += [f"elements = {{ {', '.join(written)} }}"] if written else []
            lines.append("}")
        return "\n".join([*lines, self._chains, "}", ""])


def _nft(text: str) -> None:
    done = run(["nft", "-f", "-"], text.encode("ascii"), _NFT_S)
    if done.status == NOT_FOUND:
        raise FileNotFoundError(errno.ENOENT, "nft is not installed")
    if done.status:
        raise RuntimeError(f"nft refused a table of the agent: {done.output.strip()}")


def _written(element: Element) -> str:
    key, value = (" . ".join(map(str, fields)) for fields in (element.key, element.value))
    return f"{key} : {value}" if value else key
