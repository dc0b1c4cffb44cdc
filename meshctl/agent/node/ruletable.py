"""A table of nftables that is the agent's own: fixed chains, and sets whose elements come and go.

Whole tables are put in place by nft(8) in one transaction; elements change by netlink. What another agent left there
before this one started stays in force until this one has said what it wants; and a table that somebody flushes (as
distributions' nftables.service does when it is restarted) is put back at once.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple, Union

from meshctl.agent.node import nfnetlink
from meshctl.agent.node.handler import HasFileno, Plain, Readable
from meshctl.agent.node.netlink import attributes
from meshctl.agent.node.nfnetlink import Nfnetlink
from meshctl.agent.process import NOT_FOUND, run
from meshctl.core.agent.events import Event

Field = Union[str, int]  # an address or a port
# What was there before the start, and the core has not asked for again by then, is over.
SWEEP_AFTER_S = 2.0
_BYTES = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_service": 2}
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


class RuleTable:
    """The table `inet NAME`. `chains` is nftables' text for them. Calls raise OSError or RuntimeError.

    It comes into being with the first element, and takes over those of before. SWEEP_AFTER_S after the start (`now`),
    what is not wanted again ends; from then on there is no table while there are no elements.
    """

    def __init__(self, name: str, kinds: Mapping[str, Kind], chains: str, now: float) -> None:
        self.name = name
        self._kinds, self._chains = kinds, chains
        self._wanted: dict[tuple[str, tuple[Field, ...]], Element] = {}
        self._before: dict[tuple[str, tuple[Field, ...]], Element] = {}
        self._loaded = False
        self._sweep_at: float | None = now + SWEEP_AFTER_S
        self._netlink = Nfnetlink()
        self._watch: socket.socket | None = None  # while there is something to lose

    def close(self) -> None:
        """Leave the table as it is, unless it is known that nothing is in it."""
        with suppress(OSError, RuntimeError):
            if self._loaded and not self._wanted and not self._before:
                self._drop()
        self._netlink.close()
        if self._watch is not None:
            self._watch.close()

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """As a handler's: what tells of changes of the ruleset."""
        return () if self._watch is None else ((self._watch, self._ruleset_changed),)

    def due(self) -> float | None:
        """As a handler's."""
        return self._sweep_at

    def poll(self, now: float) -> None:
        """As a handler's."""
        if self._sweep_at is not None and now >= self._sweep_at:
            self._sweep_at = None
            self._sweep()

    def change(self, add: Iterable[Element] = (), remove: Iterable[Element] = ()) -> bool:
        """All at once. What is there already, or not there, is no error. Whether anything is another now."""
        if not self._loaded:
            self._before = self._found()
        gone = [e for e in remove if self._wanted.pop((e.of, e.key), None) or self._before.pop((e.of, e.key), None)]
        new = []
        for element in add:
            known = self._wanted.get((element.of, element.key)) or self._before.pop((element.of, element.key), None)
            self._wanted[element.of, element.key] = element
            if known != element:
                new.append(element)
                gone += [known] if known else []
        try:
            if not self._loaded or not self._changed(new, gone):
                self._load()
        except (OSError, RuntimeError):
            for element in new:
                self._wanted.pop((element.of, element.key), None)
            raise
        if not self._wanted and self._sweep_at is None:
            self._drop()
        return bool(new or gone)

    def replace(self, kinds: Mapping[str, Kind], chains: str, wanted: Iterable[Element]) -> None:
        """Other sets and chains, with these elements in them and those of before as far as there are sets for them.
        Counters begin anew."""
        self._kinds, self._chains = kinds, chains
        self._wanted = {(e.of, e.key): e for e in wanted}
        self._before = {key: element for key, element in self._before.items() if element.of in kinds}
        if self._loaded:
            self._load()

    def counters(self, of: str) -> Iterator[tuple[tuple[Field, ...], int, int]]:
        """Key, packets and bytes of each element of a set whose elements have counters."""
        for raw in self._netlink.elements(self.name, of) if self._loaded else ():
            expression = dict(attributes(raw.get(_EXPRESSION, b"")))
            counts = dict(attributes(expression.get(2, b"")))
            if 1 in counts and 2 in counts:
                (size,), (packets,) = _COUNTER.unpack(counts[1]), _COUNTER.unpack(counts[2])
                yield _unpacked(self._kinds[of].key, _value(raw[_KEY])), packets, size

    # Inside

    def _load(self) -> None:
        """Put the whole table in place, with all elements, those of before among them; without any there is none."""
        if not self._wanted and not self._before:
            self._drop()
            return
        if self._watch is None:
            self._watch = nfnetlink.netfilter_socket(1 << (nfnetlink.GROUP_NFTABLES - 1))
            self._watch.setblocking(False)
        _nft(self._text())
        self._loaded = True

    def _sweep(self) -> None:
        if not self._wanted:
            self._drop()
        elif self._before:
            gone, self._before = list(self._before.values()), {}
            if not self._changed([], gone):
                self._load()

    def _drop(self) -> None:
        self._before, self._loaded = {}, False
        if self._netlink.has_table(self.name):
            _nft(f"delete table inet {self.name}\n")

    def _ruleset_changed(self, _now: float) -> list[Event]:
        """Put the table back if that was what somebody removed."""
        with suppress(BlockingIOError):
            while self._watch is not None:
                try:
                    self._watch.recv(1 << 16)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # so much has changed that some of it is lost: no matter
                        raise
        if self._loaded and not self._netlink.has_table(self.name):
            _nft(self._text())
        return []

    def _changed(self, new: list[Element], gone: list[Element]) -> bool:
        """Whether it was done; not when the table is another one than we know."""
        changes = [(nfnetlink.MSG_DELSETELEM, e.of, nfnetlink.element(self._packed(e)[0])) for e in gone]
        changes += [(nfnetlink.MSG_NEWSETELEM, e.of, nfnetlink.element(*self._packed(e))) for e in new]
        try:
            if changes:
                self._netlink.change_elements(self.name, changes)
        except (FileNotFoundError, FileExistsError):
            return False
        return True

    def _packed(self, element: Element) -> tuple[bytes, bytes]:
        kind = self._kinds[element.of]
        return _packed(kind.key, element.key), _packed(kind.value, element.value)

    def _found(self) -> dict[tuple[str, tuple[Field, ...]], Element]:
        """What a table of before has, and is not known as wanted."""
        found = {}
        for name, kind in self._kinds.items():
            # There may be no such set, or one of another kind by another version of this program.
            with suppress(OSError, ValueError, KeyError):
                for raw in self._netlink.elements(self.name, name):
                    value = _unpacked(kind.value, _value(raw[_DATA])) if kind.value else ()
                    element = Element(name, _unpacked(kind.key, _value(raw[_KEY])), value)
                    if (name, element.key) not in self._wanted:
                        found[name, element.key] = element
        return found

    def _text(self) -> str:
        lines = [f"table inet {self.name}", f"delete table inet {self.name}", f"table inet {self.name} {{"]
        wanted = sorted([*self._wanted.values(), *self._before.values()], key=str)
        for name, kind in self._kinds.items():
            what = " : ".join(" . ".join(fields) for fields in (kind.key, kind.value) if fields)
            lines += [f"{'map' if kind.value else 'set'} {name} {{", f"type {what}", kind.extra]
            elements = [_written(e) for e in wanted if e.of == name]
            lines += [f"elements = {{ {', '.join(elements)} }}"] if elements else []
            lines.append("}")
        return "\n".join([*lines, self._chains, "}", ""])


