"""`meshctl agent`: what the agents of nodes know and do, asked over SSH."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from meshctl.agent.node.options import MODES
from meshctl.cli.common import (
    Hosts,
    inventory_only_option,
    output_option,
    print_json,
    reach_options,
    read_inventory,
)
from meshctl.errors import EXIT_FAILED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from meshctl.deploy.asking import Answers

STUN_PORT = 3478  # RFC 8489 section 16


@click.group("agent")
def command() -> None:
    """Ask the agents on the nodes: status, paths, events, nat, rebind, override.

    \b
    Examples:
      meshctl agent paths home1
      meshctl agent events home1 home2 -i inventory.yml
      meshctl agent nat 'home*' -o json
    """


def _asks(name: str, what: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command that takes nodes and asks each of them the same."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        function = click.argument("nodes", metavar="NODE...", nargs=-1)(
            inventory_only_option(reach_options(output_option(function)))
        )
        return command.command(name, short_help=what)(function)

    return decorate


@_asks("status", "Networks, how many peers are reached how, and relays served.")
def status_command(nodes: tuple[str, ...], inventory_option: str | None, output: str, **host_values: Any) -> int:
    """Show nodes in short: their networks, how many peers they reach how, and the relays that they serve.

    Nodes are named as with --limit; all of them when none is named. Exits 1 when one cannot be asked.

    \b
    Examples:
      meshctl agent status fra1
      meshctl agent status --lab
    """
    return _run({"request": "status"}, nodes, inventory_option, output, host_values)


@_asks("paths", "How a node reaches each peer, since when and why.")
def paths_command(nodes: tuple[str, ...], inventory_option: str | None, output: str, **host_values: Any) -> int:
    """Show how nodes reach their peers: directly or by which anchor, where, since when and why.

    `meshctl status` has all of them in one table. Exits 1 when a node cannot be asked.

    \b
    Examples:
      meshctl agent paths home1
      meshctl agent paths home1 -o json -i inventory.yml
    """
    return _run({"request": "paths"}, nodes, inventory_option, output, host_values)


@_asks("events", "The last decisions about each peer, with their reasons.")
def events_command(nodes: tuple[str, ...], inventory_option: str | None, output: str, **host_values: Any) -> int:
    """Show what agents have decided lately, and why.

    Exits 1 when a node cannot be asked.

    \b
    Examples:
      meshctl agent events home1
      meshctl agent events home1 home2 -o json
    """
    return _run({"request": "events"}, nodes, inventory_option, output, host_values)


@_asks("nat", "The NATs in front of a node, and what its routers map.")
@click.option("--here", is_flag=True, help="The NAT in front of this machine instead, where no agent runs.")
@click.option("--stun", metavar="HOST[:PORT]", help="The STUN server for --here. [default: the inventory's first]")
def nat_command(
    nodes: tuple[str, ...], here: bool, stun: str | None, inventory_option: str | None, output: str, **host_values: Any
) -> int:
    """Show the NATs in front of nodes, as far as they can be told, and what routers map.

    NAT is the inventory's word (`nat:`). Exits 1 when a node cannot be asked. With --here, the classification of
    RFC 3489 by a server with two addresses: what to declare for a place before a node stands there.

    \b
    Examples:
      meshctl agent nat home1
      meshctl agent nat 'home*' -o json
      meshctl agent nat --here --stun stun.example.net
    """
    if here:
        if nodes:
            raise UsageError("--here is about this machine, and no node")
        return _nat_here(stun, inventory_option, output)
    return _run({"request": "nat"}, nodes, inventory_option, output, host_values)


@_asks("rebind", "Have nodes find everything out anew, as in another network.")
def rebind_command(nodes: tuple[str, ...], inventory_option: str | None, output: str, **host_values: Any) -> int:
    """Have nodes find everything out anew: addresses, NATs, mappings, and the best path to each peer.

    Paths that work are kept until there are better ones. Exits 1 when a node cannot be asked.

    \b
    Examples:
      meshctl agent rebind home1
    """
    return _run({"request": "rebind"}, nodes, inventory_option, output, host_values)


@command.command("override", short_help="Keep one pair on the relay or off it, until the agent ends.")
@click.argument("node", metavar="NODE")
@click.argument("peer", metavar="PEER")
@click.argument("mode", type=click.Choice(MODES))
@inventory_only_option
@reach_options
@output_option
def override_command(
    node: str, peer: str, mode: str, inventory_option: str | None, output: str, **host_values: Any
) -> int:
    """Have NODE reach PEER by a relay, directly, by a relay while there is one, or as it finds best.

    Holds until the node's agent ends, for both directions. Exits 1 when the node cannot be asked or has no such peer.

    \b
    Examples:
      meshctl agent override home1 home2 relay
      meshctl agent override home1 home2 auto
    """
    return _run({"request": "override", "peer": peer, "mode": mode}, (node,), inventory_option, output, host_values)


def _nat_here(server: str | None, inventory_option: str | None, output: str) -> int:
    if server is None:
        found = read_inventory(inventory_option).mesh.stun
        if not found:
            raise UsageError("no STUN server is known", hint="name one by --stun, or in the inventory's `stun`")
        server = found[0].partition(":")[2]
    host, port = _stun_server(server)
    from meshctl.deploy.nathere import classify

    nat = classify(host, port)
    if output == "json":
        print_json({"nat": nat.nat or None, "classification": nat.classification, "seen": nat.seen or None,
                    "server": server})  # fmt: skip
    elif not nat.seen:
        click.echo(f"{server} does not answer: UDP is blocked here (nat: {nat.nat}), or no server is there")
    else:
        click.echo(f"nat: {nat.nat or 'unknown'} ({nat.classification}); {server} sees this machine as {nat.seen}")
    return EXIT_OK


def _stun_server(server: str) -> tuple[str, int]:
    """Its host and port. Raises UsageError."""
    from meshctl.inventory.addresses import HIGHEST_PORT

    host, _, port = server.partition(":")
    if server.startswith("[") or "::" in server:
        hint = "name the server, or its IPv4 address: it is NATs of IPv4 that are told apart"
        raise UsageError(f"--stun: {server!r} is an IPv6 address", hint=hint)
    if not host or not (port or str(STUN_PORT)).isdecimal():
        raise UsageError(f"--stun: {server!r} is no HOST:PORT")
    if len(port) > len(str(HIGHEST_PORT)) or not 0 < int(port or STUN_PORT) <= HIGHEST_PORT:
        raise UsageError(f"--stun: {port} is no port", hint=f"ports are numbers from 1 to {HIGHEST_PORT}")
    return host, int(port or STUN_PORT)


def _run(
    request: dict[str, Any], nodes: tuple[str, ...], inventory_option: str | None, output: str,
    host_values: dict[str, Any],
) -> int:  # fmt: skip
    host_values["limit"] = (*host_values["limit"], *nodes)
    hosts = Hosts(**host_values)
    inventory = hosts.read(None, inventory_option)
    from meshctl.agent.node.tables import TABLES
    from meshctl.cli import progress
    from meshctl.deploy.asking import Asking

    table = TABLES[request["request"]]
    with Asking(inventory.mesh, hosts.options(), hosts.door()) as asking:
        if not any(inventory.mesh.nodes[name].has_agent for name in asking.names):
            where = ", ".join(asking.names)
            raise UsageError(f"no agent is to run on {where}", hint="the inventory has `agent: false`")
        answers = asking.ask(request, progress.for_terminal(), table)
    if output == "json":
        errors = [error.to_json() for error in answers.errors.values()]
        print_json({"nodes": dict(answers.documents), "errors": errors})
    else:
        click.echo(_text(answers, table))
    return EXIT_FAILED if answers.errors else EXIT_OK


def _text(answers: Answers, table: Callable[[dict[str, Any]], str]) -> str:
    """Each node's answer under its name, and who did not answer."""
    from meshctl.cli.show import error_text

    parts = [f"{name}:\n{table(document)}\n" for name, document in answers.documents.items()]
    return "\n".join([*parts, *(error_text(error) for error in answers.errors.values())])
