"""What the controller and the applier must agree on about a node."""

from __future__ import annotations

# What a login shell would find (a pyenv, say) is not what the steps find: facts and steps search the same fixed path.
# Distributions put wg, nft and ip in different ones of these, and sudo may hide sbin.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where the applier's zipapps are, as AGENT_PREFIX HASH AGENT_SUFFIX.
AGENT_DIR = "/opt/meshctl"
AGENT_PREFIX, AGENT_SUFFIX = "meshctl-agent-", ".pyz"
# sh -c FACTS_SHELL: the script comes by standard input and is read whole before it runs, so that a connection that is
# cut never runs half of it.
FACTS_SHELL = 'eval "$(cat)" </dev/null'
