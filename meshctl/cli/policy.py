"""`meshctl policy`: questions to the policies, answered without a host."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from meshctl.cli.common import inventory_options, named_inventory, output_option, print_json, read_inventory
from meshctl.cli.rulings import NO_WAY, rule_fields, rule_words
from meshctl.errors import EXIT_OK, MeshctlError, UsageError

if TYPE_CHECKING:
    from meshctl.policy import NetworkPolicy
    from meshctl.policy.explain import Answer
    from meshctl.policy.naming import Party

network_option = click.option("--network", metavar="NAME", help="This network only. [default: all]")
expand_option = click.option("--expand", is_flag=True, help="Every node by itself, not those that are alike together.")


# Commands that stand in a module of their own, imported on use: name -> (module, attribute).
_ELSEWHERE = {"diff": ("meshctl.cli.policy_diff", "diff_command")}


class _PolicyGroup(click.Group):
    """The commands of this module and those elsewhere."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted((*super().list_commands(ctx), *_ELSEWHERE))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute = _ELSEWHERE[cmd_name]
        found: click.Command = getattr(import_module(module), attribute)
        return found


@click.group("policy", cls=_PolicyGroup)
def command() -> None:
    """Ask what the policies allow: diff, explain, matrix, graph.

    \b
    Examples:
      meshctl policy explain web1 pg1 tcp/5432
      meshctl policy matrix
    """


@command.command("explain")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.argument("traffic", metavar="PROTO/PORT")
@inventory_options
@output_option
def explain_command(
    source: str, destination: str, traffic: str, inventory_argument: str | None, inventory_option: str | None,
    output: str,
) -> int:  # fmt: skip
    """Say whether SRC may open a connection to DST, by which rule, and by which nodes it goes.

    SRC and DST are nodes, addresses, or prefixes behind a gateway; DST may be `internet`. PROTO/PORT is tcp/22,
    udp/53, sctp/9 or icmp. Exits 0 whatever the answer is.

    \b
    Examples:
      meshctl policy explain web1 pg1 tcp/5432
      meshctl policy explain 10.42.0.7 192.168.10.9 icmp inventory.yml
      meshctl policy explain phone internet udp/443 -o json
    """
    from meshctl.inventory.suggest import did_you_mean
    from meshctl.policy import compile_mesh
    from meshctl.policy.explain import NoSubjectError, end, explain

    point = _point(traffic)
    compiled = compile_mesh(read_inventory(named_inventory(inventory_argument, inventory_option)).mesh)
    ends = []
    for text in (source, destination):
        try:
            ends.append(end(compiled.mesh, compiled.decisions, text))
        except NoSubjectError as error:
            raise UsageError(str(error), hint=error.hint or did_you_mean(text, compiled.mesh.nodes)) from None
    answer = explain(compiled, ends[0], ends[1], point)
    if output == "json":
        _print_answer(answer)
    else:
        from meshctl.inventory.report import printable

        asked = printable(f"{source} -> {destination} {traffic}")
        click.echo(f"{asked}: {_sentence(answer, same=ends[0].subject == ends[1].subject)}")
        if answer.path:
            click.echo(printable(f"path: {' -> '.join(answer.path)}"))
    return EXIT_OK


@command.command("matrix")
@inventory_options
@network_option
@expand_option
@click.option(
    "--format", "style", type=click.Choice(["table", "csv", "html"]), default="table", show_default=True,
    help="A table for people, a line for each pair for spreadsheets, or one page of HTML.",
)  # fmt: skip
def matrix_command(
    inventory_argument: str | None, inventory_option: str | None, network: str | None, expand: bool, style: str
) -> int:
    """Show who may open what to whom.

    Rows are sources, columns destinations; `-` is nothing. Nodes for which the policies say the same are one row and
    column, but in CSV; what stands there where the two meet is what they may open to each other.

    \b
    Examples:
      meshctl policy matrix
      meshctl policy matrix --network corp --format csv inventory.yml
      meshctl policy matrix --format html > policies.html
    """
    from meshctl.policy import matrix as matrices

    networks = _networks(inventory_argument, inventory_option, network, expand=expand or style == "csv")
    made = [matrices.matrix(policy, parties) for policy, parties in networks]
    write = {"table": matrices.to_table, "csv": matrices.to_csv, "html": matrices.to_html}[style]
    click.echo(write(made), nl=False)
    return EXIT_OK


@command.command("graph")
@inventory_options
@network_option
@expand_option
@click.option(
    "--format", "style", type=click.Choice(["dot", "svg"]), default="dot", show_default=True,
    help="Graphviz's language, or a picture, for which Graphviz must be installed.",
)  # fmt: skip
def graph_command(
    inventory_argument: str | None, inventory_option: str | None, network: str | None, expand: bool, style: str
) -> int:
    """Draw who may open what to whom.

    \b
    Examples:
      meshctl policy graph | dot -Tpng > policies.png
      meshctl policy graph --network corp --format svg inventory.yml > policies.svg
    """
    from meshctl.policy.graph import to_dot

    text = to_dot(_networks(inventory_argument, inventory_option, network, expand=expand))
    click.echo(_draw(text) if style == "svg" else text, nl=False)
    return EXIT_OK


def _networks(
    argument: str | None, option: str | None, network: str | None, *, expand: bool
) -> list[tuple[NetworkPolicy, Sequence[Party]]]:
    """The networks asked for, each with its parties."""
    from meshctl.inventory.suggest import did_you_mean
    from meshctl.policy import compile_policies
    from meshctl.policy.naming import parties, single

    mesh = read_inventory(named_inventory(argument, option)).mesh
    networks = compile_policies(mesh).networks
    if network is not None and network not in networks:
        raise UsageError(f"--network: there is no network `{network}`", hint=did_you_mean(network, networks))
    return [
        (policy, [single(s) for s in policy.subjects()] if expand else parties(policy, frozenset(mesh.nodes)))
        for name, policy in networks.items()
        if network in (None, name)
    ]


def _draw(text: str) -> str:
    program = shutil.which("dot")
    if program is None:
        raise MeshctlError(
            "svg needs the program `dot`, which is not here", hint="install graphviz, or use --format dot"
        )
    done = subprocess.run([program, "-Tsvg"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeshctlError(f"dot: {done.stderr.strip()}", hint="see what --format dot prints")
    return done.stdout


def _point(text: str) -> int:
    from meshctl.core.traffic import ICMP, PORT_PROTOCOLS, parse_ports

    if text == "icmp":
        return ICMP
    protocol, _, port = text.partition("/")
    hint = "write tcp/22, udp/53, sctp/9 or icmp"
    if protocol not in PORT_PROTOCOLS or not (port.isascii() and port.isdigit()):
        raise UsageError(f"`{text}` is not a protocol and a port", hint=hint)
    try:
        return parse_ports(text)[0]
    except ValueError as error:
        raise UsageError(f"`{text}`: {error}", hint=hint) from None


def _sentence(answer: Answer, *, same: bool) -> str:
    if answer.rule is not None:
        return f"{'allowed' if answer.allowed else 'denied'} by {rule_words(answer.rule)} in {answer.network}"
    if same:
        return "not decided: it does not leave the node"
    if not answer.network:
        return f"denied: {NO_WAY}"
    return f"denied: no policy in {answer.network} allows it"


def _print_answer(answer: Answer) -> None:
    about = rule_fields(answer.rule)
    print_json(
        {
            "allowed": answer.allowed,
            **{key: about.pop(key) for key in ("rule", "file", "line")},
            "path": list(answer.path),
            "network": answer.network,
            **about,
        }
    )
