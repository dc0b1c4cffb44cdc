"""One SSH connection: TCP (or what stands for it), host key, authentication. Failures become RemoteError, one line."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from meshctl.deploy.hostkeys import HostKeyRefused, KnownHosts
from meshctl.deploy.identities import Identities
from meshctl.deploy.sshalive import Heard, close, watch
from meshctl.deploy.sshsettings import Way
from meshctl.errors import RemoteError

if TYPE_CHECKING:
    import paramiko

# paramiko's reader threads log what the caller is told anyway; nothing of it belongs on the operator's terminal.
LOG_CHANNEL = "meshctl.ssh"
logging.getLogger(LOG_CHANNEL).addHandler(logging.NullHandler())
logging.getLogger(LOG_CHANNEL).propagate = False
# Host key algorithms that sign with a known `ssh-rsa` key.
_RSA_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256")


def tcp(way: Way, node: str) -> socket.socket:
    """A connected socket without Nagle's delay, which costs up to two 40 ms stalls a session. Raises RemoteError."""
    place = f"{way.host}:{way.port}"
    try:
        sock = socket.create_connection((way.host, way.port), timeout=way.connect_timeout_s)
    except socket.gaierror as error:
        raise RemoteError(
            f"cannot resolve {way.host}: {error.strerror}", node=node, kind="unreachable",
            hint="set ssh.host to a name or address that resolves here",
        ) from error  # fmt: skip
    except TimeoutError as error:
        raise RemoteError(
            f"no answer from {place} within {way.connect_timeout_s:g} s", node=node, kind="timeout",
            hint="is the host up, and port open in its firewall? (ssh.connect_timeout)",
        ) from error  # fmt: skip
    except ConnectionRefusedError as error:
        raise RemoteError(
            f"{place} refuses the connection", node=node, kind="refused", hint="is sshd running, and on that port?"
        ) from error
    except OSError as error:
        raise RemoteError(
            f"cannot reach {place}: {error.strerror or error}", node=node, kind="unreachable",
            hint="check the address and the route to it",
        ) from error  # fmt: skip
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def handshake(sock: Any, way: Way, node: str, known: KnownHosts, identities: Identities) -> paramiko.Transport:
    """An authenticated transport over a connected socket or channel, which it owns from here on."""
    import paramiko

    transport: paramiko.Transport | None = None
    try:
        heard = Heard(sock)
        transport = paramiko.Transport(heard)  # type: ignore[arg-type]  # it stands for a socket
        transport.set_log_channel(LOG_CHANNEL)
        transport.banner_timeout = way.connect_timeout_s
        transport.auth_timeout = way.connect_timeout_s
        transport.daemon = True
        _prefer_known_kinds(transport, known.kinds(way.host_key_name))
        transport.start_client(timeout=way.connect_timeout_s)
        server_key = transport.get_remote_server_key()
        known.check(way.host_key_name, server_key.get_name(), server_key.get_base64())
        _authenticate(transport, way, node, identities)
        if way.settings.keepalive_s:
            watch(transport, heard, way.settings.keepalive_s)
    except HostKeyRefused as error:
        close(transport or sock)
        raise RemoteError(str(error), node=node, kind="host-key", hint=error.hint) from error
    except RemoteError:
        close(transport or sock)
        raise
    except (paramiko.SSHException, EOFError, OSError) as error:
        close(transport or sock)
        raise RemoteError(
            f"no SSH session with {way.host}:{way.port}: {error or 'the connection was closed'}", node=node,
            kind="unreachable", hint=f"try: ssh -v -p {way.port} {way.user}@{way.host}",
        ) from error  # fmt: skip
    return transport


def _prefer_known_kinds(transport: paramiko.Transport, kinds: list[str]) -> None:
    """Ask for a type of key that we know, as OpenSSH does: a host has several, we may know one."""
    names = [a for kind in kinds for a in (_RSA_ALGORITHMS if kind == "ssh-rsa" else (kind,))]
    options = transport.get_security_options()
    offered = tuple(options.key_types)
    first = [name for name in dict.fromkeys(names) if name in offered]
    options.key_types = (*first, *(name for name in offered if name not in first))


def _authenticate(transport: paramiko.Transport, way: Way, node: str, identities: Identities) -> None:
    """Public keys, one after the other. Raises RemoteError of kind auth that says what was tried."""
    import paramiko

    tried = []
    for label, key, by_agent in identities.offer(way):
        tried.append(f"{label} {key.fingerprint}")
        try:
            if by_agent:
                with identities.signing:
                    transport.auth_publickey(way.user, key)
            else:
                transport.auth_publickey(way.user, key)
        except paramiko.BadAuthenticationType:
            break  # this server takes no keys at all
        except paramiko.AuthenticationException:
            if not transport.is_active():
                break  # too many failures: the server hung up
            continue
        if transport.is_authenticated():
            return
    problems = identities.problems(way)
    detail = f"; tried {', '.join(tried)}" if tried else "; there was no key to try"
    raise RemoteError(
        f"{way.user}@{way.host} does not accept our keys{detail}", node=node, kind="auth",
        hint="; ".join(problems) or f"ssh-copy-id -p {way.port} {way.user}@{way.host}, or set ssh.key and ssh.user",
    )  # fmt: skip
