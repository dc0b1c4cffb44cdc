"""`meshctl-agent run`: the agent as a service, put together and run until a signal ends it."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Sequence

from meshctl.agent.node import runlock
from meshctl.agent.node.control import Control
from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.documentfile import read_document
from meshctl.agent.node.handler import Handler, HasFileno, Plain, Readable
from meshctl.agent.node.log import Log
from meshctl.agent.node.loop import Counts, Loop, clock
from meshctl.agent.node.mappings import Mappings
from meshctl.agent.node.metrics import MetricsFile, MetricsServer
from meshctl.agent.node.names import Names
from meshctl.agent.node.notify import Systemd
from meshctl.agent.node.options import Options, parse
from meshctl.agent.node.rawudp import RawUdp
from meshctl.agent.node.relays import Relays
from meshctl.agent.node.report import Report
from meshctl.agent.node.signalling import Signalling
from meshctl.agent.node.splices import Splices
from meshctl.agent.node.statefile import StateFile, load_state
from meshctl.agent.node.watch import ClockWatch, DocumentWatch, NetworkWatch
from meshctl.agent.node.wireguard import WireGuard
from meshctl.core.agent.document import DocumentError
from meshctl.core.agent.events import Event
from meshctl.core.agentcore import AgentCore

EXIT_CONFIG = 78  # EX_CONFIG of sysexits(3): the unit need not be tried again until the document is another one


class Signals(Plain):
    """TERM and INT end the loop, HUP has the document read again. To be made in the main thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # it is the byte that counts
        signal.set_wakeup_fd(self._there.fileno())

    def sockets(self) -> Sequence[tuple[HasFileno, Readable]]:
        """See Handler."""
        return [(self._here, self._receive)]

    def close(self) -> None:
        """See Handler."""
        signal.set_wakeup_fd(-1)
        self._here.close()
        self._there.close()

    def _receive(self, _now: float) -> list[Event]:
        came = set(self._here.recv(64))
        if came & {signal.SIGTERM, signal.SIGINT}:
            self._service.stop()
        return self._service.reload() if signal.SIGHUP in came else []


class Service:
    """One agent. Raises DocumentError, OSError."""

    def __init__(self, options: Options, log: Log) -> None:
        self._path, self._log = options.document, log
        now = clock()
        self._systemd = Systemd(now)
        watch = DocumentWatch(self._path, self.reload, now)  # before it is read
        self._document = document = read_document(self._path)
        core = AgentCore(document.config, random.SystemRandom(), now, load_state(options.state))
        decisions, counts, relays = Decisions(document.config, log), Counts(), Relays(now, document.relay_limit)
        report = Report(core, decisions, counts, relays.counters, now)
        wireguard = WireGuard(document)
        signalling = Signalling(document)
        server = MetricsServer(document, options.metrics_port, report)

        def links_changed() -> bool:
            well = True
            for what, refresh in (("signalling", signalling.refresh), ("metrics", server.refresh)):
                try:
                    refresh()
                except OSError as error:
                    log.trouble(what, str(error))
                    well = False
            return well

        handlers: tuple[Handler, ...] = (
            Signals(self), wireguard, RawUdp(document, wireguard.marks), signalling, StateFile(options.state, log),
            NetworkWatch(document, now, links_changed), ClockWatch(),
            watch, Splices(document, now), relays, Mappings(document),
            Names(document, wireguard.marks), Control(options.socket, report), server,
            MetricsFile(options.metrics_file, report, options.metrics_every_s, now), self._systemd,
        )  # fmt: skip
        self._loop = Loop(core, handlers, decisions, log, counts)

    def run(self) -> None:
        """Until a signal says that it is enough."""
        self._systemd.ready()
        self._log.info("started", node=self._document.config.name)
        self._loop.run()
        self._log.info("stopped")

    def stop(self) -> None:
        """A signal says that it is enough."""
        self._loop.stop()

    def reload(self) -> list[Event]:
        """Take the document as it is now; one that cannot be used changes nothing."""
        try:
            document = read_document(self._path)
        except DocumentError as error:
            _tell(error, self._log)
            return []
        except OSError as error:
            self._log.error("document", file=self._path, reason=error.strerror)
            return []
        if document == self._document:
            return []
        self._document = document
        self._log.info("reloaded", node=document.config.name)
        return self._loop.configure(document)


def _tell(error: DocumentError, log: Log) -> None:
    for finding in error.findings:
        log.error("document", file=finding.file, reason=finding.message, hint=finding.hint)


def main(arguments: Sequence[str]) -> int:
    """Run the agent; the exit status."""
    options = parse(arguments)
    log = Log(clock)
    try:
        runlock.take(options.state)
    except BlockingIOError:
        hint = "stop it first: systemctl stop meshctl-agent"
        log.error("lock", file=options.state, reason="another agent runs", hint=hint)
        return runlock.EXIT_RUNS
    except OSError as error:  # what cannot be locked cannot be saved either, and paths need neither
        log.trouble("lock", str(error))
    try:
        service = Service(options, log)
    except DocumentError as error:
        _tell(error, log)
        return EXIT_CONFIG
    service.run()
    return 0
