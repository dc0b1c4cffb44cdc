"""Entry point of the zipapp on a node: `meshctl-agent-HASH.pyz COMMAND`."""

from __future__ import annotations

import sys

USAGE = """\
usage: meshctl-agent COMMAND [OPTIONS]

  status    the node in short
  paths     how each peer is reached, and why
  events    the last decisions
  nat       the NATs in front of this node
  rebind    find everything out anew
  override  keep one pair on the relay or off it
  run       keep this node's paths alive; what the unit runs
  cleanup   give back what the agent leaves behind when it ends, for it is gone for good
  apply     read a transaction of meshctl's and carry it out
  confirm   keep what an apply has done, which is undone otherwise
  undo      undo what an apply has done, now
  hold      let an apply wait anew to be confirmed, from now on
  follow    give a peer's prefixes to whichever of two keys it uses, while it switches from one to the other
  probe     which peers are heard, once something was sent to each
  revert    undo what an apply has done and nobody has confirmed, when it is time; what a timer runs, and each boot

`meshctl-agent COMMAND --help` says more.
"""
ASKING = ("status", "paths", "events", "nat", "rebind", "override")
DECIDING = ("confirm", "hold", "undo")


def main() -> int:
    """Run the named command and return its exit status. Each is imported only when it runs."""
    command, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if command == "run":
        from meshctl.agent.node.service import main as run

        return run(arguments)
    if command in ASKING:
        from meshctl.agent.node.commands import main as show

        return show(command, arguments)
    if command == "cleanup":
        from meshctl.agent.node.cleanup import main as cleanup

        return cleanup(arguments)
    if command == "apply" and not arguments:
        from meshctl.agent.apply import main as apply

        return apply()
    if command in DECIDING and len(arguments) == 1:
        from meshctl.agent.revert import decide

        return decide(command, arguments[0])
    if command == "follow" and not arguments:
        from meshctl.agent.follow import follow

        return follow()
    if command == "probe" and not arguments:
        from meshctl.agent.probe import probe

        return probe()
    if command == "revert" and arguments in ([], ["--boot"]):
        from meshctl.agent.revert import revert

        return revert(arguments)
    wanted = command in ("-h", "--help")
    (sys.stdout if wanted else sys.stderr).write(USAGE)
    return 0 if wanted else 64


if __name__ == "__main__":
    sys.exit(main())
