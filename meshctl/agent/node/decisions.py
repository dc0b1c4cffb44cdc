"""One line for each decision: a path's changes of state with their reasons, and what was done to the host."""

from __future__ import annotations

from collections import Counter

from meshctl.agent.node.log import Log
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.events import (
    Action,
    InstallRelay,
    InstallSplice,
    RemoveRelay,
    RemoveSplice,
    SetEndpoint,
    SetKeepalive,
)
from meshctl.core.agent.path import State
from meshctl.core.agentcore import AgentCore
from meshctl.model.keys import PublicKey


class Decisions:
    """Remembers what it has told of each peer."""

    def __init__(self, config: AgentConfig, log: Log) -> None:
        self._log = log
        self._told: dict[PublicKey, tuple[State, float]] = {}  # state, and when it began
        self._seen: tuple[tuple[State, float], ...] | None = None  # of all paths, as they were when `look` was called
        self.switches: Counter[PublicKey] = Counter()  # endpoints that were set, other than the one before
        self._placed: dict[PublicKey, Address] = {}  # endpoints that were set: some are set again and again
        self.configure(config)

    def configure(self, config: AgentConfig) -> None:
        """Peers may be others than before."""
        self._names = {p.public_key: p.name for n in config.networks for p in n.peers}
        self._told = {peer: told for peer, told in self._told.items() if peer in self._names}
        self._seen = None

    def look(self, core: AgentCore) -> None:
        """Tell what has changed since the last time."""
        states = core.states()
        if states == self._seen:
            return
        self._seen = states
        for path in core.paths():
            now = (path.state, path.since)
            before = self._told.get(path.public_key)
            if now == before:
                continue
            self._told[path.public_key] = now
            after = before[1] if before is not None else float("-inf")
            changes = [d for d in core.history(path.public_key) if d.at > after and d.before is not d.after]
            for change in changes:
                self._log.info(
                    "path", network=path.network, peer=path.peer, state=change.after.value, reason=change.reason
                )
            if not changes and path.reason:
                self._log.info("path", network=path.network, peer=path.peer, state=path.state.value, reason=path.reason)

    def done(self, action: Action) -> None:
        """Tell of what was done, where it is more than a message."""
        if isinstance(action, SetEndpoint):
            if self._placed.get(action.peer) != action.address:
                self._placed[action.peer] = action.address
                self.switches[action.peer] += 1
                self._log.info("endpoint", peer=self._name(action.peer), address=action.address)
        elif isinstance(action, SetKeepalive):
            self._log.info("keepalive", peer=self._name(action.peer), interval_s=action.interval_s)
        elif isinstance(action, (InstallRelay, RemoveRelay)):
            what = "relay" if isinstance(action, InstallRelay) else "relay-removed"
            self._log.info(what, port=action.port, a=action.a, b=action.b)
        elif isinstance(action, (InstallSplice, RemoveSplice)):
            what = "splice" if isinstance(action, InstallSplice) else "splice-removed"
            self._log.info(what, peer=self._name(action.peer), remote=action.remote, local_port=action.local_port)

    def _name(self, peer: PublicKey) -> str:
        return self._names.get(peer, peer.text)
