"""The facts script's output as `HostFacts`. Pure; whatever is wrong with the text becomes a RemoteError."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from meshctl.core.sysctl import normal_value
from meshctl.core.wgdump import parse_dump
from meshctl.errors import RemoteError
from meshctl.facts.network import FAMILIES, parse_links, parse_rules, policy_routing
from meshctl.facts.script import BEGIN, END, SECTION_PREFIX
from meshctl.model.facts import FileFacts, HostFacts, InterfaceFacts, PendingApply, UndoneApply, UnitFacts
from meshctl.model.keys import PublicKey
from meshctl.model.ledger import LEDGER_PATH, Ledger
from meshctl.model.places import AGENT_PREFIX, AGENT_SUFFIX

T = TypeVar("T")
Lines = list[str]

# A name in GNU's `c` quoting style, as stat(1) prints it for %N, and the link's target after it.
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_AGENT = re.compile(rf"{re.escape(AGENT_PREFIX)}([0-9a-f]+){re.escape(AGENT_SUFFIX)}")
# What noise of a damaged disk, or another document than is due, has its reader raise.
_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def parse(node: str, text: str) -> HostFacts:
    """One host's facts. Raises RemoteError(kind="protocol") for output that is cut short or not the script's.

    Text before the begin marker (a message of the day, a chatty profile) and after the end marker is ignored.
    """
    sections = _sections(node, text)

    def read(section: str, parser: Callable[[Lines], T]) -> T:
        try:
            return parser(sections.get(section, []))
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise RemoteError(
                f"the facts' section {section!r} is not understood ({type(error).__name__}: {error})",
                node=node, kind="protocol", step="facts", hint="compare the tool versions on the host with the docs",
            ) from error

    host = read("host", _pairs)
    tools = frozenset(host.get("tool", []))
    sums = read("sums", _sums)
    interfaces, routing = _interfaces(read)
    keys = read("keys", _keys)
    return HostFacts(
        node=node,
        os_id=host.get("os", [""])[0].strip("\"'"),
        python=read("host", _python),
        has_wg="wg" in tools,
        tools=tools,
        init=host.get("init", [""])[0],
        boot_id=host.get("boot", [""])[0],
        agents=frozenset(m.group(1) for path in host.get("agent", []) if (m := _AGENT.search(path))),
        packages=read("packages", _packages),
        files=read("files", lambda lines: _files(lines, sums)),
        sysctls=read("sysctls", _sysctls),
        units=read("units", _units),
        interfaces=interfaces,
        policy_routing=routing,
        key_files={path: key for path, (key, _) in keys.items()},
        key_times={path: when for path, (_, when) in keys.items()},
        tables=read("tables", _tables),
        ledger=_ledger(node, sections.get("ledger", [])),
        pending=read("pending", _pending),
        undone=read("undone", _undone),
    )


def _sections(node: str, text: str) -> Mapping[str, Lines]:
    lines = text.splitlines() if "\r" in text else text.split("\n")
    hint = "run the command again; if it stays, look at what the login shell prints"
    if BEGIN not in lines:
        raise RemoteError(
            "the host did not answer with facts", node=node, kind="protocol", step="facts", hint=hint
        )
    lines = lines[lines.index(BEGIN) + 1 :]
    if END not in lines:
        raise RemoteError(
            f"the facts are cut short after {len(lines)} lines", node=node, kind="protocol", step="facts", hint=hint
        )
    sections: dict[str, Lines] = {}
    current: Lines = []
    for line in lines[: lines.index(END)]:
        if line.startswith(SECTION_PREFIX):
            current = sections.setdefault(line[len(SECTION_PREFIX) :].rstrip("@"), [])
        elif line:
            current.append(line)
    return sections


def _pairs(lines: Lines) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("\t")
        found.setdefault(key, []).append(value)
    return found


def _sysctls(lines: Lines) -> dict[str, str]:
    """Lines `NAME tab PATH` say what was asked, lines `PATH:VALUE` (grep's) what was answered."""
    asked = [line.split("\t") for line in lines if not line.startswith("/proc/sys/")]
    answers = [line for line in lines if line.startswith("/proc/sys/")]
    return {
        name: normal_value(" ".join(a[len(path) + 1 :] for a in answers if a.startswith(path + ":")))
        for name, path in asked
        if any(a.startswith(path + ":") for a in answers)
    }


def _python(lines: Lines) -> tuple[int, int] | None:
    for version in _pairs(lines).get("python", []):
        if match := re.match(r"(\d+)\.(\d+)", version):
            return int(match.group(1)), int(match.group(2))
    return None


def _packages(lines: Lines) -> dict[str, str]:
    rows = (line.split("\t") for line in lines)
    # `config-files`, `half-configured` and their like (dpkg(1), "Package states") still need an installation.
    return {name: version for name, state, version in rows if state == "installed"}


def _unquote(text: str) -> str:
    def byte(match: re.Match[str]) -> str:
        escape = match.group(1)
        code = int(escape, 8) if len(escape) == 3 else _ESCAPES.get(escape, ord(escape))
        return chr(code & 0xFF)

    return _ESCAPE.sub(byte, text).encode("latin-1").decode("utf-8", "surrogateescape")


def _sums(lines: Lines) -> dict[str, str]:
    sums = {}
    for line in lines:
        # A leading backslash says that the name is escaped (sha256sum(1)).
        digest, _, name = line.lstrip("\\").partition("  ")
        if line.startswith("\\"):
            name = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m.group(1), m.group(1)), name)
        sums[name] = digest
    return sums


