"""Commands over an SSH connection: one channel, one exec, standard input and both outputs moved side by side."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from meshctl.deploy import sudo
from meshctl.deploy.sshalive import close
from meshctl.deploy.sshsettings import Way
from meshctl.deploy.transport import OUTPUT_LIMIT_BYTES, Completed, NotSentError
from meshctl.errors import RemoteError
from meshctl.model.keys import Secret

if TYPE_CHECKING:
    import paramiko

_CHUNK_BYTES = 65536
# What is kept of standard error: its first megabyte tells enough.
_ERROR_CHUNKS = 16


class SshTransport:
    """One node's shell. The connection belongs to `Connections`, which closes it."""

    def __init__(self, node: str, way: Way, connection: paramiko.Transport, password: Secret | None) -> None:
        self._node = node
        self._way = way
        self._connection = connection
        self._password = password

    def run(self, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:
        """As Transport.run: one channel, one exec."""
        limit_s = timeout_s or self._way.settings.command_timeout_s
        as_root = self._way.settings.sudo
        if as_root:
            command, stdin = sudo.wrap(command, stdin, self._password)
        completed = self._exec(command, stdin, limit_s)
        if as_root:
            sudo.check(completed, self._node, self._way.user, self._password is not None)
        return completed

    def close(self) -> None:
        """Nothing of its own to close."""

    def _exec(self, command: str, stdin: bytes, limit_s: float) -> Completed:
        import paramiko

        deadline = time.monotonic() + limit_s
        try:
            channel = self._connection.open_session(timeout=self._way.connect_timeout_s)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(error, NotSentError) from error
        try:
            channel.settimeout(limit_s)
            channel.exec_command(command)
            errors = _Drain(channel)
            threading.Thread(target=_feed, args=(channel, stdin), daemon=True).start()
            stdout = _read_to_end(channel, deadline)
            if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            status = channel.recv_exit_status()
            stderr = errors.result()
        except TimeoutError as error:
            raise RemoteError(
                f"no end of the command after {limit_s:g} s", node=self._node, kind="timeout",
                hint="look at the host's load, or raise ssh.command_timeout",
            ) from error  # fmt: skip
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(error) from error
        finally:
            close(channel)
        if status < 0 and not self._connection.is_active():
            raise self._lost(None)
        return Completed(status if status >= 0 else 255, stdout, stderr)

    def _lost(self, error: BaseException | None, what: type[RemoteError] = RemoteError) -> RemoteError:
        why = getattr(self._connection.sock, "why", "") or (str(error) if error is not None else "")
        message = f"the SSH connection was lost{why and f': {why}'}"
        return what(message, node=self._node, kind="unreachable", hint="run the command again")


class _Drain:
    """Reads a channel's standard error beside its output, so that neither can fill the window and stop both."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        import paramiko

        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            while chunk := self._channel.recv_stderr(_CHUNK_BYTES):
                if len(self._chunks) < _ERROR_CHUNKS:
                    self._chunks.append(chunk)

    def result(self) -> bytes:
        self._thread.join()
        return b"".join(self._chunks)


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    """Standard input, beside the reading: a command may answer before it has read all of it."""
    import paramiko

    # The command ended without reading, or the connection did: who reads its status says why.
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        channel.sendall(stdin)
        channel.shutdown_write()


def _read_to_end(channel: paramiko.Channel, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = channel.recv(_CHUNK_BYTES)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
        if size > OUTPUT_LIMIT_BYTES:
            raise OSError(f"more than {OUTPUT_LIMIT_BYTES >> 20} MiB of output")
