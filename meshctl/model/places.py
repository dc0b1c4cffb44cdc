"""What the controller and the applier must agree on about a node."""

from __future__ import annotations

from collections.abc import Container

# What a login shell would find (a pyenv, say) is not what the steps find: facts and steps search the same fixed path.
# Distributions put wg, nft and ip in different ones of these, and sudo may hide sbin.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where the zipapps of applier and agent are, as AGENT_PREFIX HASH AGENT_SUFFIX.
AGENT_DIR = "/opt/meshctl"
AGENT_PREFIX, AGENT_SUFFIX = "meshctl-agent-", ".pyz"
# What the agent's unit runs: a link to one of them.
AGENT_LINK = f"{AGENT_DIR}/meshctl-agent.pyz"
# The agent's own nftables tables, both of the family `inet`, which no apply changes.
RELAYS_TABLE, SPLICES_TABLE = "meshctl_relays", "meshctl_splices"
# An apply that waits to be confirmed; one that was undone, and why; and what confirms and undoes: a link to a zipapp.
PENDING_PATH = "/var/lib/meshctl/pending.json"
UNDONE_PATH = "/var/lib/meshctl/undone.json"
REVERT_LINK = f"{AGENT_DIR}/meshctl-revert.pyz"
# sh -c FACTS_SHELL: the script comes by standard input and is read whole before it runs, so that a connection that is
# cut never runs half of it.
FACTS_SHELL = 'eval "$(cat)" </dev/null'


def is_lost_zipapp(path: str, present: Container[str]) -> bool:
    """Whether the path is that of a zipapp whose hash is not among those that are `present` on the node."""
    start = f"{AGENT_DIR}/{AGENT_PREFIX}"
    return path.startswith(start) and path[len(start) : -len(AGENT_SUFFIX)] not in present