def _files(lines: Lines, sums: Mapping[str, str]) -> dict[str, FileFacts]:
    files = {}
    for line in lines:
        mode_text, owner, group, quoted = line.split(" ", 3)
        mode = int(mode_text, 16)
        names = [_unquote(name) for name in _QUOTED.findall(quoted)]
        files[names[0]] = FileFacts(
            kind=_kind(mode),
            mode=f"{stat.S_IMODE(mode):04o}",
            owner=owner,
            group=group,
            sha256=sums.get(names[0], ""),
            target=names[1] if stat.S_ISLNK(mode) else "",
        )
    return files


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def _units(lines: Lines) -> dict[str, UnitFacts]:
    names = [line[len("unit\t") :] for line in lines if line.startswith("unit\t")]
    fields = [line.partition("=") for line in lines if not line.startswith("unit\t")]
    size = 3  # LoadState, ActiveState, UnitFileState; one block a unit, in the order asked for
    blocks = [{key: value for key, _, value in fields[i : i + size]} for i in range(0, len(fields), size)]
    if blocks and len(blocks) != len(names):
        raise ValueError(f"{len(names)} units asked for, {len(blocks)} answered")
    return {
        name: UnitFacts(block["LoadState"], block["ActiveState"], block["UnitFileState"])
        for name, block in zip(names, blocks)
    }


def _keys(lines: Lines) -> dict[str, tuple[PublicKey | None, int]]:
    keys: dict[str, tuple[PublicKey | None, int]] = {}
    for line in lines:
        label, key, when = line.split("\t")
        keys[str(json.loads(label))] = PublicKey(key) if key else None, int(when)
    return keys


def _tables(lines: Lines) -> dict[str, str]:
    return {name: values[-1].split(" ")[0] for name, values in _pairs(lines).items()}


def _ledger(node: str, lines: Lines) -> Ledger:
    text = _content(lines)
    if not text.strip():
        return Ledger()
    try:
        return Ledger.from_json(text)
    except ValueError as error:
        raise RemoteError(
            f"{LEDGER_PATH} is not readable ({error})", node=node, kind="protocol", step="facts",
            hint="restore it, or remove it: meshctl then treats what it made earlier as foreign",
        ) from error


def _pending(lines: Lines) -> PendingApply | None:
    """One that cannot be read, of a damaged disk, is an apply that nobody can confirm."""
    if not lines:
        return None
    try:
        raw = json.loads(_content(lines))
        manual = bool(raw.get("manual"))  # absent in the first ones
        return PendingApply(
            str(raw["id"]), str(raw["who"]), float(raw["window_s"]), float(raw["began"]), manual,
            boot=str(raw["boot"]), ended=raw["until"] is not None,
        )  # fmt: skip
    except _DAMAGED:
        return PendingApply("", "", 0.0, ended=False, damaged=True)


def _undone(lines: Lines) -> UndoneApply | None:
    """One that cannot be read must not hinder anybody: it only tells."""
    if not lines:
        return None
    try:
        raw = json.loads(_content(lines))
        return UndoneApply(str(raw["id"]), str(raw["why"]), tuple(map(str, raw["left"])))
    except _DAMAGED:
        return UndoneApply("", "", damaged=True)


def _content(lines: Lines) -> str:
    """A file of the host's, whose lines the script has indented by a space."""
    return "\n".join(line[1:] for line in lines)


def _interfaces(
    read: Callable[[str, Callable[[Lines], Any]], Any],
) -> tuple[dict[str, InterfaceFacts], dict[str, frozenset[str]]]:
    dumped: dict[str, InterfaceFacts] = read("wireguard", parse_dump)
    links = read("links", parse_links)
    rules = {family: read(f"rules{family}", parse_rules) for family in FAMILIES}
    interfaces = {name: links[name].complete(facts) if name in links else facts for name, facts in dumped.items()}
    routing = {
        name: policy_routing(facts.fwmark, links[name].tables, rules) if name in links else frozenset()
        for name, facts in dumped.items()
    }
    return interfaces, routing
