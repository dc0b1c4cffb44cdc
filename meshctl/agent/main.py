"""Entry point of the zipapp on a node: `meshctl-agent-HASH.pyz COMMAND`."""

from __future__ import annotations

import sys

USAGE = "usage: meshctl-agent apply < TRANSACTION\n       meshctl-agent run [--document FILE] [--state FILE]\n"


def main() -> int:
    """Run the named command and return its exit status."""
    if sys.argv[1:2] == ["run"]:
        from meshctl.agent.node.service import main as run

        return run(sys.argv[2:])
    if sys.argv[1:] != ["apply"]:
        sys.stderr.write(USAGE)
        return 64
    from meshctl.agent.apply import main as apply

    return apply()


if __name__ == "__main__":
    sys.exit(main())
