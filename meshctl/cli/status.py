"""`meshctl status`: who reaches whom, and how."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import Hosts, inventory_options, number, output_option, print_json, reach_options
from meshctl.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from meshctl.deploy.asking import Asking
    from meshctl.deploy.meshstatus import MeshStatus, Path
    from meshctl.deploy.progress import Progress
    from meshctl.policy import Compiled

HEAD = ("PAIR", "NETWORK", "STATE", "BY", "ENDPOINT", "RTT", "AGE", "WHY")


@click.command("status", short_help="Show who reaches whom: directly or by which anchor, and why.")
@inventory_options
@reach_options
@click.option("--watch", is_flag=True, help="Go on, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.2, 86400), callback=number, default=2.0, show_default=True,
              metavar="SECONDS", help="Between two looks of --watch.")  # fmt: skip
@output_option
def command(
    inventory_argument: str | None, inventory_option: str | None, watch: bool, interval: float, output: str,
    **host_values: Any,
) -> int:  # fmt: skip
    """Show who reaches whom: directly or by which anchor, how far away, since when and why.

    All nodes are asked at once, over SSH. `a <> b` is a pair of which both directions are alike. Stock clients, and
    nodes with `agent: false`, are not asked: what is shown of them is what others see. Exits 0 when every node that was
    asked answered and no path is down, else 1. With --watch -o json, each look is one line.

    \b
    Examples:
      meshctl status inventory.yml
      meshctl status --watch --limit 'home*'
      meshctl status -o json | jq '.paths[] | select(.state == "down")'
    """
    hosts = Hosts(**host_values)
    inventory = hosts.read(inventory_argument or None, inventory_option)
    from meshctl.cli import progress
    from meshctl.deploy.asking import Asking
    from meshctl.policy import compile_mesh

    compiled = compile_mesh(inventory.mesh)
    with Asking(inventory.mesh, hosts.options(), hosts.door()) as asking:
        if watch:
            return _watch(asking, compiled, interval, output)
        status = look(asking, compiled, progress.for_terminal())
    if output == "json":
        print_json(status.to_json())
    else:
        click.echo(status_text(status))
    return EXIT_OK if status.ok else EXIT_FAILED


def look(asking: Asking, compiled: Compiled, progress: Progress) -> MeshStatus:
    """Ask all once."""
    from meshctl.deploy.meshstatus import mesh_status, read_paths

    answers = asking.ask({"request": "paths"}, progress, lambda document: read_paths("", document))
    return mesh_status(compiled.mesh, compiled.topology, answers)


def status_text(status: MeshStatus) -> str:
    """The table, who did not answer, and the whole in a line."""
    from meshctl.agent.node.tables import age, rtt, table
    from meshctl.cli.show import error_text
    from meshctl.deploy.meshstatus import OFF

    rows = list(_rows(status.paths))
    lines = [
        (pair, p.network, p.state, p.relay, p.endpoint, rtt(p.rtt_ms), age(p.age_s), p.reason) for pair, p in rows
    ]
    parts = [table(HEAD, lines), ""] if lines else []
    parts += [f"{name}: no agent, by the inventory" for name, node in status.nodes.items() if node.agent == OFF]
    parts += [error_text(node.error) for node in status.nodes.values() if node.error is not None]
    return "\n".join([*parts, _summary(status, [p for _, p in rows])])


def _rows(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """A line for each pair; for each direction, where they differ or one alone is known."""
    known = {(p.network, p.source, p.to): p for p in paths}
    for (network, source, to), path in known.items():
        back = known.get((network, to, source))
        alike = back is not None and (back.state, back.relay) == (path.state, path.relay)
        if not alike:
            yield f"{source} > {to}", path
        elif source < to:
            yield f"{source} <> {to}", path


def _summary(status: MeshStatus, shown: list[Path]) -> str:
    from meshctl.deploy.meshstatus import CLIENT, OFF, STATES

    count = Counter(path.state for path in shown)
    asked = [node for node in status.nodes.values() if node.agent not in (OFF, CLIENT)]
    answered = sum(node.error is None for node in asked)
    states = ", ".join(f"{count[state]} {state}" for state in STATES)
    return f"{states}; {answered} of {len(asked)} agents answered."


def _watch(asking: Asking, compiled: Compiled, interval_s: float, output: str) -> int:
    """Until Ctrl-C, which is how it is meant to end."""
    import json

    from meshctl.deploy.progress import Silent

    status = None
    live = _live() if output == "human" and sys.stdout.isatty() else None
    try:
        if live is not None:
            live.start()
        while True:
            status = look(asking, compiled, Silent())
            if live is not None:
                live.update(_drawn(status_text(status)), refresh=True)
            else:
                click.echo(status_text(status) + "\n" if output == "human" else json.dumps(status.to_json()))
            asking.pause(interval_s)
    except KeyboardInterrupt:
        return EXIT_OK if status is None or status.ok else EXIT_FAILED
    finally:
        if live is not None:
            live.stop()


def _live() -> Any:
    """A text that is drawn anew in its place."""
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="visible")


def _drawn(text: str) -> Any:
    """As it is drawn: a line that is too long is cut."""
    from rich.text import Text

    return Text.from_ansi(text, no_wrap=True, overflow="ellipsis")
