"""What the core wants to know after a restart: one file, whole or not at all, and no loss when it is gone."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from meshctl.agent.files import remove_quietly, replace, write_and_close
from meshctl.agent.node.handler import Plain
from meshctl.core.agent.events import Action, Event, SaveState
from meshctl.core.agent.state import MAX_BYTES


def load_state(path: Path) -> bytes:
    """What was saved last; nothing when there is no such file, or one that cannot be read or is none of ours."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError:
        return b""
    return content if len(content) <= MAX_BYTES else b""


class StateFile(Plain):
    """At `path`; nobody else may read it, for relays' tokens are in it."""

    actions = (SaveState,)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest: bytes | None = None
        self._failure: OSError | None = None
        self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="state file", daemon=True)
        self._thread.start()

    def do(self, action: Action) -> None:
        """See Handler. It is written in a thread: a slow disk must not hold up what the state is about."""
        if isinstance(action, SaveState):
            self._newest = action.data
            self._wake.set()

    def poll(self, _now: float) -> list[Event]:
        """See Handler. Raises OSError (a full disk, say); what was saved before is then still there."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return []

    def close(self) -> None:
        """See Handler. What is to be saved is saved then."""
        self._ended = True
        self._wake.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended or self._newest is not None:
            self._wake.wait()
            self._wake.clear()
            data, self._newest = self._newest, None
            if data is not None:
                try:
                    self._write(data)
                except OSError as error:
                    self._failure = error

    def _write(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temp = self._path.with_name(f".{self._path.name}.new")
        remove_quietly(temp)  # of an agent that was killed while it wrote
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            write_and_close(os.open(temp, flags, 0o600), data)
            replace(temp, self._path)
        except OSError:
            remove_quietly(temp)
            raise
