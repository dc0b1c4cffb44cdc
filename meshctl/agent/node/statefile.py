"""What the core wants to know after a restart: one file, whole or not at all, and no loss when it is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from meshctl.agent.files import put, read_regular, remove_quietly, temp_of
from meshctl.agent.node.handler import Plain
from meshctl.agent.node.log import Log
from meshctl.core.agent.events import Action, Event, SaveState
from meshctl.core.agent.state import MAX_BYTES

# What could not be written is tried again after this: the core says it once.
AGAIN_S = 5.0


def load_state(path: Path) -> bytes:
    """What was saved last; nothing when there is no such file, or one that cannot be read or is none of ours."""
    try:
        return read_regular(path, MAX_BYTES)
    except OSError:
        return b""


def save_state(path: Path, data: bytes) -> None:
    """In the place of what was saved before, which stays when this raises OSError. For its owner alone."""
    put(path, data, 0o600)


def remove_state(path: Path) -> None:
    """What was saved, and half of what an agent was killed over."""
    remove_quietly(path)
    remove_quietly(temp_of(path))


class StateFile(Plain):
    """At `path`; nobody else may read it, for relays' tokens are in it."""

    actions = (SaveState,)

    def __init__(self, path: Path, log: Log) -> None:
        self._path, self._log = path, log
        self._lock = threading.Lock()  # around the next two
        self._newest: bytes | None = None  # to be written
        self._failure: OSError | None = None
        self._again_at: float | None = None
        self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="state file", daemon=True)
        self._thread.start()

    def do(self, action: Action) -> None:
        """See Handler. It is written in a thread: a slow disk must not hold up what the state is about. Raises
        ValueError for more than the next agent would read."""
        if isinstance(action, SaveState):
            if len(action.data) > MAX_BYTES:
                raise ValueError(f"{len(action.data)} bytes of state are more than the {MAX_BYTES} that are read again")
            with self._lock:
                self._newest = action.data
            self._wake.set()

    def due(self) -> float | None:
        """See Handler."""
        return self._again_at

    def poll(self, now: float) -> list[Event]:
        """See Handler. Tells what could not be written (a full disk, say), and has it written later; what was saved
        before is still there."""
        if self._tell(self._log.trouble):
            self._again_at = now + AGAIN_S
        elif self._again_at is not None and now >= self._again_at:
            self._again_at = None
            self._wake.set()
        return []

    def close(self) -> None:
        """See Handler. What is to be saved is saved then, or never."""
        self._ended = True
        self._wake.set()
        self._thread.join()
        self._tell(self._log.error)

    def _tell(self, tell: Callable[..., None]) -> bool:
        """What has failed since the last time; whether anything has."""
        with self._lock:
            failure, self._failure = self._failure, None
        if failure is not None:
            tell("SaveState", reason=str(failure), file=self._path)
        return failure is not None

    def _work(self) -> None:
        ending = False
        while not ending:
            self._wake.wait()
            self._wake.clear()
            ending = self._ended  # as it was before this look at what is to be written
            with self._lock:
                data, self._newest = self._newest, None
            if data is not None:
                self._try(data)

    def _try(self, data: bytes) -> None:
        failure = None
        try:
            save_state(self._path, data)
        except OSError as error:
            failure = error
        with self._lock:
            self._failure = failure
            if failure is not None and self._newest is None:
                self._newest = data