class TableHandler(Plain):
    """What handlers (see Handler) have in common whose actions become elements of a table."""

    def __init__(self, table: RuleTable) -> None:
        self._table = table

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return self._table.sockets()

    def due(self) -> float | None:
        """See Handler."""
        return self._table.due()

    def poll(self, now: float) -> list[Event]:
        """See Handler."""
        self._table.poll(now)
        return []

    def close(self) -> None:
        """See Handler."""
        self._table.close()


def _nft(text: str) -> None:
    done = run(["nft", "-f", "-"], text.encode("ascii"))
    if done.status == NOT_FOUND:
        raise FileNotFoundError(errno.ENOENT, "nft is not installed")
    if done.status:
        raise RuntimeError(f"nft refused a table of the agent: {done.output.strip()}")


def _written(element: Element) -> str:
    key, value = (" . ".join(map(str, fields)) for fields in (element.key, element.value))
    return f"{key} : {value}" if value else key


def _packed(types: tuple[str, ...], fields: tuple[Field, ...]) -> bytes:
    """As the kernel has it in its registers: fields in network order, each padded to four bytes unless it is alone."""
    raw = []
    for kind, field in zip(types, fields):
        if isinstance(field, int):
            raw.append(field.to_bytes(_BYTES[kind], "big"))
        else:
            raw.append(socket.inet_pton(socket.AF_INET if kind == "ipv4_addr" else socket.AF_INET6, field))
    return raw[0] if len(raw) == 1 else b"".join(one + bytes(-len(one) % 4) for one in raw)


def _unpacked(types: tuple[str, ...], raw: bytes) -> tuple[Field, ...]:
    """The other way round. Raises ValueError when that is not what was packed."""
    fields: list[Field] = []
    at = 0
    for kind in types:
        part = raw[at : at + _BYTES[kind]]
        at += _BYTES[kind] + -_BYTES[kind] % 4
        if len(part) != _BYTES[kind]:
            raise ValueError("a field is cut short")
        if kind == "inet_service":
            fields.append(int.from_bytes(part, "big"))
        else:
            fields.append(socket.inet_ntop(socket.AF_INET if kind == "ipv4_addr" else socket.AF_INET6, part))
    return tuple(fields)


def _value(raw: bytes) -> bytes:
    """What is in an attribute of data."""
    return dict(attributes(raw)).get(1, b"")
